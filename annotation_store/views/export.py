"""The collections of a dataset as files, which any web server hands to Neuroglancer."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from annotation_store.reader import AnnotationReader
from annotation_store.views.collection import BY_ID, INFO, SEGMENTS, Collection
from annotation_store.views.dataset import DatasetView
from annotation_store.views.levels import level_name
from precomputed_server.errors import DestinationExists
from precomputed_server.format.info import Resolution, VolumeInfo


def write_precomputed(reader: AnnotationReader, dataset: str, volume: VolumeInfo, directory: Path) -> int:
    """Write the collections of the dataset at `dataset` into `directory`, and return how many annotations they have.

    All is of one moment. Raises DestinationExists unless the directory is new or empty, OSError.
    """
    directory.mkdir(parents=True, exist_ok=True)
    if next(directory.iterdir(), None) is not None:
        raise DestinationExists(f"{directory} is not empty; name a directory that is new or empty.")
    view = DatasetView(reader, dataset, volume, 0)
    view.refresh()
    count = 0
    for name in view.names():
        collection = view.collection(name)
        if collection is not None:
            _write(collection, volume.scales[0].resolution_nm, directory / str(name))
            count += len(collection)
    return count


def _write(collection: Collection, resolution_nm: Resolution, directory: Path) -> None:
    for path, data in _files(collection):
        try:
            (directory / path).write_bytes(data)
        except FileNotFoundError:
            (directory / path).parent.mkdir(parents=True)
            (directory / path).write_bytes(data)
    # Last, so that what was interrupted is no collection.
    (directory / INFO).write_bytes(collection.info(resolution_nm))


def _files(collection: Collection) -> Iterator[tuple[str, bytes]]:
    for halvings in collection.levels():
        for (x, y, z), data in collection.filled_cells(halvings):
            yield f"{level_name(halvings)}/{x}_{y}_{z}", data
    for number, data in collection.singles():
        yield f"{BY_ID}/{number}", data
    for segment in collection.segments():
        yield f"{SEGMENTS}/{segment}", collection.related(segment)
