"""``python -m eie`` is the ``eie`` command."""

from eie.cli import main

main()
