"""Lines over pictures: the outline of a section image, and borders of structures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..arrays.index import space_in
from ..arrays.positions import known_places
from ..model.affine import Array
from ..model.geometry import image_corners
from ..model.sections import SectionTable
from ..model.space import AXES
from .subject import Subject, edges

_POINTS = 100
"""Along each side of the border of a bent section."""


def tables(obj: xr.DataArray | xr.Dataset) -> dict[int, tuple[SectionTable, int]]:
    """Return the table and row of every image that the readers of an object know."""
    found = {}
    for places in known_places(obj):
        for row, image in enumerate(places.table.image_id.tolist()):
            found[image] = (places.table, row)
    return found


def outline(known: dict[int, tuple[SectionTable, int]], image_id: int) -> Array | None:
    """Return the border of what a section image covers on its grid, shape (n, 2): x, y in microns.

    Four corners, by the matrices alone; of a bent section many points, through its bend, without
    those that it says nothing of. None where the image is not among the `tables` known.
    """
    if image_id not in known:
        return None
    table, row = known[image_id]
    ring = image_corners(table.width[row : row + 1], table.height[row : row + 1])[0].T
    bend = None if table.bend[row] is None else table.bend[row].load()
    if bend is not None:
        share = np.arange(_POINTS)[:, None] / _POINTS
        sides = zip(ring, np.roll(ring, -1, axis=0), strict=True)
        ring = np.concatenate([start + share * (end - start) for start, end in sides])
        x, y = bend.to_straight(ring[:, 0], ring[:, 1])
        ring = np.stack([x, y, np.ones(len(x))], axis=1)[np.isfinite(x)]
        if not len(ring):
            return None
    onto = np.vstack([table.affine[row], [0.0, 0.0, 1.0]])
    return np.asarray((ring @ np.linalg.inv(onto).T)[:, :2])


@dataclass(frozen=True, slots=True, eq=False)
class Borders:
    """Where one structure ends and the next begins.

    Parameters
    ----------
    lines
        Shape (n, 2, 2): both ends of each line, as x, y.
    names
        Acronyms, each with the x and y that it is written at; empty where none are known.
    """

    lines: Array
    names: tuple[tuple[str, float, float], ...]


def borders(picture: Subject, annotation: xr.DataArray) -> Borders:
    """Return the lines between pixels of different structures, and the acronyms between them.

    Parameters
    ----------
    picture
        One section or native pixels, still lazy (so that their exact p, i, r are known), or a
        plane of a volume; thinned to what is drawn.
    annotation
        From `atldld.open_annotation`.
    """
    ids = structures(picture, annotation)
    x, y = picture.array[picture.right].values, picture.array[picture.down].values
    x, y = x.astype(np.float64), y.astype(np.float64)
    from ..arrays.ontology import tree_of

    tree = tree_of(annotation, None)
    places = () if tree is None else roomy_places(ids)
    names = tuple(
        (tree.acronyms[number], float(x[column]), float(y[row]))
        for number, row, column in places
        if tree is not None and number in tree.acronyms
    )
    return Borders(border_lines(ids, x, y), names)


def roomy_places(
    ids: npt.NDArray[np.int64], least: float = 0.012
) -> tuple[tuple[int, int, int], ...]:
    """Return for each structure in a picture the pixel that lies furthest from its borders.

    Parameters
    ----------
    ids
        Shape (rows, columns); 0 is outside.
    least
        How far that must be, as a share of the longer side: there is no room for a name else.

    Returns
    -------
    places
        Structure id, row and column of each.

    Examples
    --------
    >>> ids = np.zeros((9, 9), dtype=np.int64)
    >>> ids[1:8, 1:6] = 7
    >>> roomy_places(ids)
    ((7, 3, 3),)
    """
    import cv2

    inner = np.zeros(np.add(ids.shape, 2), dtype=np.uint8)
    same = np.ones(ids.shape, dtype=bool)
    for axis in (0, 1):
        differs = np.diff(ids, axis=axis) != 0
        before, after = [(0, 0), (0, 0)], [(0, 0), (0, 0)]
        before[axis], after[axis] = (1, 0), (0, 1)
        same &= ~(np.pad(differs, before) | np.pad(differs, after))
    inner[1:-1, 1:-1] = same
    room = cv2.distanceTransform(inner, cv2.DIST_L2, 5)[1:-1, 1:-1]
    order = np.argsort(-room, axis=None, kind="stable")
    numbers, first = np.unique(ids.ravel()[order], return_index=True)
    found = []
    for number, place in zip(numbers.tolist(), order[first].tolist(), strict=True):
        row, column = divmod(place, ids.shape[1])
        if number and room[row, column] >= least * max(ids.shape):
            found.append((number, row, column))
    return tuple(found)


def structures(picture: Subject, annotation: xr.DataArray) -> npt.NDArray[np.int64]:
    """Return the structure that each pixel of a picture lies in, shape (rows, columns)."""
    from .. import structures_at

    shape = (picture.array.sizes[picture.down], picture.array.sizes[picture.right])
    order = (picture.down, picture.right)
    if picture.kind == "plane":
        lost = [axis for axis in AXES if axis not in picture.array.coords]
        if lost:
            raise ValueError(f"the plane has lost its coordinate {lost[0]}: it cannot be looked up")
        bare = (picture.array.coords[axis].variable.to_base_variable() for axis in AXES)
        spread = xr.broadcast(*map(xr.DataArray, bare))
        places = dict(zip(AXES, spread, strict=True))
    else:
        places = picture.array.atlas.pir().compute()
    points = [places[axis].transpose(*order).values.ravel() for axis in AXES]
    space = space_in(picture.array)
    if space is None:
        raise ValueError("the array has lost its coordinate reference_space")
    found = structures_at(np.stack(points, axis=-1), annotation, reference_space=space)
    return found.reshape(shape)


def border_lines(ids: npt.NDArray[np.int64], x: Array, y: Array) -> Array:
    """Return the sides of pixels between different ids, runs of them joined to one line.

    Parameters
    ----------
    ids
        Shape (rows, columns).
    x, y
        Shape (columns,) and (rows,): where the middles of the pixels are, evenly spaced.

    Returns
    -------
    lines
        Shape (n, 2, 2): both ends of each, as x, y.

    Examples
    --------
    >>> ids = np.array([[1, 1, 2], [1, 1, 2]])
    >>> border_lines(ids, np.array([0.0, 10, 20]), np.array([0.0, 10])).tolist()
    [[[15.0, -5.0], [15.0, 15.0]]]
    """
    across = _runs(ids[:, 1:] != ids[:, :-1], _sides(x), _sides(y))
    level = _runs((ids[1:] != ids[:-1]).T, _sides(y), _sides(x))[..., ::-1]
    return np.concatenate([across, level])


def _runs(differs: npt.NDArray[np.bool_], over: Array, along: Array) -> Array:
    """Return the lines where columns of flags are true, between pixels `over`, running `along`."""
    padded = np.pad(differs, ((1, 1), (0, 0))).astype(np.int8)
    turns = np.diff(padded, axis=0)
    column, start = np.nonzero(turns.T == 1)
    _, end = np.nonzero(turns.T == -1)
    place = over[column + 1]
    ends = [np.stack([place, along[turn]], axis=-1) for turn in (start, end)]
    return np.stack(ends, axis=1).reshape(-1, 2, 2)


def _sides(values: Array) -> Array:
    """Return the sides of pixels, in the order of their middles: one more than there are."""
    low, high = edges(values, 1.0)
    sides = np.linspace(low, high, len(values) + 1)
    return sides[::-1] if len(values) > 1 and values[0] > values[-1] else sides
