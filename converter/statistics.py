"""Per-channel statistics of an image, for a viewer's contrast."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from converter.tasks import StoredScale
from precomputed_server.format.grid import cell_box, cells

LOW_PERCENTILE, HIGH_PERCENTILE = 1.0, 99.8
_SAMPLE_BYTES = 64 << 20


def statistics(stored: StoredScale) -> dict[str, Any]:
    """What `statistics.json` holds for a scale: minimum, maximum, 1st and 99.8th percentile of each channel.

    Of a scale of more than 64 MiB, chunks spread evenly over it are looked at. NaN and infinities do not count; a
    channel without any other value has null for each figure. Segmentations have no channels here.
    """
    if stored.volume.segmentation:
        return {"format": 1, "channels": []}
    boxes = [cell_box(stored.scale, cell) for cell in cells(stored.scale)]
    stride = max(1, stored.scale.bounds.voxels * stored.volume.voxel_bytes // _SAMPLE_BYTES)
    chunks = [stored.read(box).reshape(stored.volume.num_channels, -1) for box in boxes[::stride]]
    return {"format": 1, "channels": [_channel(values) for values in np.concatenate(chunks, axis=1)]}


def _channel(values: NDArray[Any]) -> dict[str, int | float | None]:
    """The figures of one channel, `values` "(N,)" of any dtype; whole numbers stay whole."""
    finite = values[np.isfinite(values)]
    if finite.size == 0:
        return dict.fromkeys(("min", "max", "p01", "p998"))
    low, high = np.percentile(finite, [LOW_PERCENTILE, HIGH_PERCENTILE], method="nearest")
    return {"min": finite.min().item(), "max": finite.max().item(), "p01": low.item(), "p998": high.item()}
