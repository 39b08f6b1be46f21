"""The commands of ``eie``, one a file."""
