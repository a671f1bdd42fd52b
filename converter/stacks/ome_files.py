"""OME-TIFF: a file, or several that describe each other, as one acquisition."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from converter.stacks.acquisition import Acquisition
from converter.stacks.assembly import check_all_named, of_ome
from converter.stacks.metadata import Metadata
from converter.stacks.ome import Ome, OmePage, TiffData, ome_pages, parse_ome
from converter.stacks.place import Place
from converter.stacks.plane import Plane
from converter.stacks.planes import TiffContent, read_content
from converter.stacks.reading import Admit, admit_all, read_each
from precomputed_server.errors import SourceError


@dataclass(frozen=True)
class _FileSet:
    """The files that an OME-XML names: `path` is the one it was read from, `by_uuid` those that say who they are."""

    path: str
    ome: Ome
    by_uuid: dict[str, str]

    def path_of(self, data: TiffData | OmePage) -> str:
        """Where a file should be: itself under any name, else beside it by name, else wherever its identity is."""
        if not data.file_name or (data.uuid and data.uuid == self.ome.uuid):
            return self.path
        named = os.path.join(os.path.dirname(self.path), os.path.basename(data.file_name))
        return named if os.path.exists(named) else self.by_uuid.get(data.uuid, named)


def ome_acquisition(
    name: str, paths: Sequence[str], first: TiffContent, admit: Admit = admit_all
) -> Acquisition | None:
    """What the OME-XML of the first of `paths` describes; None when it is not about all of them.

    The other files of a set are found beside the first, whether they are among `paths` or not. Raises SourceError for
    a file among `paths` that a set does not name; what `admit` refuses is not opened.
    """
    whole = _whole(paths[0], first, admit)
    if whole is None:
        return None
    files, metadata = whole
    members = {files.path_of(data) for image in files.ome.images for data in image.tiff_data} or {paths[0]}
    strangers = [path for path in paths if path not in members]
    if strangers and members <= {paths[0]}:
        return None
    if strangers:
        files = replace(files, by_uuid=_identities(strangers, admit))
        members = {files.path_of(data) for image in files.ome.images for data in image.tiff_data}
        strangers = [path for path in paths if path not in members and path != files.path]
    if strangers:
        raise SourceError(f"{strangers[0]} is none of the files that {files.path} names; convert it by itself.")
    return _assembled(name, files, metadata, sorted(members), (paths[0], first), admit)


def _whole(path: str, content: TiffContent, admit: Admit) -> tuple[_FileSet, Metadata] | None:
    """The XML that describes the whole set, which may lie in another file than the first."""
    metadata = content.metadata
    if metadata.ome is None or (not metadata.ome.images and not metadata.ome.metadata_file):
        return None
    if metadata.ome.images:
        return _FileSet(path, metadata.ome, {}), metadata
    other = os.path.join(os.path.dirname(path), os.path.basename(metadata.ome.metadata_file))
    admit(other)
    if other.lower().endswith((".tif", ".tiff")):
        found = read_content(other).metadata
    else:
        found = replace(metadata, ome=_companion(other))
    if found.ome is None or not found.ome.images:
        raise SourceError(f"{path} leaves its metadata to {other}, which has none; copy that file too.")
    return _FileSet(other, found.ome, {}), found


def _companion(path: str) -> Ome | None:
    try:
        with open(path, encoding="utf-8") as file:
            return parse_ome(file.read())
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"{path}, which has the metadata, cannot be read; copy that file too.") from error


def _identities(paths: Sequence[str], admit: Admit) -> dict[str, str]:
    """The path of each file that has an identity; those that are unreadable have none."""
    contents = zip(paths, read_each(paths, admit=admit), strict=True)
    return {
        content.metadata.ome.uuid: path
        for path, content in contents
        if isinstance(content, TiffContent) and content.metadata.ome is not None
    }


def _assembled(
    name: str, files: _FileSet, metadata: Metadata, members: Sequence[str], known: tuple[str, TiffContent], admit: Admit
) -> Acquisition:
    present = [path for path in members if path != known[0] and os.path.exists(path)]
    read = dict(zip(present, read_each(present, with_metadata=False, admit=admit), strict=True))
    unreadable = tuple(content for content in read.values() if isinstance(content, str))
    contents = {path: content for path, content in read.items() if isinstance(content, TiffContent)}
    contents[known[0]] = known[1]
    samples = known[1].planes[0].file_samples
    placed = list(_placed(files, contents, samples))
    for path, content in contents.items():
        named = {plane.page for _, plane in placed if isinstance(plane, Plane) and plane.path == path}
        check_all_named(path, len(content.planes), len(named))
    return replace(of_ome(name, files.ome, placed, metadata), unreadable=unreadable)


def _placed(files: _FileSet, contents: dict[str, TiffContent], samples: int) -> Iterator[tuple[Place, Plane | str]]:
    pages = {path: {plane.page: plane for plane in content.planes} for path, content in contents.items()}

    def count(data: TiffData) -> int:
        return max(pages.get(files.path_of(data), {-1: None})) + 1

    for page in ome_pages(files.ome, samples, count):
        path = files.path_of(page)
        yield page.place, pages.get(path, {}).get(page.ifd, path)
