"""Reading what pictures show: all at once, and not more than is sensible."""

from __future__ import annotations

from collections.abc import Sequence

import xarray as xr

from ..arrays.fetching import failures_table
from ..arrays.planning import planned_reads
from ..model.read import ImageRead

MOST_BYTES = 500_000_000
"""Bytes of decoded pixels that a picture may read, unless it is told otherwise."""


def read(arrays: Sequence[xr.DataArray], max_bytes: float) -> list[xr.DataArray]:
    """Return arrays in memory, read together.

    Parameters
    ----------
    arrays
        What a picture shows, already cut and thinned.
    max_bytes
        Most bytes of decoded image pixels that may be read for all of them.

    Raises
    ------
    ValueError
        If it would be more; nothing is read then.
    """
    check_cost(arrays, max_bytes)
    from dask.base import compute, optimize

    # Each by itself: where pictures share a chunk, dask would read all of that chunk for them.
    each = [optimize(array)[0] for array in arrays]
    return [array.load() for array in compute(*each, optimize_graph=False)]


def check_cost(arrays: Sequence[xr.DataArray], max_bytes: float) -> None:
    """Refuse what would read more than `max_bytes` of decoded pixels."""
    reads: dict[tuple[str, ImageRead], int] = {}
    for array in arrays:
        for name, each in _reads(array):
            reads[name, each] = _bytes(each)
    total = sum(reads.values())
    if total > max_bytes:
        images = len({each.image_id for _, each in reads})
        raise ValueError(
            f"this picture would read {total / 1e6:,.0f} MB of pixels from {images} images, more "
            f"than the {max_bytes / 1e6:,.0f} MB of max_bytes: open the dataset with a coarser "
            "resolution (resolution=100 is plenty for an overview), select fewer sections or a "
            "smaller part, or pass a larger max_bytes"
        )


def _reads(array: xr.DataArray) -> list[tuple[str, ImageRead]]:
    try:
        return [(each.reader.source.name, each.read) for each in planned_reads(array)]
    except ValueError:  # in memory: it reads nothing
        return []


def _bytes(read: ImageRead) -> int:
    width, height = read.size
    return width * height * (1 if read.view == "expression_mask" else 3)


def lost_images(obj: xr.DataArray | xr.Dataset) -> set[int]:
    """Return the ids of images that could not be had and were filled, as far as is known."""
    try:
        failures = failures_table(obj)
    except ValueError:
        return set()
    return {int(image) for image in failures.image_id[failures.outcome == "filled"]}
