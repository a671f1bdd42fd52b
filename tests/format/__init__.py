"""The format, as values and functions."""
