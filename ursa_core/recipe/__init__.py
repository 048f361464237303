"""Recipes: typed YAML with overrides, every fault reported at once."""
