"""Gathering facts: what is there, as far as it can be found out without changing anything; judges nothing."""
