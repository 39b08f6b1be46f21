"""Fuzzing: files and bus traffic that lie, made from a seed, each refused in words or right; never anything else."""
