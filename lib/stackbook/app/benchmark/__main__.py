"""`python -m stackbook.app.benchmark [ROUNDS]`."""

from stackbook.app import program
from stackbook.app.benchmark.command import main

if __name__ == "__main__":
    program.end_with(main)
