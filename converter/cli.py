"""The commands `precomputed convert` and `precomputed-tif`: they parse, call `convert` and say what was done."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from converter.cli_batch import convert_each
from converter.cli_run import Asked, convert_layers, convert_one, say
from converter.cli_source import taken_source_options, with_source_options
from converter.convert import convert as convert_stack
from converter.options import ConvertOptions, Summary
from converter.output.destination import KEEP, TRANSFORM
from converter.output.swap import TransformAnnotations
from converter.pyramid.downsample import METHODS
from converter.pyramid.progress import progress_on
from converter.pyramid.stopping import stoppable
from converter.pyramid.tasks import BLANK, FAIL, SKIP
from converter.stacks.voxel_size import ASSUMED, parse_edges
from converter.writers import COMPRESSION_NAMES, ENCODINGS, FORMATS
from precomputed_server.errors import InvalidInput
from precomputed_server.format.geometry import Vector
from precomputed_server.format.info import DATA_TYPES
from precomputed_server.sizes import parse_size

PREDECESSOR_VOXEL_SIZE = "1.8,1.8,2.0"
"""What MIT's precomputed-tif takes when nothing is said."""


def _vector(context: click.Context, parameter: click.Parameter, value: str | None) -> Vector | None:
    """Parse `X,Y,Z`."""
    if value is None:
        return None
    parts = value.split(",")
    try:
        x, y, z = (int(part) for part in parts)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is not X,Y,Z in whole numbers, such as 64,64,64.") from error
    return x, y, z


def _step(context: click.Context, parameter: click.Parameter, value: str) -> Vector | None:
    """Parse `auto` or `X,Y,Z`."""
    return None if value == "auto" else _vector(context, parameter, value)


def _bytes(context: click.Context, parameter: click.Parameter, value: str | None) -> int | None:
    """Parse a size such as `512MiB`, `2GiB` or `1.5GB`."""
    if value is None:
        return None
    size = parse_size(value)
    if size is None:
        raise click.BadParameter(f"{value!r} is no size, such as 512MiB or 2GiB.")
    if value.strip()[-1].isdigit():
        raise click.BadParameter(f"{value!r} has no unit; give one, such as {value.strip()}GiB.")
    return size


_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--voxel-size", metavar="X,Y,Z", help="Edges of a voxel in µm; `,,2` gives only what the TIFF lacks."),
    click.option("--levels", type=int, help="Number of levels, full resolution included  [default: to one chunk]"),
    click.option("--downsample", default="auto", callback=_step, metavar="auto|X,Y,Z", show_default=True,
                 help="Factor between levels, each 1 or 2; auto halves what keeps voxels near to cubes."),
    click.option("--chunk-size", default="64,64,64", callback=_vector, metavar="X,Y,Z", show_default=True,
                 help="Voxels of a chunk."),
    click.option("--format", metavar="|".join(FORMATS), default="tiff", show_default=True,
                 help="tiff, raw: a file a chunk; sharded: few files; zarr: OME-Zarr 0.4; ngff: with numbered levels."),
    click.option("--compress", type=click.Choice(COMPRESSION_NAMES),
                 help="How chunks are compressed  [default: deflate in tiff, gzip in sharded, blosc in zarr]"),
    click.option("--encoding", type=click.Choice(ENCODINGS), default="raw", show_default=True,
                 help="Of the chunks of raw and sharded; jpeg changes voxels."),
    click.option("--jpeg-quality", type=int, default=90, show_default=True, help="From 1 to 100."),
    click.option("--shard-size", type=int, default=1024, show_default=True,
                 help="MiB of voxels in a shard, before they are compressed."),
    click.option("--segmentation", is_flag=True, help="The voxels are labels: levels keep the most frequent one."),
    click.option("--dtype", type=click.Choice(DATA_TYPES),
                 help="What the planes become: a type that holds all their values, or uint8, uint16 with --window."),
    click.option("--downsample-method", type=click.Choice(list(METHODS)),
                 help="How coarser levels are made  [default: average; mode for labels]"),
    click.option("--jobs", type=int, help="Processes  [default: the CPUs this process may use]"),
    click.option("--scheduler", metavar="ADDRESS",
                 help="Convert on the Dask cluster of tcp://HOST:PORT; --jobs is then for how many threads of its "
                      "workers the work is divided  [default: those that are there], --max-memory that of each worker "
                      "[default: 60 % of its limit, which is the most]"),
    click.option("--max-memory", callback=_bytes, metavar="SIZE",
                 help="Memory of all processes together, such as 4GiB  [default: half of what this job or machine has, "
                      "at most 2GiB]"),
    click.option("--on-error", type=click.Choice([FAIL, SKIP, BLANK]), default=FAIL, show_default=True,
                 help="A plane that cannot be read ends the conversion, leaves its chunks out, or counts as 0."),
    click.option("--overwrite", is_flag=True, help="Replace a pyramid that this program wrote."),
    click.option("--annotations", type=click.Choice([KEEP, TRANSFORM]),
                 help="With --overwrite: leave annotations as they are, or move them to the new voxels."),
    click.option("--annotation-block", callback=_vector, metavar="X,Y,Z",
                 help="Voxels of an annotation block  [default: the whole extent]"),
)  # fmt: skip


