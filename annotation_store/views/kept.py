"""The views of the datasets that were asked for last, within a bound of memory."""

from __future__ import annotations

import threading
from collections import OrderedDict

from annotation_store.reader import AnnotationReader
from annotation_store.views.dataset import DatasetView
from annotation_store.views.leaves import ParseWhole
from precomputed_server.format.info import VolumeInfo

_CELLS_SHARE = 4


class KeptViews:
    """Views of datasets of one tree; the one that was asked for last is kept however large it is."""

    def __init__(self, reader: AnnotationReader, memory: int, parse_whole: ParseWhole | None = None) -> None:
        self._reader = reader
        self._memory = memory
        self._parse_whole = parse_whole
        self._kept: OrderedDict[str, tuple[VolumeInfo, DatasetView]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, dataset: str, volume: VolumeInfo) -> DatasetView:
        """The view of a dataset whose volume is this one now; it is as new as its last refresh."""
        with self._lock:
            known, view = self._kept.get(dataset, (None, None))
            if view is None or known != volume:
                view = DatasetView(self._reader, dataset, volume, self._memory // _CELLS_SHARE, self._parse_whole)
            self._kept[dataset] = volume, view
            self._kept.move_to_end(dataset)
            return view

    def kept(self) -> list[str]:
        """The datasets, the one asked for last at the end."""
        with self._lock:
            return list(self._kept)

    def shrink(self) -> None:
        """Forget the views that were not used for longest, until the others are within the bound."""
        with self._lock:
            sizes = {dataset: view.size for dataset, (_, view) in self._kept.items()}
            for dataset in list(sizes)[:-1]:
                if sum(sizes.values()) <= self._memory:
                    return
                del self._kept[dataset], sizes[dataset]
