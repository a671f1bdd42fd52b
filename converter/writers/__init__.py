"""Output formats: how the chunks of a dataset are kept, one class each, behind the protocol in `protocol.py`."""

from converter.writers.encodings import COMPRESSED_SEGMENTATION
from converter.writers.files import read_chunk, write_chunk
from converter.writers.output import COMPRESSION_NAMES, ENCODINGS, FORMATS, Output, Voxels, writer
from converter.writers.protocol import Array, Channel, Pieces, Writer
from converter.writers.raw import RawWriter
from converter.writers.tiff import TiffWriter

__all__ = [
    "COMPRESSED_SEGMENTATION",
    "COMPRESSION_NAMES",
    "ENCODINGS",
    "FORMATS",
    "Array",
    "Channel",
    "Output",
    "Pieces",
    "RawWriter",
    "TiffWriter",
    "Voxels",
    "Writer",
    "read_chunk",
    "write_chunk",
    "writer",
]
