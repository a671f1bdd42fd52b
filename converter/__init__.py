"""TIFF stacks → Neuroglancer precomputed datasets."""

from converter.convert import convert
from converter.options import ConvertOptions, Summary
from converter.output.finished import was_made_of
from converter.stacks.source_options import source_options

__all__ = ["ConvertOptions", "Summary", "convert", "source_options", "was_made_of"]
