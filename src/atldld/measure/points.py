"""Points of reference space in section images, and back.

What the service's ``reference_to_image`` and ``image_to_reference`` answer one point at a time
[1]_, for many points, from the dataset's matrices.

References
----------
.. [1] "Image-to-image synchronization", https://community.brain-map.org/t/2863
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from ..arrays.base import placing_of, sections_of, target_space
from ..arrays.request import checked_space, registration_from
from ..model.checks import listed
from ..model.dataset import SectionDataset
from ..model.geometry import pixel_points
from ..model.sections import SectionTable
from ..model.space import AXES, FLIP_R, Plane
from ..source import Source, source_from

_BLOCK = 2**15
"""Points that are held against all sections at once."""


def points_to_sections(
    dataset: int | SectionDataset,
    points: Any,
    *,
    reference_space: Literal["native", 9, 10] = "native",
    max_distance: float | None = None,
    registration: Any = None,
    source: str | Source | None = None,
) -> pd.DataFrame:
    """Return for each of some reference points the section nearest to it, and where it is there.

    Parameters
    ----------
    dataset
        Id of the section dataset, or its record.
    points
        p, i, r in microns: an array of shape (N, 3), or a pandas frame with these columns.
    reference_space
        The space of the points: ``"native"`` for the dataset's own, or 9 or 10. Where it is the
        other one, r is flipped: ``11350 - r``.
    max_distance
        Largest distance from the section, in microns of the stack, at which a point still
        counts as covered; None for any distance.
    registration
        Another registration in the place of Allen's, as for `atldld.open_dataarray`: points are
        then those of its space, sections may be bent, and the nearest one, as the distance, is
        counted along the slicing axis, in microns of that space.
    source
        Where the record of an id comes from, as for `open_dataarray`.

    Returns
    -------
    pandas.DataFrame
        A row a point, with the index of a frame given. ``section_number`` and ``image_id`` of
        the section nearest in depth (of two equally near, the lower number, then the lower id;
        -1 for a point that is not a number). ``x``, ``y``: full-resolution pixels of that
        image, also outside of it. ``distance``: signed, microns of the stack, the point's depth
        minus ``section_number * thickness``. ``covered``: whether x, y lies within ``[0, width
        - 1] x [0, height - 1]``, and within `max_distance` where that is given. ``beyond``:
        whether the point lies before the first or after the last section by more than half of
        the gap there, so that the section is merely the last that there is; the service
        answers such points without a word.

    Raises
    ------
    ValueError, TypeError
        If an argument cannot be used, or the spaces cannot be turned into each other.
    DatasetNotFoundError, RegistrationError, APIError
        As `open_dataarray`, for an id.

    Notes
    -----
    Images that failed quality control are passed over.

    Examples
    --------
    >>> import atldld
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> with AllenServer([phantom_dataset(dataset_id=1001, plane="sagittal")]) as server:
    ...     found = points_to_sections(1001, [[6600, 4000, 3400]], source=server.url)
    >>> found[["covered", "beyond"]]
       covered  beyond
    0     True   False
    """
    record = _record(dataset, source)
    where = points_array(points)
    if max_distance is not None and not max_distance >= 0:
        raise ValueError(f"max_distance is {max_distance!r}; it must be microns, 0 or above")
    if registration is not None:
        table = _registered(record, registration, reference_space)
        return _nearest(table, record.plane, points, where, max_distance)
    if target_space(record, checked_space(reference_space))[1]:
        where = where * [1, 1, -1] + [0, 0, FLIP_R]
    images, thickness = record.images, record.section_thickness
    trv = record.matrix("trv")
    stack = where @ trv[:, :3].T + trv[:, 3]
    known: npt.NDArray[np.bool_] = np.asarray(np.isfinite(stack).all(axis=1))
    # Of images with one number the first, which has the lowest id, stands for all.
    numbers, first = np.unique([image.section_number for image in images], return_index=True)
    wanted = np.where(known, stack[:, 2], 0.0) / thickness
    # Halfway between two sections, the left side of the border is the lower number.
    place = np.searchsorted((numbers[1:] + numbers[:-1]) / 2, wanted, side="left")
    chosen = first[place]
    tvs = np.array([image.tvs for image in images], dtype=np.float64)[chosen]
    x, y = (
        tvs[:, row, 0] * stack[:, 0] + tvs[:, row, 1] * stack[:, 1] + tvs[:, row, 2]
        for row in (0, 1)
    )
    distance = stack[:, 2] - numbers[place] * thickness
    half = _half_gaps(numbers)
    beyond = known & ((wanted < numbers[0] - half[0]) | (wanted > numbers[-1] + half[1]))
    image_id, width, height = (
        np.array([getattr(image, name) for image in images], dtype=np.int64)[chosen]
        for name in ("id", "width", "height")
    )
    sections = numbers[place].astype(np.int64), image_id, width, height
    return _found(points, known, sections, (x, y), distance, max_distance, beyond)


def sections_to_points(
    dataset: int | SectionDataset,
    pixels: pd.DataFrame,
    *,
    reference_space: Literal["native", 9, 10] = "native",
    registration: Any = None,
    source: str | Source | None = None,
) -> pd.DataFrame:
    """Return where pixels of section images lie in reference space.

    Parameters
    ----------
    dataset
        Id of the section dataset, or its record.
    pixels
        A pandas frame with ``x`` and ``y``, full-resolution pixels of the section (also outside
        of its image), and ``image_id`` or ``section_number``; if both are there, they must agree.
    reference_space
        The space wanted: ``"native"`` for the dataset's own, or 9 or 10.
    registration
        Another registration in the place of Allen's, as for `atldld.open_dataarray`: p, i, r are
        then those of its space, through the bend of a section that has one.
    source
        Where the record of an id comes from, as for `open_dataarray`.

    Returns
    -------
    pandas.DataFrame
        ``p``, ``i``, ``r`` in microns, a row a pixel, with the index of `pixels`; NaN where x
        or y is not a number.

    Raises
    ------
    KeyError
        If the dataset has no such image, or a section number names several.
    ValueError, TypeError
        If an argument cannot be used.
    DatasetNotFoundError, RegistrationError, APIError
        As `open_dataarray`, for an id.

    Notes
    -----
    The service's matrices of the two directions are each other's inverse only to about 0.1
    microns, and so are this and `points_to_sections`.

    Examples
    --------
    >>> import pandas as pd
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> pixels = pd.DataFrame({"section_number": [0], "x": [100.0], "y": [50.0]})
    >>> with AllenServer([phantom_dataset(dataset_id=1001, plane="sagittal")]) as server:
    ...     list(sections_to_points(1001, pixels, source=server.url))
    ['p', 'i', 'r']
    """
    record = _record(dataset, source)
    if registration is not None:
        return _placed(record, _registered(record, registration, reference_space), pixels)
    flips = target_space(record, checked_space(reference_space))[1]
    chosen = _chosen(record, pixels)
    tsv = np.array([image.tsv for image in record.images], dtype=np.float64)[chosen]
    numbers = np.array([image.section_number for image in record.images], dtype=np.float64)
    x, y = (pixels[name].to_numpy(dtype=np.float64) for name in ("x", "y"))
    stack = np.stack(
        [
            tsv[:, 0, 0] * x + tsv[:, 0, 1] * y + tsv[:, 0, 2],
            tsv[:, 1, 0] * x + tsv[:, 1, 1] * y + tsv[:, 1, 2],
            numbers[chosen] * record.section_thickness,
        ]
    )
    tvr = record.matrix("tvr")
    p, i, r = tvr[:, :3] @ stack + tvr[:, 3:]
    return pd.DataFrame({"p": p, "i": i, "r": FLIP_R - r if flips else r}, index=pixels.index)


def _registered(record: SectionDataset, registration: Any, space: Any) -> SectionTable:
    """Return the sections where a registration places them, by section number, then id."""
    placing = placing_of(registration_from(registration), record)
    _, table = sections_of(record, placing, space)
    return table.take(np.lexsort([table.image_id, table.section_number]))


def _nearest(
    table: SectionTable,
    plane: Plane,
    points: Any,
    where: npt.NDArray[np.float64],
    max_distance: float | None,
) -> pd.DataFrame:
    """Return for each point the section nearest to it along the slicing axis."""
    known: npt.NDArray[np.bool_] = np.asarray(np.isfinite(where).all(axis=1))
    along, down, across = (
        np.where(known, where[:, axis], 0.0) for axis in (plane.section, plane.y, plane.x)
    )
    grid = np.stack([across, down, np.ones(len(where))])
    chosen = np.empty(len(where), dtype=np.intp)
    distance, beyond = np.empty(len(where)), np.zeros(len(where), dtype=bool)
    for first in range(0, len(where), _BLOCK):
        block = slice(first, first + _BLOCK)
        # Where each section's plane is passed by the line through each point.
        heights = table.points[:, plane.section] @ grid[:, block]
        nearest = np.argmin(np.abs(heights - along[block]), axis=0)
        chosen[block] = nearest
        distance[block] = along[block] - heights[nearest, np.arange(len(nearest))]
        heights.sort(axis=0)
        gaps = np.diff(heights[[0, min(1, len(heights) - 1)]], axis=0)[0]
        last = np.diff(heights[[max(-2, -len(heights)), -1]], axis=0)[0]
        beyond[block] = known[block] & (
            (along[block] < heights[0] - gaps / 2) | (along[block] > heights[-1] + last / 2)
        )
    x, y = np.einsum("nij,jn->in", table.affine[chosen], grid)
    for section in np.unique(chosen):
        source = table.bend[section]
        bend = None if source is None else source.load()
        if bend is not None:
            here = chosen == section
            x[here], y[here] = bend.to_bent(x[here], y[here])
    sections = (
        table.section_number[chosen], table.image_id[chosen],
        table.width[chosen], table.height[chosen],
    )  # fmt: skip
    return _found(points, known, sections, (x, y), distance, max_distance, beyond)


def _found(
    points: Any,
    known: npt.NDArray[np.bool_],
    sections: tuple[npt.NDArray[Any], ...],
    pixels: tuple[npt.NDArray[Any], ...],
    distance: npt.NDArray[np.float64],
    max_distance: float | None,
    beyond: npt.NDArray[np.bool_],
) -> pd.DataFrame:
    """Return the frame of `points_to_sections`.

    Parameters
    ----------
    points
        As they were given.
    known
        Shape (N,), as all that follow: whether a point is a number.
    sections
        Number, image id, width and height of the nearest section.
    pixels, distance, max_distance, beyond
        x and y there, and as `points_to_sections` says.
    """
    (number, image_id, width, height), (x, y) = sections, pixels
    with np.errstate(invalid="ignore"):
        covered = known & (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
        if max_distance is not None:
            covered &= np.abs(distance) <= max_distance
    return pd.DataFrame(
        {
            "section_number": np.where(known, number, -1),
            "image_id": np.where(known, image_id, -1),
            "x": np.where(known, x, np.nan),
            "y": np.where(known, y, np.nan),
            "distance": np.where(known, distance, np.nan),
            "covered": covered,
            "beyond": beyond,
        },
        index=points.index if isinstance(points, pd.DataFrame) else None,
    )


def _placed(record: SectionDataset, table: SectionTable, pixels: pd.DataFrame) -> pd.DataFrame:
    """Return where pixels lie by a registration; NaN for sections that it does not place."""
    images = np.array([image.id for image in record.images])[_chosen(record, pixels)]
    places = pixel_points(table)
    out = np.full((3, len(images)), np.nan)
    x, y = (pixels[name].to_numpy(dtype=np.float64) for name in ("x", "y"))
    for section, image in enumerate(table.image_id):
        here = np.flatnonzero(np.equal(images, image))
        if not len(here):
            continue
        source = table.bend[section]
        bend = None if source is None else source.load()
        at = (x[here], y[here]) if bend is None else bend.to_straight(x[here], y[here])
        out[:, here] = places[section] @ np.stack([*at, np.ones(len(here))])
    return pd.DataFrame(dict(zip("pir", out, strict=True)), index=pixels.index)


def _record(dataset: Any, source: str | Source | None) -> SectionDataset:
    if isinstance(dataset, SectionDataset):
        return dataset
    if isinstance(dataset, bool) or not isinstance(dataset, int | np.integer):
        raise TypeError(f"dataset is {dataset!r}; it must be the id of a dataset, or its record")
    return source_from(source).dataset(int(dataset))


def _half_gaps(numbers: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Return half of the first and of the last gap between sections, in section numbers."""
    gaps = np.diff(numbers)
    return (float(gaps[0]) / 2, float(gaps[-1]) / 2) if len(gaps) else (0.5, 0.5)


