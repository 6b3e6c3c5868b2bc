"""`python -m stackbook` is the command `stackbook`."""

import sys

from stackbook.cli import main

sys.exit(main())
