"""`precomputed verify`: are the chunks of a dataset as they were written?"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from converter.output.swap import TransformAnnotations
from converter.verification import Verification
from converter.verify import verify as verify_chunks
from precomputed_server.errors import InvalidInput, Unreadable

_SHOWN = 20


@click.command()
@click.argument("dataset", type=click.Path(path_type=Path))
@click.option(
    "--source", "against_source", is_flag=True, help="Derive every chunk again from the stack that it was made of."
)
@click.option(
    "--from",
    "sources",
    multiple=True,
    metavar="SOURCE",
    help="Where that stack is now, if it was moved; may be given several times.",
)
@click.option("--repair", is_flag=True, help="Write anew, from the stack, the chunks that are wrong, as they were.")
@click.option("--jobs", type=click.IntRange(min=1), help="Processes  [default: the CPUs this process may use]")
@click.option("--json", "as_json", is_flag=True, help="Print every problem as JSON.")
@click.pass_context
def verify(context: click.Context, /, dataset: Path, sources: tuple[str, ...], as_json: bool, **values: Any) -> None:
    """Check every chunk of DATASET against the sizes and checksums that its conversion kept.

    Chunks that are missing, truncated or altered are listed, and the exit code is 1 unless they were mended. Files of
    annotations are checked by `precomputed annotations verify`.

    \b
    precomputed verify /data/brain                        against the manifest
    precomputed verify /data/brain --source               against the stack
    precomputed verify /data/brain --repair               mend what is wrong, from the stack
    """
    if dataset.is_file():
        raise InvalidInput(f"{dataset} is a file; give the directory of the dataset: {dataset.absolute().parent}.")
    source = sources if values["against_source"] or sources else None
    transform: TransformAnnotations | None = context.obj  # from the program that knows annotations
    found = verify_chunks(dataset, source, values["jobs"], transform, repair=values["repair"])
    click.echo(_as_json(found) if as_json else _as_text(dataset, found))
    if not found.is_sound:
        raise Unreadable(found.remedy)


def _as_json(found: Verification) -> str:
    problems = [
        {
            **({"file": each.file} if each.file else {"scale": each.key, "chunk": each.chunk}),
            "what": each.what,
            "mended": each.mended,
        }
        for each in found.problems
    ]
    return json.dumps({"chunks": found.chunks, "problems": problems, "repaired": found.repaired}, indent=2)


def _as_text(dataset: Path, found: Verification) -> str:
    lines = [str(problem) for problem in found.problems[:_SHOWN]]
    if len(found.problems) > _SHOWN:
        lines.append(f"… and {len(found.problems) - _SHOWN} more; --json lists them all")
    if not found.problems:
        lines.append(f"{dataset}: all {found.chunks} chunks are as they were written")
    else:
        mended = sum(problem.mended for problem in found.problems)
        done = ", all mended" if found.repaired else f", {mended} of them mended" if mended else ""
        files = sum(bool(problem.file) for problem in found.problems)
        beside = f" and {files} other file{'s' if files > 1 else ''}" if files else ""
        lines.append(f"{dataset}: {len(found.problems) - files} of {found.chunks} chunks{beside} are wrong{done}")
    return "\n".join(lines)
