"""`python -m advbn_hf` is the command `advbn`."""

from .commands import main

if __name__ == "__main__":
    main()
