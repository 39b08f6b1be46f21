"""Searches: fields of a recipe, and of the array, chosen by what the network then gets wrong and costs."""