def _chosen(record: SectionDataset, pixels: Any) -> npt.NDArray[np.intp]:
    """Return the place of each pixel's image among those of the dataset."""
    if not isinstance(pixels, pd.DataFrame):
        raise TypeError(f"pixels is {type(pixels).__name__}; it must be a pandas frame")
    by = next((name for name in ("image_id", "section_number") if name in pixels.columns), None)
    if by is None or not {"x", "y"} <= set(pixels.columns):
        raise ValueError("pixels must have the columns x, y, and image_id or section_number")
    known = pd.Index([getattr(each, by.removeprefix("image_")) for each in record.images])
    wanted = pd.Index(pixels[by])
    twice = wanted[wanted.isin(known[known.duplicated()])]
    if len(twice):
        raise KeyError(f"several images of dataset {record.id} have {by} {twice[0]}")
    single = np.flatnonzero(~known.duplicated(keep=False))
    found = known[single].get_indexer(wanted)
    places = np.where(found < 0, -1, single[found])
    # What `points_to_sections` says of a point that is no number: its place is none, either.
    nowhere = (places < 0) & pixels[["x", "y"]].isna().any(axis=1).to_numpy()
    lacking = np.flatnonzero((places < 0) & ~nowhere)
    if len(lacking):
        missing = wanted[int(lacking[0])]
        names = listed((str(value) for value in sorted(known)), 12)
        raise KeyError(f"dataset {record.id} has no image with {by} {missing}; it has {names}")
    if by == "image_id" and "section_number" in pixels.columns:
        numbers = np.array([each.section_number for each in record.images])[places]
        differ = ~nowhere & (numbers != pixels["section_number"].to_numpy())
        for row in np.flatnonzero(differ)[:1]:
            raise ValueError(
                f"row {pixels.index[row]!r} of pixels says image {wanted[row]} and section "
                f"{pixels['section_number'].iloc[row]}, but the section of that image is "
                f"{numbers[row]}: correct one, or leave out one of the columns"
            )
    return np.asarray(np.where(nowhere, 0, places), dtype=np.intp)


def points_array(points: Any) -> npt.NDArray[np.float64]:
    """Return p, i, r of points as an array of shape (N, 3), float64.

    Parameters
    ----------
    points
        Shape (N, 3), or (3,) for one point; or a pandas frame with the columns p, i and r.

    Raises
    ------
    ValueError
        If it is neither.

    Examples
    --------
    >>> points_array([6600, 4000, 3400])
    array([[6600., 4000., 3400.]])
    """
    if isinstance(points, pd.DataFrame):
        missing = [axis for axis in AXES if axis not in points.columns]
        if missing:
            raise ValueError(f"points lack the columns {', '.join(missing)}")
        points = points[list(AXES)].to_numpy(dtype=np.float64)
    array = np.asarray(points, dtype=np.float64)
    if array.shape == (3,):
        array = array[None]
    if array.size == 0:
        array = array.reshape(0, 3)
    if array.ndim != 2 or array.shape[1] != 3:
        raise ValueError(
            f"points have shape {array.shape}; they must be (N, 3): a row of p, i, r each"
        )
    return array