def _with_options(command: Callable[..., None]) -> Callable[..., None]:
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


@click.command()
@click.argument("paths", nargs=-1, metavar="SOURCE... DEST")
@_with_options
@with_source_options
@click.option("--split-channels", is_flag=True, help="Make each channel a layer of its own: DEST/NAME.")
@click.option("--each", is_flag=True, help="Convert every match of SOURCE into a dataset of its own: DEST/NAME.")
@click.option("--json", "as_json", is_flag=True, help="Print events as lines of JSON, and nothing else, for programs.")
@click.pass_context
@stoppable
def convert(context: click.Context, /, paths: tuple[str, ...], **values: Any) -> None:
    """Convert the TIFF stack SOURCE into the dataset DEST.

    SOURCE is a directory of planes, planes by name or glob (in natural order: img_2 before img_10), or a multi-page
    TIFF. The voxel size is read from the TIFF where it is there, and asked for where it is not.

    \b
    precomputed convert planes/ /data/brain --voxel-size 0.65,0.65,2
    precomputed convert 'planes/*.tif' /data/brain --voxel-size ,,2
    precomputed convert labels.tif /data/cells --segmentation --voxel-size 1,1,1
    precomputed convert raw/ /data/brain --pattern 'img_{c}_t{t}_z{z}.tif' --time 3 --channel GFP
    precomputed convert --each 'raw/*/' /data --voxel-size 0.65,0.65,2
    """
    if len(paths) < 2:
        raise click.UsageError("Name the stack and where to write the dataset: precomputed convert SOURCE... DEST.")
    if values["annotations"] is not None and not values["overwrite"]:
        raise click.UsageError("--annotations says what --overwrite does with annotations; add --overwrite.")
    if values["each"] and values["split_channels"]:
        raise click.UsageError("--each makes a dataset without layers of each stack; leave --split-channels out.")
    *source, dest = paths
    edges = values.pop("voxel_size")
    if edges is not None:
        values["voxel_size"] = parse_edges(edges)
    split, each, as_json = (values.pop(name) for name in ("split_channels", "each", "as_json"))
    source_options = taken_source_options(values)
    options = ConvertOptions(**values, source=source_options)
    transform: TransformAnnotations | None = context.obj  # from the program that knows annotations
    asked = Asked(source, Path(dest), options, transform, as_json)
    if split:
        convert_layers(asked)
    elif not each:
        convert_one(asked)
    elif not convert_each(asked):
        context.exit(1)


@click.command("precomputed-tif", context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--source", required=True, help='Glob of the source planes, e.g. "/path/to/img_*.tif*".')
@click.option("--dest", required=True, type=click.Path(path_type=Path), help="Destination directory.")
@click.option("--levels", type=int, default=4, show_default=True, help="Number of levels with full resolution.")
@click.option(
    "--format", default="tiff", show_default=True, help="tiff, zarr or ngff, or another of `precomputed convert`."
)
@click.option("--chunk-size", default="64,64,64", callback=_vector, show_default=True, help="Voxels of a chunk, x,y,z.")
@click.option("--n-cores", type=int, help="Processes  [default: the CPUs this process may use]")
@click.option("--log", default="WARNING", show_default=True, help="Level of the log messages.")
@click.option("--voxel-size", help=f"Edges of a voxel in µm  [default: the TIFF's own, else {PREDECESSOR_VOXEL_SIZE}]")
@click.option("--segmentation", is_flag=True, help="The voxels are labels.")
@click.option("--overwrite", is_flag=True, help="Replace a pyramid that this program wrote.")
@stoppable
def precomputed_tif(source: str, dest: Path, **values: Any) -> None:
    """Convert as MIT's precomputed-tif does, with the same flags: every level halves all three axes."""
    _set_log_level(values["log"])
    given = values["voxel_size"]
    options = ConvertOptions(
        voxel_size=parse_edges(given or ",,"),
        assumed_voxel_size=parse_edges(PREDECESSOR_VOXEL_SIZE),
        levels=values["levels"],
        downsample=(2, 2, 2),
        chunk_size=values["chunk_size"],
        format=values["format"],
        segmentation=values["segmentation"],
        jobs=values["n_cores"],
        overwrite=values["overwrite"],
    )
    with progress_on() as progress:
        summary = convert_stack(source, dest, options, progress)
    if ASSUMED in summary.voxel_size.source:
        click.echo(
            f"Warning: the TIFF does not tell the voxel size; {_assumed(summary)} assumed; "
            "give --voxel-size X,Y,Z in µm.",
            err=True,
        )
    say(summary)


def _assumed(summary: Summary) -> str:
    size = summary.voxel_size
    edges = zip("xyz", size.micrometres, size.source, strict=True)
    return ", ".join(f"{axis} = {float(edge):g} µm" for axis, edge, source in edges if source == ASSUMED)


def _set_log_level(name: str) -> None:
    if name.upper() not in logging.getLevelNamesMapping():
        raise InvalidInput(f"--log {name} is no log level; use DEBUG, INFO, WARNING, ERROR or CRITICAL.")
    logging.basicConfig(level=name.upper())
