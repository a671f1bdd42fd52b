"""TIFF stacks → Neuroglancer precomputed datasets."""

from converter.convert import convert, was_made_of
from converter.options import ConvertOptions, Summary

__all__ = ["ConvertOptions", "Summary", "convert", "was_made_of"]
