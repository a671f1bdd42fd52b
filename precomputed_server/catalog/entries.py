"""What the catalog keeps of a place in the tree: one entry a dataset or raw stack, one layer a volume."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from precomputed_server.format.geometry import Vector

State = Literal["complete", "converting", "incomplete", "unusable", "stack", "vanished"]
COMPLETE: State = "complete"
CONVERTING: State = "converting"
"""A process holds the lock of a conversion into it; what was there before is still served."""
INCOMPLETE: State = "incomplete"
"""Something is missing and another run of a program would add it."""
UNUSABLE: State = "unusable"
"""What is there cannot be read; somebody has to look at it."""
STACK: State = "stack"
"""A folder of TIFF planes that nobody has published."""
VANISHED: State = "vanished"
"""It was there, and is not any more."""
STATES: tuple[State, ...] = (COMPLETE, CONVERTING, INCOMPLETE, UNUSABLE, STACK, VANISHED)


@dataclass(frozen=True)
class Scale:
    """A resolution of a layer: `size` and `chunk_size` in voxels, x, y, z."""

    key: str
    size: Vector
    resolution_nm: tuple[float, float, float]
    chunk_size: Vector
    encoding: str


@dataclass(frozen=True)
class Layer:
    """A volume of a dataset; `path` is relative to the dataset, "" where the dataset is the volume.

    `format` says how its chunks lie on disk. `bytes` are those on disk, None where nobody has counted them.
    """

    name: str
    path: str
    type: str
    data_type: str
    num_channels: int
    scales: tuple[Scale, ...]
    voxel_offset: Vector
    format: str
    bytes: int | None = None
    state: State = COMPLETE
    reason: str = ""

    def to_json(self) -> dict[str, Any]:
        """As the interface has it."""
        return asdict(self)


@dataclass(frozen=True)
class KnownPlace:
    """What a scan has to know of a place that an earlier one found: `signature` is made of the names in `watched`."""

    state: State
    watched: tuple[str, ...]
    signature: str


@dataclass(frozen=True)
class Entry:
    """A dataset, or a folder of planes, at `path` beneath the root ("" where the root is one).

    `reason` is a sentence, empty where there is nothing to say. `done` of `total` chunks are converted while the state
    is CONVERTING or a conversion was interrupted. `annotations` counts those that lie in its blocks, None where nobody
    has counted them. `watched` are the names beneath it whose states `signature` was made of.
    """

    path: str
    state: State
    reason: str = ""
    id: str | None = None
    title: str = ""
    description: str = ""
    tags: tuple[str, ...] = ()
    layers: tuple[Layer, ...] = ()
    annotations: int | None = None
    done: int | None = None
    total: int | None = None
    watched: tuple[str, ...] = field(default=(), compare=False)
    signature: str = field(default="", compare=False)
