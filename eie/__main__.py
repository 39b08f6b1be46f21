"""``python -m eie`` is the ``eie`` command."""

from eie.cli import main

if __name__ == "__main__":  # processes that share a regression's work import this file again
    main()
