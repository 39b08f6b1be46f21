"""The image of a network for one array: its memory contents, its file form, and the checks on it."""
