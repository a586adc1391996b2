"""Tables of planned reads, and fetching them ahead of a computation."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from typing import Any

import pandas as pd
import xarray as xr

from .. import options
from ..errors import AtldldWarning, ImageError
from ..model.read import ImageRead
from ..reading.conventions import known, settle
from ..reading.failures import FIELDS, Ledger
from ..reading.images import too_large
from ..reading.progress import progress
from ..source.allen import AllenSource
from ..source.prefetch import Begun, fetch_each
from ..source.protocol import Source, keeps
from .index import GuardIndex
from .planning import PlannedRead, planned_reads, readers

COLUMNS = (
    "dataset_id", "section_number", "image_id", "view", "tier",
    "left", "top", "width", "height", "whole", "cached", "url",
)  # fmt: skip


def plan_table(planned: Iterable[PlannedRead]) -> pd.DataFrame:
    """Return planned reads as a table, a row each; see `AtlasAccessor.plan`."""
    return _table([_row(each) for each in planned], COLUMNS)


def prefetch(obj: xr.DataArray | xr.Dataset) -> pd.DataFrame:
    """Fetch what computing an object would read; see `AtlasAccessor.prefetch`."""
    with Begun() as begun:
        return _prefetch(obj, begun)


def _prefetch(obj: xr.DataArray | xr.Dataset, begun: Begun) -> pd.DataFrame:
    planned = planned_reads(obj, lambda each: _begin(each, begun))
    if _settle(planned):
        planned = planned_reads(obj)
    rows = [_row(each) | {"bytes": 0, "error": ""} for each in planned]
    with progress(len(planned), "Fetching images") as shown:
        for places in _by_reader(planned).values():
            reader = planned[places[0]].reader
            reads = {planned[place].read: place for place in places}
            with options.using(reader.carried):
                for place in places:
                    # What is at hand is left alone: its bytes are checked when it is read.
                    if planned[place].at_hand:
                        del reads[planned[place].read]
                        rows[place]["bytes"] = _kept_bytes(planned[place])
                shown.update(len(places) - len(reads))
                room = _Room(options.current().cache_limit, reader.source)
                for read, error in _giants(reader.source, reads).items():
                    rows[reads.pop(read)]["error"] = str(error)
                    shown.update(1)
                for read, content in fetch_each(reader.source, list(reads), begun=begun):
                    row = rows[reads[read]]
                    if isinstance(content, ImageError):
                        row["error"] = str(content)
                    else:
                        row["bytes"] = len(content)
                        room.take(len(content))
                    shown.update(1)
    return _table(rows, (*COLUMNS, "bytes", "error"))


def _giants(source: Source, reads: Iterable[ImageRead]) -> dict[ImageRead, ImageError]:
    """Return the reads that have too many pixels to be read, with the error of each."""
    found = {read: too_large(source, read) for read in reads}
    return {read: error for read, error in found.items() if error is not None}


def _begin(planned: PlannedRead, begun: Begun) -> None:
    """Begin to fetch a whole image that is sure to be needed, until every connection is busy."""
    read, source = planned.read, planned.reader.source
    with options.using(planned.reader.carried):
        if read.window is not None or len(begun) >= options.current().max_connections:
            return
        if planned.at_hand or too_large(source, read) is not None:
            return
        if keeps(source) and not known(source).lack([read]):
            begun.begin(source, read)


def _kept_bytes(planned: PlannedRead) -> int:
    """Return how many bytes are at hand of a read, if its source can tell without reading them."""
    source = planned.reader.source
    return source.kept_bytes(planned.read) if isinstance(source, AllenSource) else 0


class _Room:
    """Notices that a prefetch does not fit into the cache, and says so once.

    Parameters
    ----------
    limit
        Most bytes in the cache, or None.
    source
        Only what comes from a service is kept there.
    """

    def __init__(self, limit: int | None, source: Source) -> None:
        self._limit = limit if isinstance(source, AllenSource) else None
        self._left = self._limit or 0

    def take(self, count: int) -> None:
        """Count the bytes of one more image."""
        if self._limit is None:
            return
        self._left -= count
        if self._left < 0:
            warnings.warn(
                f"what is prefetched has more than the {self._limit} bytes that the cache may "
                "keep: what came first is removed again; set_options(cache_limit=...) gives it "
                "more",
                AtldldWarning,
                stacklevel=3,
            )
            self._limit = None


def _table(rows: list[dict[str, Any]], columns: tuple[str, ...]) -> pd.DataFrame:
    # An empty table has the same types of columns as a full one.
    return pd.DataFrame(rows, columns=list(columns)).astype({"whole": bool, "cached": bool})


def failures_table(obj: xr.DataArray | xr.Dataset) -> pd.DataFrame:
    """Return what failed when an object was computed; see `AtlasAccessor.failures`."""
    names = [reader.failing.ledger.name for reader in readers(obj)]
    for index in obj.xindexes.values():
        if isinstance(index, GuardIndex):
            names += index.ledgers
    if not names:
        raise ValueError(
            "this object does not say which arrays it was made from; ask the object that "
            "open_dataarray or open_dataset gave"
        )
    failures = [each for name in dict.fromkeys(names) for each in Ledger(name).failures()]
    return pd.DataFrame(
        [{field: getattr(each, field) for field in FIELDS} for each in failures],
        columns=list(FIELDS),
    )


def _settle(planned: list[PlannedRead]) -> bool:
    """Find out what is in doubt about the sources of reads; return whether anything was."""
    asked = False
    for places in _by_reader(planned).values():
        reader = planned[places[0]].reader
        reads = [planned[place].read for place in places]
        with options.using(reader.carried):
            if known(reader.source).lack(reads):
                settle(reader.source, reader.samples(), reads)
                asked = True
    return asked


def _by_reader(planned: list[PlannedRead]) -> dict[tuple[str, options.Carried], list[int]]:
    """Return the places of the reads that go to one source with the same options."""
    places: dict[tuple[str, options.Carried], list[int]] = {}
    for place, each in enumerate(planned):
        key = (each.reader.source.name, each.reader.carried)
        places.setdefault(key, []).append(place)
    return places


def _row(planned: PlannedRead) -> dict[str, Any]:
    read, source = planned.read, planned.reader.source
    left, top, width, height = (0, 0, *read.size) if read.window is None else read.window.box
    values = (
        read.dataset_id, read.section_number, read.image_id, read.view, read.tier,
        left, top, width, height, read.window is None, planned.at_hand, source.url(read),
    )  # fmt: skip
    return dict(zip(COLUMNS, values, strict=True))
