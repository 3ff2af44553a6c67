"""`python -m mupc` is `mupc`."""

from mupc.cli import main

if __name__ == "__main__":
    main()
