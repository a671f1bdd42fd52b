"""`precomputed describe`: what a dataset says of itself, and correcting that without converting it again."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import click

from annotation_store.slices import slice_naming
from annotation_store.transform import transform_annotations
from converter.describe import Corrections, Described, describe, described
from converter.report import table
from converter.served.publish import dataset_of, is_stack, publish
from converter.served.record import STACK
from converter.stacks.voxel_size import parse_edges
from precomputed_server.errors import InvalidInput
from precomputed_server.format.geometry import Vector

_COLORS = {
    "red": "#ff0000",
    "green": "#00ff00",
    "blue": "#0000ff",
    "cyan": "#00ffff",
    "magenta": "#ff00ff",
    "yellow": "#ffff00",
    "white": "#ffffff",
}
_COLOR = re.compile("#[0-9a-f]{6}")


@click.command("describe")
@click.argument("dataset", type=click.Path(exists=True, path_type=Path))
@click.option("--voxel-size", metavar="X,Y,Z", help="Edges of a voxel in µm; `,,2` leaves x and y as they are.")
@click.option("--offset", metavar="X,Y,Z", help="The voxel at which the volume begins; only without annotations.")
@click.option("--channel-names", metavar="NAME,…", help="A name for each channel; an empty one leaves it as it is.")
@click.option("--colors", metavar="COLOR,…", help=f"A colour for each channel: #rrggbb, {', '.join(_COLORS)}.")
@click.option("--title", metavar="TEXT", help="What the dataset is called; empty: as its directory.")
@click.option("--tags", metavar="TAG,…", help="Words by which it is found, instead of those that it has.")
@click.option("--description", metavar="TEXT", help="What it shows.")
@click.option("--segmentation", is_flag=True, help="The voxels of a stack are labels.")
@click.option(
    "--to",
    "to",
    metavar="DIR",
    type=click.Path(path_type=Path),
    help="The dataset that a stack becomes  [default: its directory, of a file that of its name beside it]",
)
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def describe_command(dataset: Path, as_json: bool, to: Path | None, segmentation: bool, **given: str | None) -> None:
    """Correct what DATASET says of itself, without converting it again, and print what it says.

    Voxels stay as they are. Annotations are in voxels and stay too: they move with the image.

    Where DATASET is a directory of TIFF planes or a multi-page TIFF, it becomes a dataset without being converted: the
    server reads the planes, and makes coarser levels in the background.

    \b
    precomputed describe /data/brain
    precomputed describe /data/brain --voxel-size ,,2.5
    precomputed describe /data/brain --channel-names DAPI,GFP --colors blue,green --tags mouse,cleared
    precomputed describe /data/raw/planes --voxel-size 0.65,0.65,2
    precomputed describe /data/raw/stack.tif --to /data/mouse_3
    """
    corrections = _corrections(given)
    if is_stack(dataset):
        found = publish(dataset, to or dataset_of(dataset), corrections, slice_naming, segmentation or None)
    elif to is not None or segmentation:
        raise InvalidInput(f"--to and --segmentation are for stacks, and {dataset} is none; leave them out.")
    elif corrections.is_empty:
        found = described(dataset)
    else:
        found = describe(dataset, corrections, slice_naming, transform_annotations)
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False))
    else:
        for line in table(_rows(found)):
            click.echo(line)


def _corrections(given: dict[str, Any]) -> Corrections:
    edges, offset, tags = given["voxel_size"], given["offset"], _listed(given["tags"])
    return Corrections(
        voxel_size=None if edges is None else parse_edges(edges),
        offset=None if offset is None else _vector(offset),
        channel_names=_listed(given["channel_names"]),
        colors=_colors(given["colors"]),
        title=given["title"],
        tags=None if tags is None else tuple(tag for tag in tags if tag),
        description=given["description"],
    )


def _listed(text: str | None) -> tuple[str, ...] | None:
    return None if text is None else tuple(part.strip() for part in text.split(","))


def _colors(text: str | None) -> tuple[str, ...] | None:
    parts = _listed(text)
    if parts is None:
        return None
    colors = tuple(_COLORS.get(part.lower(), part.lower()) for part in parts)
    for part, color in zip(parts, colors, strict=True):
        if color and _COLOR.fullmatch(color) is None:
            raise InvalidInput(f"{part} is no colour; use #rrggbb or one of {', '.join(_COLORS)}.")
    return colors


def _vector(text: str) -> Vector:
    try:
        x, y, z = (int(part) for part in text.split(","))
    except ValueError as error:
        raise InvalidInput(f"--offset {text} is not X,Y,Z in whole voxels, such as 128,0,0.") from error
    return x, y, z


def _rows(found: Described) -> list[tuple[str, str]]:
    record, info = found.record, found.info
    rows = [
        ("title", found.title),
        ("description", record.get("description", "")),
        ("tags", ", ".join(record.get("tags", ()))),
    ]
    if info is None:
        return [*rows, ("layers", ", ".join(str(layer.get("name")) for layer in record.get("layers", ())))]
    finest = info.scales[0]
    edges = " × ".join(f"{nm / 1000:g}" for nm in finest.resolution_nm)
    origin = ", ".join(record.get("voxel_size", {}).get("source", ()))
    channels = [
        (f"channel {number}", f"{channel.name or '-'} {channel.color or ''}".strip())
        for number, channel in enumerate(found.channels)
    ]
    if STACK in record:
        rows.append(("served", f"as it is, from {os.path.normpath(found.path / record[STACK]['source'])}"))
    return [
        *rows,
        ("size", f"{' × '.join(map(str, finest.size))} voxels, {info.data_type}, {info.volume_type}"),
        ("voxel size", f"{edges} µm" + (f" ({origin})" if origin else "")),
        ("offset", ", ".join(map(str, finest.voxel_offset))),
        *channels,
    ]
