"""`python -m reviewguard`: the command line."""

from reviewguard.cli.app import main

if __name__ == "__main__":
    main()
