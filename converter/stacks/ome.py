"""OME-XML: which image, time, channel and z each page of one or several files is.

Source: https://docs.openmicroscopy.org/ome-model/latest/ome-tiff/specification.html
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from xml.etree import ElementTree

from converter.stacks.channels import Channel, ome_color
from converter.stacks.place import Place


@dataclass(frozen=True)
class TiffData:
    """Consecutive pages of one file, from page `ifd` on: `first` is the place of the first by axis letter.

    `count` is how many they are, None for all that the file has; `file_name` and `uuid` are empty for the file that
    the XML lies in.
    """

    ifd: int
    first: Mapping[str, int]
    count: int | None
    file_name: str = ""
    uuid: str = ""


@dataclass(frozen=True)
class OmePixels:
    """One `Pixels` element: sizes by axis letter, and the file order of the axes (fastest first).

    `physical_sizes` maps X, Y and Z to the text of the size and of its unit, where the file gives them.
    """

    order: str
    sizes: Mapping[str, int]
    physical_sizes: Mapping[str, tuple[str, str]]
    name: str = ""
    channels: tuple[Channel, ...] = ()
    tiff_data: tuple[TiffData, ...] = ()


@dataclass(frozen=True)
class Ome:
    """The images of an OME-XML; `uuid` is that of the file it lies in, `metadata_file` the one that has the whole."""

    images: tuple[OmePixels, ...]
    uuid: str = ""
    metadata_file: str = ""

    @property
    def others(self) -> frozenset[str]:
        """The names of other files that hold pages of the images, and of this one, when the XML names any."""
        return frozenset(data.file_name for image in self.images for data in image.tiff_data if data.file_name)


@dataclass(frozen=True)
class OmePage:
    """Where a plane is kept: page `ifd` of a file, named as in `TiffData`."""

    place: Place
    ifd: int
    file_name: str
    uuid: str


def parse_ome(text: str) -> Ome | None:
    """Read OME-XML; None when it is not well-formed or describes no pixels."""
    try:
        root = ElementTree.fromstring(text)
        binary = root.find("{*}BinaryOnly")
        if binary is not None:
            return Ome((), root.get("UUID", ""), binary.get("MetadataFile", ""))
        images = tuple(
            _pixels(pixels, image.get("Name", ""))
            for image in root.iterfind("{*}Image")
            for pixels in image.iterfind("{*}Pixels")
        )
    except (ElementTree.ParseError, ValueError):
        return None
    return Ome(images, root.get("UUID", "")) if images else None


def ome_pages(ome: Ome, samples: int, pages: Callable[[TiffData], int]) -> Iterator[OmePage]:
    """Where each plane that the XML names is kept; a page has `samples`, and `pages` tells how many a file has.

    Without any `TiffData` the pages of the file follow each other in the order of the dimensions, image by image.
    """
    used = 0
    for number, image in enumerate(ome.images):
        axes = [letter for letter in image.order.upper() if letter in "ZCT"]
        lengths = [max(1, image.sizes.get(axis, 1) // (samples if axis == "C" else 1)) for axis in axes]
        total = math.prod(lengths)
        for data in image.tiff_data or (TiffData(used, {}, total),):
            first = _flat([data.first.get(axis, 0) // (samples if axis == "C" else 1) for axis in axes], lengths)
            count = min(pages(data) - data.ifd if data.count is None else data.count, total - first)
            for step in range(count):
                at = dict(zip(axes, _unflat(first + step, lengths), strict=True))
                place = Place(number, at.get("T", 0), at.get("C", 0), at.get("Z", 0))
                yield OmePage(place, data.ifd + step, data.file_name, data.uuid)
        used += total


def page_counts(ome: Ome, samples: int) -> list[dict[str, int]]:
    """How many times, channels held by different pages, and z each image has, by axis letter."""
    return [
        {axis: max(1, image.sizes.get(axis, 1) // (samples if axis == "C" else 1)) for axis in "TCZ"}
        for image in ome.images
    ]


def _flat(at: list[int], lengths: list[int]) -> int:
    number, stride = 0, 1
    for index, length in zip(at, lengths, strict=True):
        number, stride = number + index * stride, stride * length
    return number


def _unflat(number: int, lengths: list[int]) -> list[int]:
    at = []
    for length in lengths:
        number, index = divmod(number, length)
        at.append(index)
    return at


def _pixels(pixels: ElementTree.Element, name: str) -> OmePixels:
    sizes = {axis: int(pixels.get(f"Size{axis}", "1")) for axis in "XYZCT"}
    physical = {
        axis: (size, pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "XYZ"
        if (size := pixels.get(f"PhysicalSize{axis}")) is not None
    }
    channels = []
    for channel in pixels.iterfind("{*}Channel"):
        known = Channel(channel.get("Name") or channel.get("Fluor") or "", ome_color(channel.get("Color")))
        channels += [known] * max(1, int(channel.get("SamplesPerPixel", "1")))
    data = tuple(_tiff_data(element) for element in pixels.iterfind("{*}TiffData"))
    order = pixels.get("DimensionOrder", "XYZCT")
    return OmePixels(order, sizes, physical, name, tuple(channels), data)


def _tiff_data(element: ElementTree.Element) -> TiffData:
    count = element.get("PlaneCount")
    uuid = element.find("{*}UUID")
    name, identity = ("", "") if uuid is None else (uuid.get("FileName", ""), (uuid.text or "").strip())
    return TiffData(
        ifd=int(element.get("IFD", "0")),
        first={axis: int(element.get(f"First{axis}", "0")) for axis in "ZCT"},
        count=int(count) if count is not None else None if element.get("IFD") is None else 1,
        file_name=name,
        uuid=identity,
    )
