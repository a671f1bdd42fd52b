"""Behaviour through public seams, on data built in code."""
