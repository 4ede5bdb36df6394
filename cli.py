"""Run the command line from a checkout: ``python cli.py pretrain``."""

from skillbank.cli import main

if __name__ == "__main__":
    main()
