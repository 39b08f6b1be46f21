"""Measurements: what the array and the kit achieve, one a module."""
