"""`python -m stackbook` is the command `stackbook`."""

import sys

from stackbook.app.cli import entry

sys.exit(entry())
