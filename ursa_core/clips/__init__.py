"""What one clip is asked for, planned, made from and written as."""
