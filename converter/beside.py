"""The files that a conversion writes beside the chunks: are they there as they were, and which can be made again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from converter.output.corrections import recorded_channels
from converter.output.destination import read_json
from converter.output.recorded import Recorded
from converter.pyramid.results import Found, shown_channels
from converter.pyramid.target import stamp
from converter.verification import ALTERED, MISSING, Problem
from converter.writers.ome import image_name
from precomputed_server.errors import Unreadable
from precomputed_server.format.names import CLOUD_VOLUME_PROVENANCE, PROVENANCE, RECORD, STATISTICS
from precomputed_server.writing import replace_file

_CHANNELS = "omero"
"""The member of OME-Zarr that says how channels are shown."""


@dataclass(frozen=True)
class WrongFile:
    """A file that is missing or altered; `text` is what it is to say, None where that is not known from here."""

    name: str
    what: str
    text: str | None = None

    def problem(self, *, mended: bool = False) -> Problem:
        """What is told of it."""
        lost = self.name in (PROVENANCE, CLOUD_VOLUME_PROVENANCE)
        return Problem("", "", self.what, mended, file=self.name, lost=lost)


def wrong_files(dataset: Recorded) -> tuple[WrongFile, ...]:
    """The files beside the chunks that are not as they should be."""
    found = [*_of_format(dataset), *_of_conversion(dataset)]
    return tuple(sorted(found, key=lambda file: file.name))


def mend_statistics(dataset: Recorded, found: Found) -> bool:
    """Write `statistics.json` if the text comes out that the conversion wrote."""
    text = found.statistics_text.encode()
    if list(stamp((text,))) != _stamps(dataset).get(STATISTICS):
        return False
    replace_file(dataset.destination.path / STATISTICS, text)
    return True


def mend_file(dataset: Recorded, file: WrongFile) -> bool:
    """Write a file of which it is known what it is to say; whether it is."""
    if file.text is None:
        return False
    path = dataset.destination.path / file.name
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, file.text.encode())
    return True


def _of_format(dataset: Recorded) -> Iterator[WrongFile]:
    """Those that the format has: they follow from `info`, the record and the statistics."""
    path = dataset.destination.path
    for scale in dataset.scales:
        for name, content in dataset.writer.scale_files(dataset.info, scale).items():
            yield from _compared(path, f"{scale.key}/{name}", content.decode())
    shown, title = _shown(dataset), _title(path)
    for name, text in dataset.writer.dataset_files(dataset.info, title, shown or ()).items():
        if shown is not None or _CHANNELS not in json.loads(text):
            yield from _compared(path, name, text)
        elif not (path / name).exists():
            yield WrongFile(name, MISSING)
        elif _without_channels(_members(path / name)) != _without_channels(json.loads(text)):
            yield WrongFile(name, ALTERED)


def _compared(path: Path, name: str, text: str) -> Iterator[WrongFile]:
    if not (path / name).exists():
        yield WrongFile(name, MISSING, text)
    elif _members(path / name) != json.loads(text):
        yield WrongFile(name, ALTERED, text)


def _of_conversion(dataset: Recorded) -> Iterator[WrongFile]:
    """Those of every conversion; cloud-volume lets people edit its own."""
    stamps = _stamps(dataset)
    for name in (STATISTICS, PROVENANCE, CLOUD_VOLUME_PROVENANCE):
        path = dataset.destination.path / name
        if not path.exists():
            yield WrongFile(name, MISSING)
        elif list(stamp((path.read_bytes(),))) != stamps[name] if name in stamps else _members(path) is None:
            yield WrongFile(name, ALTERED)


def _stamps(dataset: Recorded) -> Mapping[str, Any]:
    stamps: Mapping[str, Any] = dataset.record.get("checksums", {})
    return stamps


def _shown(dataset: Recorded) -> list[Any] | None:
    """How channels are shown; None where the statistics or the record are not there."""
    with suppress(Unreadable):
        statistics, record = (read_json(dataset.destination.path / name) for name in (STATISTICS, RECORD))
        if statistics is not None and record is not None:
            return shown_channels(statistics.get("channels", ()), recorded_channels(record))
    return None


def _title(path: Path) -> str:
    """What the dataset is called in the files of its format: its directory may have been renamed since."""
    return image_name(_members(path / ".zattrs")) or path.resolve().name


def _without_channels(members: Any) -> Any:  # noqa: ANN401
    return {name: value for name, value in members.items() if name != _CHANNELS} if isinstance(members, dict) else None


def _members(path: Path) -> Any:  # noqa: ANN401
    """What a file of JSON says; None where it is none."""
    with suppress(OSError, ValueError, RecursionError):
        return json.loads(path.read_bytes())
    return None
