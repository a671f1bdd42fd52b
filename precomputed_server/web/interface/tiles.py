"""What readers of the precomputed format ask for: info, chunks, cut-outs and any other file of the tree."""

from __future__ import annotations

from precomputed_server.errors import InvalidInput, TooLarge, Unreadable
from precomputed_server.web.interface.operation import (
    ANY,
    BINARY,
    ETAG,
    JSON,
    OBJECT,
    OF_FILES,
    PART,
    RANGED,
    UNCHANGED,
    WHATEVER,
    Answer,
    Operation,
    Parameter,
    Section,
    moved,
)
from precomputed_server.web.routes import CHUNK, CUTOUT, TREE

_BYTES = "application/octet-stream"
_BOX = "x0-x1_y0-y1_z0-z1 in voxels of the scale"

TILES = Section(
    "tiles",
    "What Neuroglancer and other readers of the precomputed format ask for",
    (
        Operation(
            TREE,
            "Type, channels and scales of a volume",
            (
                Answer(200, "The volume's info", {JSON: OBJECT}, {"ETag": ETAG}),
                PART,
                UNCHANGED,
                moved(),
            ),
            parameters=RANGED,
            errors=(*OF_FILES, Unreadable),
            path="/{dataset}/info",
        ),
        Operation(
            CHUNK,
            "One chunk",
            (
                Answer(200, "The chunk", {_BYTES: BINARY}, {"ETag": ETAG, "Content-Encoding": "How it is compressed"}),
                PART,
                UNCHANGED,
                moved(),
            ),
            parameters=(
                Parameter("leaf", _BOX, where="path", example="0-64_0-64_0-20"),
                *RANGED,
                Parameter("Accept-Encoding", "What is stored in one of these is sent as it lies", where="header"),
            ),
            errors=(*OF_FILES, Unreadable),
            description="The C-order, little-endian bytes of the array (channel, z, y, x), whatever file they lie in; "
            "with or without `.tiff` at the end. `{x}_{y}_{z}` is the key of a scale as info has it; other keys work "
            "as well.",
            path="/{dataset}/{x}_{y}_{z}/{leaf}",
        ),
        Operation(
            CUTOUT,
            "Any box of voxels of a scale",
            (
                Answer(
                    200,
                    "The voxels",
                    {_BYTES: BINARY, "image/tiff": BINARY, "image/png": BINARY},
                    {
                        "Cutout-Axes": "C,Z,Y,X",
                        "Cutout-Shape": "Lengths along these axes: 1,20,64,64",
                        "Cutout-Data-Type": "As numpy writes it: <u2",
                    },
                ),
            ),
            parameters=(
                Parameter("box", _BOX, required=True, example="10-54_10-54_0-20"),
                Parameter(
                    "channel",
                    "Numbers from 0 or names of channels; default all",
                    {"type": "array", "items": str},
                ),
                Parameter(
                    "format",
                    "raw and npy are the array (channel, z, y, x), tiff is (z, channel, y, x), png one plane of uint8 "
                    "or uint16 in one or three channels",
                    {"enum": ["raw", "npy", "tiff", "png"], "default": "raw"},
                ),
            ),
            errors=(InvalidInput, TooLarge, Unreadable),
            description="Streamed, with its length known before: an answer that is shorter is not whole. A box outside "
            "the volume is 400, one above --max-cutout 413. What is not stored has the fill value. There is no ETag "
            "and no Range. HEAD reads no voxels. Where the path is not below a scale it is that of a file.",
        ),
        Operation(
            TREE,
            "A file, or with a slash at the end the listing of a directory",
            (
                Answer(200, "The file, or a page of relative links", {ANY: WHATEVER}, {"ETag": ETAG}),
                PART,
                UNCHANGED,
                moved(),
            ),
            parameters=RANGED,
            errors=(*OF_FILES, Unreadable),
            path="/{path}",
        ),
    ),
)
