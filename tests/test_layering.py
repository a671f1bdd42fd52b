"""The directions of imports, and the shape of the packages, as tables that the code is held against."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY

PACKAGES = ("precomputed_server", "converter", "annotation_store")
LONGEST_MODULE = 320
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common"}

MODULES = {
    # A module belongs to the longest of these names that begins its own.
    "precomputed_server": "root",
    "precomputed_server.errors": "errors",
    "precomputed_server.files": "foundation",
    "precomputed_server.writing": "foundation",
    "precomputed_server.mounts": "foundation",
    "precomputed_server.local_state": "foundation",
    "precomputed_server.recent": "foundation",
    "precomputed_server.saved_states": "foundation",
    "precomputed_server.settings": "foundation",
    "precomputed_server.setting_options": "foundation",
    "precomputed_server.viewer_files": "foundation",
    "precomputed_server.sizes": "foundation",
    "precomputed_server.listening": "foundation",
    "precomputed_server.limits": "foundation",
    "precomputed_server.interrupt": "foundation",
    "precomputed_server.forking": "foundation",
    "precomputed_server.format": "format",
    "precomputed_server.readers": "readers",
    "precomputed_server.catalog": "catalog",
    "precomputed_server.web": "web",
    "precomputed_server.web.app": "assembly",
    "precomputed_server.web.gunicorn": "pool",
    "precomputed_server.phantom": "phantom",
    "precomputed_server.demo": "assembly",
    "precomputed_server.selftest": "selftest",
    "precomputed_server.doctor": "doctor",
    "precomputed_server.doctor.judgement": "judgement",
    "precomputed_server.cli": "assembly",
    "precomputed_server.entry": "assembly",
    "precomputed_server.cli_describe": "assembly",
    "precomputed_server.cli_catalog": "assembly",
    "precomputed_server.cli_config": "assembly",
    "precomputed_server.catalog_keeper": "assembly",
    "precomputed_server.cli_link": "assembly",
    "precomputed_server.stack_keeper": "assembly",
    "converter": "converter",
    "annotation_store": "annotations",
    "annotation_store.web": "annotations on the web",
}

_DATA = {"errors", "foundation", "format"}
_SERVING = _DATA | {"readers", "catalog", "web"}
MAY_IMPORT = {
    # Besides itself. Only the assembly knows both the server and what is mounted into it.
    "root": set(),
    "errors": set(),
    "foundation": {"errors"},
    "format": {"errors"},
    "readers": _DATA,
    "catalog": _DATA | {"readers"},
    "web": _SERVING,
    "phantom": set(),
    "converter": _DATA | {"readers"},
    "selftest": _DATA,  # from outside: nothing of the store
    "judgement": set(),
    "doctor": _DATA | {"readers", "catalog", "judgement"},  # from outside: it may be the server that is broken
    "annotations": _DATA,
    "annotations on the web": _SERVING | {"annotations"},
    "pool": _DATA | {"assembly", "annotations on the web", "catalog"},
    "assembly": _SERVING | {"phantom", "converter", "annotations", "annotations on the web", "pool", "selftest"},
}

PURE = {"format", "phantom", "judgement"}
"""Standard library, numpy and this project only."""

WEB_LAYERS = {"web", "annotations on the web"}
WEB_ONLY = {"aiohttp", "asyncio"}
ONE_MODULE_PER_PACKAGE = {"tifffile", "watchdog", "dask", "distributed", "sqlite_utils", "tensorstore"}
ENVIRONMENT = {"environ", "environb", "getenv", "getenvb", "putenv"}
ENVIRONMENT_READER = "precomputed_server.settings"


@dataclass(frozen=True)
class Module:
    """One source file: its dotted name and what it holds."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def layer(self) -> str:
        """The layer of the longest name in MODULES that begins this module's; empty when there is none."""
        parts = self.name.split(".")
        names = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
        layer = next((MODULES[name] for name in names if name in MODULES), "")
        return "" if layer == "root" and self.name not in PACKAGES else layer

    @property
    def is_web(self) -> bool:
        """Whether it may import aiohttp: precomputed_server/web and annotation_store/web."""
        return self.layer in WEB_LAYERS or self.name.startswith("precomputed_server.web.")


