"""The commands `precomputed` and `precomputed-tif`: they parse, call one function and give an exit code.

0: done. 1: what was asked for could not be done. 2: the command itself was wrong. 130: it was stopped by Ctrl-C. 143: a
conversion was stopped by SIGTERM.
"""

from __future__ import annotations

import importlib
import os
import sys
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING, Any

import click

from precomputed_server import __version__, listening, settings
from precomputed_server.errors import DestinationExists, InvalidInput, PrecomputedError
from precomputed_server.interrupt import EXIT_CODE, end_tidily, loading
from precomputed_server.limits import usable_cpus
from precomputed_server.setting_options import setting_options

if TYPE_CHECKING:
    from precomputed_server.format.info import VolumeInfo

_DONE_WRONG, _ASKED_WRONG = 1, 2

_ELSEWHERE = {
    "annotations": "annotation_store.cli:annotation_commands",
    "config": "precomputed_server.cli_config:config_command",
    "convert": "converter.cli:convert",
    "datasets": "precomputed_server.cli_catalog:datasets",
    "doctor": "precomputed_server.doctor.cli:doctor",
    "describe": "precomputed_server.cli_describe:describe_command",
    "index": "precomputed_server.cli_catalog:index",
    "link": "precomputed_server.cli_link:link",
    "inspect": "converter.cli_inspect:inspect",
    "verify": "converter.cli_verify:verify",
    "selftest": "precomputed_server.selftest.cli:selftest",
}
"""Commands by the module that has them, imported when they are called: each starts as fast as its own package."""


_WITH_WORKERS = {"convert"}
"""Commands with worker processes: another process loads what these need while this one loads the command."""


class _Commands(click.Group):
    """The commands of this module and those of `_ELSEWHERE`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """As click does, with its workers begun beside it when the command will have any."""
        if args[0] in _WITH_WORKERS and len(args) > 2 and usable_cpus() > 1:  # fewer arguments only ask for help
            from precomputed_server.forking import begin_forking  # here: no other command needs it

            begin_forking()
        return super().resolve_command(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order of the alphabet."""
        return sorted({*super().list_commands(ctx), *_ELSEWHERE})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of that name, or None."""
        if cmd_name not in _ELSEWHERE:
            return super().get_command(ctx, cmd_name)
        module, _, attribute = _ELSEWHERE[cmd_name].partition(":")
        with loading():
            command: click.Command = getattr(importlib.import_module(module), attribute)
        return command


@click.group(
    "precomputed",
    cls=_Commands,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="precomputed")
@click.pass_context
def main(context: click.Context) -> None:
    """Look at whole-brain TIFF stacks in a browser and annotate them.

    \b
    precomputed demo                          a made-up dataset, served on this machine
    precomputed inspect planes/               what a TIFF stack was understood to be
    precomputed convert planes/ /data/brain   a TIFF stack becomes a dataset
    precomputed describe /data/brain          correct its voxel size, names and colours
    precomputed serve /data                   every dataset beneath /data, for Neuroglancer and NeuroTrALE
    precomputed doctor /data                  what keeps a server from working, and what to do
    precomputed annotations history /data/brain     who changed which annotation and when
    """
    context.obj = _transform_annotations
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


def _transform_annotations(dataset: Path, old: VolumeInfo, new: VolumeInfo, operation: str) -> None:
    """Move a dataset's annotations to the voxels of a new conversion."""
    from annotation_store.transform import transform_annotations

    transform_annotations(dataset, old, new, operation)


@main.command()
@click.argument("root", required=False, type=click.Path(path_type=Path))
@setting_options()
def serve(root: Path | None, config: Path | None, **given: Any) -> None:
    """Serve every dataset beneath the directory ROOT.

    Each option can also be given by the environment variable named with it, or by a file of settings; the option wins
    over the variable, and that over the file. Without ROOT it is `root` of those, else /data. `precomputed config`
    prints what is in force.
    """
    _serve(_begin(root, given, config))


@main.command(name="demo", short_help="Convert a made-up or your own stack and serve it here.")
@click.option("--source", help="Your own TIFF stack: a directory, glob or multi-page TIFF  [default: made-up tissue]")
@click.option("--voxel-size", metavar="X,Y,Z", help="Edges of its voxels in µm, where the TIFF does not tell them.")
@click.option("--directory", type=click.Path(path_type=Path), default="demo", show_default=True, help="Where to write.")
@setting_options("port")
def run_demo(
    source: str | None, voxel_size: str | None, directory: Path, config: Path | None, port: int | None
) -> None:
    """Convert a stack, with annotations if it is made up, and serve it on 127.0.0.1 of this machine."""
    from precomputed_server import demo

    if voxel_size is not None and source is None:
        raise InvalidInput("--voxel-size is that of your own stack; name it with --source.")
    data = directory.absolute() / "data"
    begun = _begin(data, {"host": "127.0.0.1", "port": port, "bind": ""}, config)  # listening comes before long work
    if source is None:
        dataset = demo.made_up(directory.absolute(), data, click.echo)
    else:
        dataset = demo.of_stack(source, voxel_size, data, click.echo)
    _serve(begun, dataset)


Begun = tuple[settings.Settings, list[socket]]


def _begin(root: Path | None, given: dict[str, Any], config: Path | None) -> Begun:
    """Find the settings, begin the log, and take the addresses to serve on."""
    from precomputed_server.web import gunicorn  # here: converting needs no server and starts faster without

    collected = settings.collect(root, given, config=config)
    gunicorn.log_to(collected.settings.log_file)
    collected.warn()
    return collected.settings, listening.listen(collected.settings)


def _serve(begun: Begun, dataset: str | None = None) -> None:
    from precomputed_server import demo
    from precomputed_server.web import gunicorn

    chosen, listeners = begun
    places = listening.told(chosen, listeners)

    def ready() -> None:
        click.echo(f"Serving {chosen.root} with {chosen.workers} worker{'s' if chosen.workers > 1 else ''}:")
        for place in places:
            click.echo(f"  {place}")
        if dataset is not None:
            click.echo(demo.links(places[0], chosen.root, dataset))
        if os.geteuid() != 0:
            click.echo("Annotation files of other users become yours when they are edited: only root keeps owners.")
        click.echo("Stop it with Ctrl-C.")
        sys.stdout.flush()

    try:
        gunicorn.serve(chosen, listeners, ready)
    except InvalidInput:
        for listener in listeners:
            listening.give_back(listener)
        raise


def run() -> None:
    """The program `precomputed`."""
    settings.without_idle_threads()
    _run(main)


def run_precomputed_tif() -> None:
    """The program `precomputed-tif`."""
    settings.without_idle_threads()
    with loading():
        from converter.cli import precomputed_tif

    _run(precomputed_tif)


def _run(command: click.Command) -> None:
    try:
        end_tidily()
        sys.exit(command.main(standalone_mode=False))
    except (click.Abort, KeyboardInterrupt):
        click.echo("Stopped.", err=True)
        sys.exit(EXIT_CODE)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        where = f" See `{context.command_path} --help`." if context else ""
        click.echo(f"Error: {error.format_message()}{where}", err=True)
        sys.exit(error.exit_code)
    except PrecomputedError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(_ASKED_WRONG if isinstance(error, (InvalidInput, DestinationExists)) else _DONE_WRONG)
    except OSError as error:
        click.echo(f"Error: {error.filename or 'input or output'}: {error.strerror or error}.", err=True)
        sys.exit(_DONE_WRONG)
