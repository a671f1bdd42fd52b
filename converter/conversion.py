"""A conversion as it is asked for: what its source was understood to be, and what the dataset will be."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import dataclass
from pathlib import Path

from converter.options import ConvertOptions
from converter.output.corrections import Corrected
from converter.output.provenance import Origin
from converter.pyramid.plan import Pyramid, pyramid_of
from converter.pyramid.scales import Level, levels, volume_info
from converter.pyramid.target import Coarser, Target
from converter.pyramid.tasks import FAIL, Volume
from converter.source_version import source_version
from converter.stacks.channels import Channel
from converter.stacks.data_type import label_remarks, label_type
from converter.stacks.source import Stack, read_stack
from converter.stacks.stack_source import StackSource, stack_source
from converter.stacks.voxel_size import edge_remarks, voxel_size
from converter.writers import COMPRESSED_SEGMENTATION, Voxels, Writer, writer
from precomputed_server.errors import InvalidInput
from precomputed_server.format.info import ScaleInfo, VolumeInfo
from precomputed_server.format.statistics import row_stride


@dataclass(frozen=True)
class Conversion:
    """A conversion that has been checked and can begin.

    Levels before `first_kept` are made but not kept: they are read from the stack where it is served as it is.
    """

    origin: Origin
    source: StackSource
    volume: Volume
    levels: tuple[Level, ...]
    writer: Writer
    channels: tuple[Channel, ...]
    first_kept: int = 0

    @property
    def options(self) -> ConvertOptions:
        """What was asked for."""
        return self.origin.options

    @property
    def scales(self) -> tuple[ScaleInfo, ...]:
        """The scales as the format has them, finest first."""
        return tuple(self.writer.described(level.scale, number) for number, level in enumerate(self.levels))

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should look at though it may be meant, in sentences."""
        options, labels = self.options, label_remarks(self.source.dtype)
        unsaid = not options.segmentation and options.downsample_method is None and len(self.levels) > 1
        edges = edge_remarks(dict(zip("xyz", self.origin.voxel_size.micrometres, strict=True)))
        return (*edges, *self.source.stack.remarks, *(labels if unsaid else ()))

    @property
    def info(self) -> VolumeInfo:
        """The `info` that the dataset will have."""
        kind = "segmentation" if self.volume.segmentation else "image"
        return volume_info(self.scales, self.volume.dtype.name, self.volume.num_channels, kind)

    @property
    def file_names(self) -> tuple[str, ...]:
        """The files that the format puts beside `info`."""
        return tuple(self.writer.dataset_files(self.info, "", ()))

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys of the levels, finest first."""
        return tuple(scale.key for scale in self.scales)

    @property
    def pyramid(self) -> Pyramid:
        """What its tasks are divided by."""
        steps = tuple(level.step for level in self.levels)
        return pyramid_of(self.scales, steps, self.volume.num_channels, self.volume.dtype)

    def target(self, directory: Path) -> Target:
        """Where its chunks are put, in a directory of levels."""
        if self.first_kept:
            return Coarser(directory, self.scales, self.writer, self.first_kept)
        return Target(directory, self.scales, self.writer)

    @property
    def identity(self) -> str:
        """Tells whether an interrupted conversion is this one: by what was asked, and the voxels that it found."""
        members = {**self.origin.request, "info": self.info.to_json()}
        return hashlib.sha256(json.dumps(members, sort_keys=True).encode()).hexdigest()


def prepare(sources: tuple[str, ...], options: ConvertOptions, known: Corrected) -> Conversion:
    """Read and check the source, of which people have corrected what is `known`; nothing is written."""
    began = time.time()
    stack = read_stack(sources, options.source, tolerant=options.on_error != FAIL)
    size = voxel_size(stack.metadata, options.voxel_size, options.assumed_voxel_size, known.edges)
    files = {plane.path: plane.version for pages in stack.planes for plane in pages}
    size = size.seen(options.source.view)
    return of_stack(stack, Origin(sources, options, files, size, began, source_version(sources, files, options)), known)


def of_stack(stack: Stack, origin: Origin, known: Corrected) -> Conversion:
    """The conversion of a stack whose headers were read; raises InvalidInput for what cannot be made of it."""
    options = origin.options
    compact = options.segmentation and options.encoding == COMPRESSED_SEGMENTATION
    dtype = options.dtype or (label_type(stack.dtype) if compact else None)
    source = stack_source(stack, options.source, dtype, options.segmentation)
    if options.segmentation and stack.num_channels > 1:
        raise InvalidInput(
            f"Labels have one channel and {origin.sources[0]} has {stack.num_channels}; leave --segmentation out."
        )
    bounds = source.bounds
    volume = Volume(source.dtype, stack.num_channels, options.segmentation, options.method, row_stride(bounds.voxels))
    pyramid = levels(source.size, origin.voxel_size.nanometres, options.pyramid, bounds.start)
    chosen = writer(options.output, Voxels(source.dtype, stack.num_channels, options.chunk_size))
    return Conversion(origin, source, volume, pyramid, chosen, known.of(stack.channels))
