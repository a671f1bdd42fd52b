"""The options of the commands that read a source: what is taken of it and how it is seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from converter.stacks.source_options import SourceOptions, source_options
from converter.stacks.window import WINDOWED_TYPES

_TEXTS = ("pattern", "axes", "time", "position", "crop", "flip", "transpose", "window", "expect")

SOURCE_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    click.option("--pattern", metavar="NAME",
                 help="What file names say, such as 'img_{c}_t{t}_z{z}.tif'; letters c, z, t and p."),
    click.option("--axes", metavar="AXES", help="What the pages of a file are, slowest first: zc, or t,z=5,c=2."),
    click.option("--channel", multiple=True, metavar="NAME|INDEX",
                 help="Take this channel; may be repeated  [default: all]"),
    click.option("--time", metavar="NUMBER", help="Take this time point; indices count from 0."),
    click.option("--position", metavar="NAME|INDEX", help="Take this position (tile, scene, series)."),
    click.option("--crop", metavar="X0:X1,Y0:Y1,Z0:Z1",
                 help="Keep these voxels of the dataset, where they are: 100:900,,5: leaves y and the end of z open."),
    click.option("--flip", metavar="AXES", help="Turn axes of the dataset round: z, or several such as xy."),
    click.option("--transpose", metavar="PERMUTATION", help="Put axes in another order: yxz makes x of the old y."),
    click.option("--window", metavar="LO,HI",
                 help=f"With --dtype {' or '.join(WINDOWED_TYPES)}: LO becomes 0, HI the largest value, linearly."),
    click.option("--expect", metavar="z=N,c=N,…", help="Refuse a source of which not everything is there."),
)  # fmt: skip


def with_source_options(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options of SOURCE_OPTIONS to a command."""
    for option in reversed(SOURCE_OPTIONS):
        command = option(command)
    return command


def taken_source_options(values: dict[str, Any]) -> SourceOptions:
    """Take what SOURCE_OPTIONS gave out of a command's values; raises InvalidInput naming the option."""
    channel = values.pop("channel", ())
    return source_options(channel=channel, **{name: values.pop(name, None) for name in _TEXTS})
