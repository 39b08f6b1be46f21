"""Mutation testing of the hardware: which faults of one bit would no test see (see docs/mutation.md)."""
