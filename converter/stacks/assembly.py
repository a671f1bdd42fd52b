"""Putting the pages of files together: each page gets its place from its file's name, its metadata and its order."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from converter.stacks.acquisition import FILE_NAME, FILE_ORDER, Acquisition
from converter.stacks.axes import Axes, Pages, page_places
from converter.stacks.channels import Channel, imagej_colors, named_channels, rgb_channels
from converter.stacks.metadata import Metadata
from converter.stacks.ome import Ome, OmePixels, ome_pages, page_counts
from converter.stacks.place import Axis, Label, Place, label_key
from converter.stacks.plane import Plane
from converter.stacks.planes import TiffContent
from precomputed_server.errors import SourceError

Double = tuple[Label, int]
"""What a file's name and the page in it say along an axis."""


@dataclass(frozen=True)
class SourceFile:
    """A file of a source: its content, and what its name says, by axis letter.

    A file that is `unreadable`, for the reason given, is taken to hold what another one holds.
    """

    path: str
    content: TiffContent
    labels: Mapping[str, Label]
    unreadable: str = ""


@dataclass(frozen=True)
class _Entry:
    plane: Plane
    p: Double
    t: Double
    c: Double
    z: Double


def assembled(name: str, files: Sequence[SourceFile], named: Sequence[str], given: Axes | None) -> Acquisition:
    """The acquisition that files make, each by itself or one z, one channel, … of the whole.

    `named` are the axes that file names tell; without any, the order of the files is z. `given` replaces what the
    files say about their pages. Raises SourceError naming the file whose pages cannot be placed.
    """
    entries: list[_Entry] = []
    origins: dict[str, str] = {}
    for number, file in enumerate(map(_stood_in, files)):
        pages = _pages(file, given)
        origins = origins or {letter.lower(): pages.axes.origin for letter, _ in pages.axes.dimensions}
        entries += _entries(file, pages, named, number)
    axes = {axis: _axis(axis, entries, named, origins, len(files)) for axis in "ptcz"}
    at = {axis: {key: index for index, key in enumerate(_keys(axis, entries))} for axis in "ptcz"}
    planes: dict[Place, Plane] = {}
    duplicates: dict[Place, tuple[Plane, ...]] = {}
    for entry in entries:
        place = Place(at["p"][entry.p], at["t"][entry.t], at["c"][entry.c], at["z"][entry.z])
        if place in planes:
            duplicates[place] = (*duplicates.get(place, (planes[place],)), entry.plane)
        planes.setdefault(place, entry.plane)
    lengths = Place(1, len(at["t"]), len(at["c"]), len(at["z"]))
    first = files[0].content
    samples = first.planes[0].file_samples
    inside = inner_channels(first.metadata, samples, len({entry.c[1] for entry in entries}))
    channels = named_channels(list(at["c"]), inside, samples)
    return Acquisition(name, planes, axes, (lengths,) * len(at["p"]), samples, channels, first.metadata, duplicates)


def of_ome(name: str, ome: Ome, placed: Iterable[tuple[Place, Plane | str]], metadata: Metadata) -> Acquisition:
    """The acquisition that an OME-XML describes; of a plane that is not there `placed` has the file it should be in."""
    planes: dict[Place, Plane] = {}
    elsewhere: dict[Place, str] = {}
    duplicates: dict[Place, tuple[Plane, ...]] = {}
    for place, found in placed:
        if isinstance(found, str):
            elsewhere[place] = found
        elif place in planes:
            duplicates[place] = (*duplicates.get(place, (planes[place],)), found)
        else:
            planes[place] = found
    if not planes:
        raise SourceError(f"{name} has OME metadata, but none of the planes that it names; copy its files together.")
    samples = next(iter(planes.values())).file_samples
    counts = page_counts(ome, samples)
    lengths = tuple(Place(1, count["T"], count["C"], count["Z"]) for count in counts)
    titles: list[Label] = [image.name for image in ome.images]
    unique = all(titles) and len(set(titles)) == len(titles)
    axes = {
        "p": Axis(tuple(titles) if unique else tuple(range(len(titles))), "OME"),
        **{axis: Axis(tuple(range(max(getattr(each, axis) for each in lengths))), "OME") for axis in "tcz"},
    }
    channels = tuple(inner_channels(metadata, samples, len(axes["c"].labels), ome.images[0]))
    return Acquisition(name, planes, axes, lengths, samples, channels, metadata, duplicates, elsewhere)


