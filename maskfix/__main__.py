"""``python -m maskfix``."""

from maskfix.cli.main import main

if __name__ == "__main__":
    main()
