"""The command `precomputed inspect`: what a conversion would make of a source."""

from __future__ import annotations

import json
import sys
from typing import Any

import click

from converter.cli_source import taken_source_options, with_source_options
from converter.inspection import inspect_source, lines
from converter.options import ConvertOptions
from converter.stacks.voxel_size import parse_edges
from precomputed_server.format.info import DATA_TYPES


@click.command("inspect", short_help="Say what a TIFF stack was understood to be, without converting it.")
@click.argument("source", nargs=-1, required=True)
@with_source_options
@click.option("--voxel-size", metavar="X,Y,Z", help="Edges of a voxel in µm, as for `precomputed convert`.")
@click.option("--dtype", type=click.Choice(DATA_TYPES), help="What the voxels become, as for `precomputed convert`.")
@click.option("--jobs", type=int, help="Processes that the estimate is for  [default: the CPUs this process may use]")
@click.option("--json", "as_json", is_flag=True, help="Print everything as one JSON object.")
def inspect(source: tuple[str, ...], **values: Any) -> None:
    """Say what SOURCE was understood to be: axes, channels, voxel size, how planes are stored, what is missing.

    Only headers and a few chunks are read. Exits with 1 when a conversion would refuse the source.

    \b
    precomputed inspect planes/
    precomputed inspect raw/ --pattern 'img_{c}_t{t}_z{z}.tif' --expect z=1200,c=2
    """
    as_json = values.pop("as_json")
    chosen = taken_source_options(values)
    options = ConvertOptions(
        voxel_size=parse_edges(values["voxel_size"] or ",,"),
        dtype=values["dtype"],
        jobs=values["jobs"],
        source=chosen,
    )
    found = inspect_source(source, options)
    click.echo(json.dumps(found.to_json(), indent=2, ensure_ascii=False) if as_json else "\n".join(lines(found)))
    if found.problems:
        sys.exit(1)
