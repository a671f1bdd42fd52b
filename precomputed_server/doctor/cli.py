"""The command `precomputed doctor`: it prints what was found, and gives an exit code."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from precomputed_server.doctor.examination import examine
from precomputed_server.doctor.judgement.finding import FAIL
from precomputed_server.setting_options import setting_options


@click.command("doctor", short_help="Look for what keeps a server from working, and say what to do.")
@click.argument("root", required=False, type=click.Path(path_type=Path, readable=False))
@click.option("--url", metavar="URL", help="Ask a running server too, at the address by which people reach it.")
@click.option("--json", "as_json", is_flag=True, help="Print what was found as JSON.")
@setting_options()
@click.pass_context
def doctor(
    context: click.Context, /, root: Path | None, config: Path | None, url: str | None, as_json: bool, **given: Any
) -> None:
    """Check what `precomputed serve ROOT`, with the same options, needs: a line each, with the remedy.

    Nothing is changed. The exit code is 1 when a check failed.
    """
    findings = []
    for finding in examine(root, given, url, config):
        findings.append(finding)
        if not as_json:
            click.echo(finding.line)
    if as_json:
        click.echo(json.dumps({"format": 1, "findings": [each.to_json() for each in findings]}, indent=2))
    context.exit(1 if any(each.level == FAIL for each in findings) else 0)