def inner_channels(metadata: Metadata, samples: int, pages: int, image: OmePixels | None = None) -> list[Channel]:
    """The channels that one file holds, as its metadata describes them."""
    count = samples * pages
    if image is None and metadata.ome is not None and metadata.ome.images:
        image = metadata.ome.images[0]
    known = list(image.channels) if image is not None else []
    if len(known) == count:
        return known
    if metadata.rgb and count == 3 and not metadata.imagej:
        return rgb_channels()
    colors = imagej_colors(metadata.imagej)
    return [Channel(color=colors[index] if len(colors) == count else None) for index in range(count)]


def _pages(file: SourceFile, given: Axes | None) -> Pages:
    content, path = file.content, file.path
    samples = content.planes[0].file_samples
    ome = content.metadata.ome
    if given is not None or ome is None or not ome.images or len(ome.others) > 1:
        # the metadata of a set is about other files too; what their names say was preferred
        return page_places(content.metadata, len(content.planes), samples, path, given)
    numbers = {plane.page: index for index, plane in enumerate(content.planes)}
    places: list[Place | None] = [None] * len(content.planes)
    for page in ome_pages(ome, samples, lambda _: len(content.planes)):
        if page.ifd in numbers:
            places[numbers[page.ifd]] = page.place
    found = tuple(place for place in places if place is not None)
    check_all_named(path, len(places), len(found))
    return Pages(found, Axes((("P", len(ome.images)), *page_counts(ome, samples)[0].items()), "OME"))


def check_all_named(path: str, pages: int, named: int) -> None:
    """Raise SourceError when a file has more pages than its OME metadata knows of."""
    if named < pages:
        raise SourceError(
            f"{path} holds {pages} pages, of which its OME metadata names {named}; say with --axes what the pages are."
        )


def _stood_in(file: SourceFile) -> SourceFile:
    """The file with the planes that an unreadable one should have."""
    if not file.unreadable:
        return file
    planes = (replace(plane, path=file.path, version=None, unreadable=file.unreadable) for plane in file.content.planes)
    return replace(file, content=replace(file.content, planes=tuple(planes)))


def _entries(file: SourceFile, pages: Pages, named: Sequence[str], number: int) -> list[_Entry]:
    for axis in named:
        if axis in "pt" and pages.axes.length(axis.upper()) > 1:
            raise SourceError(
                f"{file.path} has a {axis} in its name and {pages.axes.length(axis.upper())} inside; leave {{{axis}}} "
                "out of --pattern, or say with --axes what the pages are."
            )
    label = file.labels.get
    order: Label = number if not named else 0
    return [
        _Entry(
            plane,
            (label("p", 0), place.p),
            (label("t", 0), place.t),
            (label("c", ""), place.c),
            (label("z", order), place.z),
        )
        for plane, place in zip(file.content.planes, pages.places, strict=True)
    ]


def _keys(axis: str, entries: Sequence[_Entry]) -> list[Double]:
    found: set[Double] = {getattr(entry, axis) for entry in entries}
    return sorted(found, key=lambda key: (label_key(key[0]), key[1]))


def _axis(axis: str, entries: Sequence[_Entry], named: Sequence[str], origins: Mapping[str, str], files: int) -> Axis:
    keys = _keys(axis, entries)
    labels = list(dict.fromkeys(label for label, _ in keys))
    if axis in named and len(labels) == len(keys):
        return Axis(tuple(labels), FILE_NAME)
    origin = origins.get(axis, "pages") if len({inside for _, inside in keys}) > 1 else ""
    if axis in named:
        origin = f"{FILE_NAME} and {origin}"
    elif axis == "z" and not named and files > 1:
        origin = f"{FILE_ORDER} and {origin}" if origin else FILE_ORDER
    return Axis(tuple(range(len(keys))), origin or "one page")
