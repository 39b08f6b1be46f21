"""Architectures found by gradient against what they cost on the array: tables of cycles, and an experiment."""
