"""Searches for a level of each layer of a network (bits of a code, share of weights kept) under a limit on its cost."""
