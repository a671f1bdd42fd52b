"""The peer of the conversion benchmark: a stack into a raw precomputed pyramid by tensorstore, as one would by hand.

    python -m benchmarks.tensorstore_convert STACK DESTINATION

Slabs of 64 planes are read with tifffile and written at full resolution; each further level is tensorstore's own
downsampling of the one before, copied slab by slab.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import tensorstore
import tifffile

LEVELS, SLAB = 4, 64


def main(source: Path, destination: Path) -> None:
    """Convert the planes of a directory."""
    planes = sorted(source.iterdir(), key=lambda path: int(path.stem.rpartition("_")[2]))
    rows, columns = tifffile.imread(planes[0]).shape
    finer = _scale(destination, (columns, rows, len(planes)), 1, create=True)
    for first in range(0, len(planes), SLAB):
        slab = np.stack([tifffile.imread(path) for path in planes[first : first + SLAB]])
        finer[:, :, first : first + len(slab), 0] = slab.transpose(2, 1, 0)
    for level in range(1, LEVELS):
        size = finer.shape
        coarser = _scale(destination, tuple(-(-length // 2) for length in size[:3]), 2**level, create=False)
        halved = tensorstore.downsample(finer, [2, 2, 2, 1], "mean")
        for first in range(0, halved.shape[2], SLAB):
            last = min(first + SLAB, halved.shape[2])
            coarser[:, :, first:last].write(halved[:, :, first:last]).result()
        finer = coarser


def _scale(destination: Path, size: tuple[int, ...], factor: int, *, create: bool) -> Any:  # noqa: ANN401
    return tensorstore.open(
        {
            "driver": "neuroglancer_precomputed",
            "kvstore": f"file://{destination}/",
            "create": True,
            "delete_existing": create,
            "multiscale_metadata": {"data_type": "uint16", "num_channels": 1, "type": "image"},
            "scale_metadata": {
                "size": list(size),
                "encoding": "raw",
                "chunk_size": [64, 64, 64],
                "resolution": [1000 * factor] * 3,
            },
        }
    ).result()


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
