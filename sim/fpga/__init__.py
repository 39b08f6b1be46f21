"""Synthesis, place and route of one PE, for figures: how fast, how large, and what limits it."""
