"""Many items in one run: lists, names, a manifest, resuming and sharding, whatever is made."""
