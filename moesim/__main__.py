"""`python -m moesim` is the command `moesim`."""

from moesim.cli.main import main

if __name__ == "__main__":
    main()
