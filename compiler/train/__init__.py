"""Training side: data, pruning, trained weight sharing, recipes. Needs torch, the extra `torch` of this package."""
