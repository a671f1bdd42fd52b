"""All checks, one after the other: what one of them cannot look at does not keep the others from theirs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from precomputed_server import settings
from precomputed_server.doctor.judgement import datasets, host, program, proxy, storage
from precomputed_server.doctor.judgement.finding import FAIL, WARN, Finding
from precomputed_server.doctor.looking.host import look_at_files, look_at_port, look_at_watches, walk
from precomputed_server.doctor.looking.program import look_at_program, look_at_variables, without_wrong
from precomputed_server.doctor.looking.proxy import look_at_proxy
from precomputed_server.doctor.looking.state import existing, look_at_state
from precomputed_server.doctor.looking.storage import look_at_room, look_at_root, try_writing
from precomputed_server.listening import TcpAddress, addresses
from precomputed_server.local_state import place_of


def examine(root: Path | None, given: dict[str, Any], url: str | None, config: Path | None) -> Iterator[Finding]:
    """Every check in turn, of the server that `precomputed serve` would start; raises InvalidInput for a bad option."""
    environ = settings.environment()
    file = settings.file_in_force(config)
    chosen = settings.collect(root, given, without_wrong(environ), file).settings
    facts = look_at_program()
    yield from program.judge_program(facts)
    yield from program.judge_variables(look_at_variables(environ))
    yield host.judge_files(look_at_files(chosen))
    for address in addresses(chosen):
        if isinstance(address, TcpAddress):
            yield host.judge_port(look_at_port(address.host, address.port))
    yield from _state(chosen)
    yield from _root(chosen, can_decode=not facts.missing and not any(facts.codecs.values()))
    if url is not None:
        yield from proxy.judge_proxy(look_at_proxy(url, chosen.max_body))


def _state(chosen: settings.Settings) -> Iterator[Finding]:
    yield datasets.judge_state(look_at_state(chosen))
    yield from _room("the state directory", existing(place_of(chosen.state, chosen.root)))


def _root(chosen: settings.Settings, *, can_decode: bool) -> Iterator[Finding]:
    try:
        facts = look_at_root(chosen.root, single_host=chosen.single_host)
    except OSError as error:
        yield _silent("root", chosen.root, error)
        return
    yield from storage.judge_root(facts)
    if facts.place != "directory":
        return
    yield from _room("the root", chosen.root)
    if not facts.is_read_only:
        yield from storage.judge_trial(try_writing(chosen.root), str(chosen.root))
    if facts.is_readable:
        yield from _tree(chosen, facts, can_decode=can_decode)


def _tree(chosen: settings.Settings, facts: storage.RootFacts, *, can_decode: bool) -> Iterator[Finding]:
    """What lies beneath the root."""
    walked = walk(chosen.root)
    yield from storage.judge_links(walked.links)
    if not can_decode:
        yield Finding(WARN, "datasets", "Datasets were not looked at, for want of libraries. Install those first.")
        return
    from precomputed_server.doctor.looking.datasets import look_at_catalog, look_at_datasets  # here: they need codecs

    catalog = look_at_catalog(chosen)
    yield host.judge_watches(look_at_watches(chosen, walked, is_kept=catalog.is_kept))
    yield datasets.judge_catalog(catalog)
    found = look_at_datasets(chosen.root, facts.user, is_read_only=facts.is_read_only)
    yield from datasets.judge_datasets(found)


def _room(what: str, directory: Path) -> Iterator[Finding]:
    try:
        yield storage.judge_room(look_at_room(what, directory))
    except OSError as error:
        yield _silent(f"space of {what}", directory, error)


def _silent(name: str, directory: Path, error: OSError) -> Finding:
    sentence = f"{directory} does not answer: {error.strerror}. Mount it anew, and look at its disk or server."
    return Finding(FAIL, name, sentence)
