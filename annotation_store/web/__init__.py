"""Annotations over HTTP, and the process that writes them."""
