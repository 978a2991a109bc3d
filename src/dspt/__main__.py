"""``python -m dspt``."""

from dspt.cli import main

if __name__ == "__main__":
    main()
