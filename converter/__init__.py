"""TIFF stacks → Neuroglancer precomputed datasets."""

from converter.convert import convert
from converter.options import ConvertOptions, Summary

__all__ = ["ConvertOptions", "Summary", "convert"]
