"""What is printed, and how failures end."""
