"""What the program finds of itself: Python, libraries, codecs, the viewer, and the variables that set it."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from precomputed_server.doctor.judgement.program import ProgramFacts, VariableFacts
from precomputed_server.errors import InvalidInput
from precomputed_server.settings import SETTINGS, TABLE
from precomputed_server.settings.sources import CONFIG_VARIABLE
from precomputed_server.viewer_files import client_directory

_LIBRARIES = (
    "aiohttp", "aiohttp_swagger3", "gunicorn", "jinja2", "numpy", "orjson", "sqlite_utils", "tifffile", "uvloop",
    "watchdog",
)  # fmt: skip
_PREFIX = "PRECOMPUTED_"
_LINKS = ("tcp://", "udp://", "sctp://")
_LINK_NAMES = ("_SERVICE_HOST", "_SERVICE_PORT", "_TCP", "_UDP", "_TCP_ADDR", "_TCP_PORT", "_TCP_PROTO")
_SAMPLE = bytes(range(256)) * 4


def look_at_program() -> ProgramFacts:
    """Load every codec and try it; libraries are only looked for."""
    version = sys.version_info[:3]
    missing = tuple(name for name in _LIBRARIES if not _is_there(name))
    return ProgramFacts(version, missing, {name: _tried(way) for name, way in _CODECS.items()}, _has_viewer())


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def _has_viewer() -> bool:
    return client_directory() is not None


def _tried(way: Callable[[], bool]) -> str:
    """Why a codec does not give back what was put into it, or ""."""
    try:
        return "" if way() else "what it decodes is wrong"
    except (ImportError, AttributeError, RuntimeError, OSError, ValueError) as error:
        return str(error) or type(error).__name__


def _of_imagecodecs(name: str, sample: Any = _SAMPLE) -> Callable[[], bool]:  # noqa: ANN401
    def way() -> bool:
        codecs = importlib.import_module("imagecodecs")
        encoded = getattr(codecs, f"{name}_encode")(sample)
        return bool(bytes(getattr(codecs, f"{name}_decode")(encoded)) == bytes(sample))

    return way


def _flat_picture(name: str) -> Callable[[], bool]:
    def way() -> bool:
        import numpy as np  # here: it may be what is missing

        return _of_imagecodecs(name, np.full((16, 16), 128, np.uint8))()

    return way


def _deflate() -> bool:
    isal = importlib.import_module("isal.isal_zlib")
    return bool(isal.decompress(isal.compress(_SAMPLE)) == _SAMPLE)


_CODECS: Mapping[str, Callable[[], bool]] = {
    "deflate": _deflate,
    "zstd": _of_imagecodecs("zstd"),
    "brotli": _of_imagecodecs("brotli"),
    "blosc": _of_imagecodecs("blosc"),
    "lz4": _of_imagecodecs("lz4"),
    "lzw": _of_imagecodecs("lzw"),
    "png": _flat_picture("png"),
    "jpeg": _flat_picture("jpeg8"),
}
"""What is tried of each codec; a flat picture is the same after JPEG."""


def look_at_variables(environ: Mapping[str, str]) -> VariableFacts:
    """Every variable that begins as those of our settings do; empty ones set nothing."""
    there = tuple(sorted(name for name, value in environ.items() if name.startswith(_PREFIX) and value))
    known = (*(name for setting in TABLE for name in setting.variables), CONFIG_VARIABLE)
    links = tuple(name for name in there if _is_link(name, environ[name], known))
    return VariableFacts(there, known, links, tuple(_wrong(environ, links)))


def without_wrong(environ: Mapping[str, str]) -> dict[str, str]:
    """The environment without values that no setting can have."""
    bad = {setting.variable for setting in SETTINGS if _refused(setting.variable, environ)}
    return {name: value for name, value in environ.items() if name not in bad}


def _is_link(name: str, value: str, known: tuple[str, ...]) -> bool:
    return value.startswith(_LINKS) or (name not in known and name.endswith(_LINK_NAMES))


def _wrong(environ: Mapping[str, str], links: tuple[str, ...]) -> Iterator[str]:
    for setting in SETTINGS:
        sentence = _refused(setting.variable, environ)
        if sentence and setting.variable not in links:
            yield sentence


def _refused(variable: str, environ: Mapping[str, str]) -> str:
    setting = next(each for each in SETTINGS if each.variable == variable)
    text = environ.get(variable)
    try:
        if text:
            setting.parsed(text, variable)
    except InvalidInput as error:
        return str(error)
    return ""
