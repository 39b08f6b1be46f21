"""The exact cycle model: the compiler chooses tiles by it, and runs are timed with it."""
