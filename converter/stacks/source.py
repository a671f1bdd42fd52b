"""The source of a conversion: its files in natural order, put together, and the stack that is chosen of them."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace

from converter.stacks.acquisition import Acquisition
from converter.stacks.acquisition import Stack as Stack
from converter.stacks.assembly import SourceFile, assembled
from converter.stacks.expectation import check_expected, remarks
from converter.stacks.gaps import with_gaps
from converter.stacks.ome_files import ome_acquisition
from converter.stacks.pattern import labels_of_files
from converter.stacks.place import natural_key
from converter.stacks.planes import TiffContent, read_content
from converter.stacks.presence import check_there, nothing_found
from converter.stacks.reading import Admit, admit_all, read_each
from converter.stacks.source_options import SourceOptions
from precomputed_server.errors import InvalidInput, SourceError

_TIFF_SUFFIXES = (".tif", ".tiff")


def read_stack(
    source: Sequence[str] | str,
    options: SourceOptions | None = None,
    *,
    tolerant: bool = False,
    admit: Admit = admit_all,
) -> Stack:
    """Find the files of `source`, choose what `options` says, and check that all planes fit together.

    Raises InvalidInput when no file matches or a choice is needed, SourceError naming the first file that is
    unreadable, different, missing or there twice. A `tolerant` caller gets planes that are missing or lie in unreadable
    files in their places; reading them raises SourceError. A file that `admit` refuses is unreadable.
    """
    chosen = options or SourceOptions()
    acquisition = read_acquisition(source, chosen, admit)
    check_expected(acquisition, chosen.expected)
    stack = (with_gaps(acquisition) if tolerant else acquisition).select(chosen.choice, tolerant=tolerant)
    return replace(stack, remarks=(*acquisition.metadata.remarks, *remarks(acquisition)))


def read_acquisition(source: Sequence[str] | str, options: SourceOptions, admit: Admit = admit_all) -> Acquisition:
    """Everything that the files of `source` hold, with what is wrong with them.

    Raises InvalidInput when no file matches, SourceError when no file is readable or pages cannot be placed.
    """
    sources = [source] if isinstance(source, str) else list(source)
    pattern, axes = options.pattern, options.axes
    paths = find_files(sources, pattern.depth if pattern else 0)
    name = sources[0] if len(sources) == 1 else f"{sources[0]} …"
    if pattern is None and axes is None:
        of_ome = _described_by_ome(name, paths, admit)
        if of_ome is not None:
            return of_ome
    labels = labels_of_files(pattern, paths) if pattern else [{}] * len(paths)
    contents = read_each(paths, admit=admit)
    unreadable = tuple(content for content in contents if isinstance(content, str))
    example = next((content for content in contents if isinstance(content, TiffContent)), None)
    if example is None:
        raise SourceError(unreadable[0])
    files = [
        SourceFile(path, example, said, content) if isinstance(content, str) else SourceFile(path, content, said)
        for path, content, said in zip(paths, contents, labels, strict=True)
    ]
    return replace(assembled(name, files, pattern.axes if pattern else (), axes), unreadable=unreadable)


def _described_by_ome(name: str, paths: Sequence[str], admit: Admit) -> Acquisition | None:
    try:
        admit(paths[0])
        first = read_content(paths[0])
    except SourceError:
        return None  # it is named with the others
    return ome_acquisition(name, paths, first, admit)


def find_files(sources: Sequence[str], depth: int = 0) -> list[str]:
    """The TIFF files of directories, globs and paths in natural order: `img_2` before `img_10`.

    `depth` is how many directories below a directory that is given its files lie.
    Raises InvalidInput when one of the sources matches nothing.
    """
    found: dict[str, None] = {}
    check_there(sources)
    for source in sources:
        matches = list(_matches(source, depth))
        if not matches:
            raise InvalidInput(nothing_found(source))
        found.update(dict.fromkeys(matches))
    if not found:
        raise InvalidInput("No source was given; give a directory of planes, a quoted glob or a multi-page TIFF.")
    return sorted(found, key=natural_key)


def _matches(source: str, depth: int) -> Iterator[str]:
    if os.path.isdir(source):
        below = glob.iglob(os.path.join(glob.escape(source), *["*"] * (depth + 1)))  # without hidden names
        return (path for path in below if path.lower().endswith(_TIFF_SUFFIXES) and _is_file(path))
    paths = [source] if os.path.exists(source) else glob.glob(source, recursive=True)
    return (path for path in paths if _is_file(path))


def _is_file(path: str) -> bool:
    """Whether a plane lies there, or should: a link that leads nowhere must not close up the stack."""
    return os.path.isfile(path) or (os.path.islink(path) and not os.path.exists(path))
