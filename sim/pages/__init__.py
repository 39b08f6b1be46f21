"""Pages for people: the report of a network or of a run, and the page of a run under way."""
