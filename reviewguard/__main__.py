"""`python -m reviewguard`: the command line."""

from reviewguard.cli import main

if __name__ == "__main__":
    main()
