"""The demo: a stack is made or taken, converted, given annotations, and its links are told."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import quote

from annotation_store.edits import ReplaceAll
from annotation_store.orders import Order, Part
from annotation_store.store import AnnotationStore
from converter import ConvertOptions, convert, was_made_of
from converter.stacks.planes import write_plane
from converter.stacks.voxel_size import parse_edges
from precomputed_server import phantom
from precomputed_server.errors import InvalidInput
from precomputed_server.files import Tree
from precomputed_server.format.names import ANNOTATIONS, OPEN_PATH, VIEWER_PATH
from precomputed_server.readers.volumes import Volumes
from precomputed_server.web.targets import tree_url

Tell = Callable[[str], None]

TISSUE = "tissue"
_AUTHOR = "demo"


def made_up(directory: Path, data: Path, tell: Tell) -> str:
    """Make a stack of tissue in `directory`, convert it into `data` and annotate it, once; returns its path there."""
    dataset = data / TISSUE
    if (dataset / "info").exists():
        return TISSUE
    stack = directory / "stack"
    shutil.rmtree(stack, ignore_errors=True)
    stack.mkdir(parents=True)
    tell(f"Making a stack of light-sheet tissue in {stack} …")
    tissue = phantom.tissue()
    for number in range(tissue.planes.shape[1]):
        write_plane(stack / f"plane_{number}.tif", tissue.planes[:, number], phantom.VOXEL_SIZE_UM)
    tell(f"Converting it into {dataset} …")
    convert(str(stack), dataset, ConvertOptions())
    _annotate(data, tissue.annotations)
    return TISSUE


def of_stack(source: str, voxel_size: str | None, data: Path, tell: Tell) -> str:
    """Convert the stack `source` into `data`, once; returns the dataset's path there.

    Raises InvalidInput when a dataset of that name was made from something else.
    """
    source = os.path.abspath(source)
    name = Path(source.rstrip("/*")).name.partition(".")[0].strip("*?[]") or "stack"
    dataset = data / name
    options = ConvertOptions(voxel_size=parse_edges(voxel_size or ",,"))
    if not (dataset / "info").exists():
        tell(f"Converting {source} into {dataset} …")
        with _made(data):
            convert(source, dataset, options)
    elif not was_made_of(dataset, source, options):
        raise InvalidInput(
            f"{dataset} was made of another stack or voxel size; remove it, or choose another --directory."
        )
    else:
        tell(f"{source} was converted before; {dataset} is served as it is.")
    return name


@contextlib.contextmanager
def _made(directory: Path) -> Iterator[None]:
    """A directory for what is made in the meantime; where nothing is, those that had to be made for it go again."""
    new = [each for each in (directory, *directory.parents) if not each.exists()]
    directory.mkdir(parents=True, exist_ok=True)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # there is something in it
            for each in new:
                each.rmdir()


def links(url: str, root: Path, dataset: str) -> str:
    """The links of a dataset of a server at `url`, for people to click or copy."""
    with contextlib.closing(Tree(root)) as tree:
        if Volumes(tree).at(dataset) is None:
            return ""
    place = tree_url(dataset)
    return "\n".join(
        (
            f"  Neuroglancer   {url}{OPEN_PATH}{quote(dataset)}",
            f"  to annotate    {url}{VIEWER_PATH}#!{url}{place}/{ANNOTATIONS}/state",
            f"  NeuroTrALE     precomputed://{url}~demo.voxel/{place}",
            f"  files          {url}{place}/",
            f"  interface      {url}api/",
        )
    )


def _annotate(data: Path, annotations: dict[str, list[dict[str, object]]]) -> None:
    with contextlib.closing(Tree(data)) as tree:
        store = AnnotationStore(tree)
        for leaf, items in annotations.items():
            change = ReplaceAll({str(item["id"]): json.loads(json.dumps(item)) for item in items})
            location = store.locate(TISSUE, "x0y0z0", leaf)
            part = Part(leaf, "put", change=change)
            store.carry_out(Order(location.directory, (part,), _AUTHOR, _AUTHOR, f"demo {leaf}"))
