"""Entry point of `python -m reviewguard`."""

from reviewguard.cli.app import main

if __name__ == "__main__":
    main()
