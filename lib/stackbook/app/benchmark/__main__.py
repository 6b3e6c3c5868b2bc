"""`python -m stackbook.app.benchmark [ROUNDS]`."""

import sys

from stackbook.app.benchmark.command import main
from stackbook.core.errors import StackbookError

if __name__ == "__main__":
    try:
        sys.exit(main())
    except StackbookError as error:
        print(f"stackbook: {error}", file=sys.stderr)
        sys.exit(error.exit_status)