def modules_of(root: Path) -> dict[str, Module]:
    """Every module of the three packages beneath `root`, by its dotted name."""
    modules = {}
    for package in PACKAGES:
        for path in sorted((root / package).rglob("*.py")):
            parts = path.relative_to(root).with_suffix("").parts
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            modules[name] = Module(name, path, ast.parse(path.read_text(), str(path)))
    return modules


def imports_of(module: Module, modules: dict[str, Module]) -> set[str]:
    """The full names of what a module imports anywhere in it; `from package import module` names the module."""
    names = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            above = ".".join(module.name.split(".")[: -node.level or None])
            origin = ".".join(part for part in (above if node.level else "", node.module) if part)
            below = {f"{origin}.{alias.name}" for alias in node.names}
            names |= {name if name in modules else origin for name in below}
    return names


def wrong_directions(modules: dict[str, Module]) -> Iterator[str]:
    """Imports between our own modules that MAY_IMPORT does not name, and modules without a layer."""
    for module in modules.values():
        if not module.layer:
            yield f"{module.name} has no layer: give it one in MODULES"
            continue
        for name in sorted(imports_of(module, modules) & modules.keys()):
            layer = modules[name].layer
            if layer not in MAY_IMPORT[module.layer] | {module.layer, "root", ""}:
                yield f"{module.name} ({module.layer}) imports {name} ({layer})"


def wrong_libraries(modules: dict[str, Module]) -> Iterator[str]:
    """Libraries in modules that have no business with them."""
    importers: dict[tuple[str, str], list[str]] = {}
    for module in modules.values():
        libraries = {name.partition(".")[0] for name in imports_of(module, modules)} - set(PACKAGES)
        if not module.is_web:
            yield from (f"{module.name} imports {name}, which only web modules may" for name in libraries & WEB_ONLY)
        if module.layer in PURE:
            foreign = libraries - sys.stdlib_module_names - {"numpy"}
            yield from (f"{module.name} imports {name}, but {module.layer} is pure" for name in foreign)
        for library in libraries & ONE_MODULE_PER_PACKAGE:
            importers.setdefault((library, module.name.partition(".")[0]), []).append(module.name)
    for (library, _package), names in importers.items():
        if len(names) > 1:
            yield f"{library} is imported by {', '.join(names)}: let one of them wrap it"


def environment_readers(modules: dict[str, Module]) -> Iterator[str]:
    """Modules that read the environment and are not the settings."""
    for module in modules.values():
        attributes = {
            node.attr
            for node in ast.walk(module.tree)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "os"
        }
        froms = (node for node in ast.walk(module.tree) if isinstance(node, ast.ImportFrom) and node.module == "os")
        attributes |= {alias.name for node in froms for alias in node.names}
        if attributes & ENVIRONMENT and module.name != ENVIRONMENT_READER:
            yield f"{module.name} reads the environment; let {ENVIRONMENT_READER} do it"


def wrong_shapes(modules: dict[str, Module]) -> Iterator[str]:
    """Modules that are too long, or named after nothing, and packages that do not say what they are."""
    for module in modules.values():
        lines = len(module.path.read_text().splitlines())
        if lines > LONGEST_MODULE:
            yield f"{module.name} has {lines} lines; split it"
        if FORBIDDEN_NAMES & set(module.name.split(".")):
            yield f"{module.name} is named after nothing; name it after what it is about"
        package = module.path.parent / "__init__.py"
        if not package.exists():
            yield f"{module.path.parent.name} has no __init__.py"
        elif module.path == package and not ast.get_docstring(module.tree):
            yield f"{module.name}/__init__.py has no docstring"


