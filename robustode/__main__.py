"""`python -m robustode` is `robustode`."""

from robustode.cli.main import main

if __name__ == "__main__":
    main()
