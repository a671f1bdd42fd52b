"""Serve Neuroglancer-precomputed volumes and their annotations from a directory on disk."""

__version__ = "0.1.0"