Rule = Callable[[dict[str, Module]], Iterator[str]]
RULES: tuple[Rule, ...] = (wrong_directions, wrong_libraries, environment_readers, wrong_shapes)


@pytest.mark.parametrize("rule", RULES)
def test_the_code_keeps_the_rules(rule: Rule) -> None:
    assert list(rule(modules_of(REPOSITORY))) == []


def test_no_module_imports_another_in_a_circle() -> None:
    modules = modules_of(REPOSITORY)
    waiting = {name: (imports_of(module, modules) & modules.keys()) - {name} for name, module in modules.items()}
    while free := [name for name, needs in waiting.items() if not needs & waiting.keys()]:
        for name in free:
            del waiting[name]
    assert waiting == {}, "each of these waits for another one"


VIOLATIONS = [
    ("precomputed_server/files.py", "from .format import info", wrong_directions),
    ("precomputed_server/files.py", "from .format.info import VolumeInfo", wrong_directions),
    ("precomputed_server/files.py", "from precomputed_server.format.info import VolumeInfo", wrong_directions),
    ("precomputed_server/format/grid.py", "from precomputed_server import files", wrong_directions),
    ("precomputed_server/readers/raw.py", "def f():\n    import precomputed_server.web", wrong_directions),
    ("precomputed_server/web/tiles.py", "from annotation_store import store", wrong_directions),
    ("converter/pyramid/plan.py", "from annotation_store.model import Item", wrong_directions),
    ("converter/pyramid/plan.py", "from precomputed_server import web", wrong_directions),
    ("annotation_store/store.py", "from precomputed_server.readers import raw", wrong_directions),
    ("precomputed_server/novelty.py", "", wrong_directions),
    ("annotation_store/store.py", "import asyncio", wrong_libraries),
    ("precomputed_server/cli.py", "from aiohttp import web", wrong_libraries),
    ("precomputed_server/format/grid.py", "import orjson", wrong_libraries),
    ("converter/pyramid/plan.py", "import tifffile", wrong_libraries),
    ("converter/pyramid/plan.py", "import os\nos.environ['CI']", environment_readers),
    ("converter/pyramid/plan.py", "from os import getenv", environment_readers),
    ("converter/pyramid/plan.py", "\n" * 321, wrong_shapes),
    ("converter/utils.py", "", wrong_shapes),
    ("converter/parts/plan.py", "", wrong_shapes),
    ("converter/parts/__init__.py", "", wrong_shapes),
]


@pytest.mark.parametrize(("path", "source", "rule"), VIOLATIONS)
def test_a_violation_is_seen(tmp_path: Path, path: str, source: str, rule: Rule) -> None:
    skeleton = {
        **{f"{package}/__init__.py": '"""A package."""' for package in PACKAGES},
        **{f"precomputed_server/{name}/__init__.py": '"""A package."""' for name in ("format", "readers", "web")},
        "annotation_store/web/__init__.py": '"""A package."""',
        "precomputed_server/files.py": "import os",
        "precomputed_server/format/info.py": "import numpy",
        "precomputed_server/readers/raw.py": "from precomputed_server.format.info import VolumeInfo",
        "precomputed_server/web/tiles.py": "import aiohttp",
        "precomputed_server/web/app.py": "import aiohttp\n"
        "from annotation_store import store\nfrom annotation_store.web import sessions",
        "annotation_store/model.py": "",
        "annotation_store/store.py": "from precomputed_server.files import Tree",
        "annotation_store/web/sessions.py": "import aiohttp\nfrom precomputed_server.web import tiles",
        "converter/source.py": "import tifffile",
    }
    for name, content in skeleton.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert [found for each in RULES for found in each(modules_of(tmp_path))] == []
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / path).write_text(source)
    assert list(rule(modules_of(tmp_path))) != []
