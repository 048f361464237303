"""Model bundles that travel inside the wheel."""
