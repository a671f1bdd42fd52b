"""The HTTP side, through requests."""
