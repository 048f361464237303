"""Options with their help, shared by commands."""
