"""Driver of the accelerator: one for every way to it, as a user of a board or a system-on-chip has it."""
