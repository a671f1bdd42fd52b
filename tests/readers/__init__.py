"""Readers, through the bytes that they give."""
