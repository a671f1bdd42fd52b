"""Stacks that are served as they are: full resolution from the planes, coarser levels made in the background."""
