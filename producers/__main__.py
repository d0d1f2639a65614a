"""Lets `python -m producers` be the command."""

from producers.cli import main

if __name__ == "__main__":
    main()
