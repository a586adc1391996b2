"""Sections that are bent in their plane: which pixel a place shows that the plane puts elsewhere.

A registration places the picture of a section on a plane. The pixel that an affine finds for a
place of that plane is the *straight* one; a bend says which pixel shows the place instead, the
*bent* one, and back. Both are full-resolution x, y, whole numbers at the centres of pixels, so
that a bend knows nothing of grids, tiers and space.

Two kinds. VisuAlign's markers pull places of the picture to others: between them it is linear on
the triangles of a Delaunay triangulation [1]_. ANTs' affine and displacement field: a lattice of
displacements, linear between its points.

References
----------
.. [1] Puchades, M.A. et al. (2019) Spatial integration of multimodal data in atlas space,
   PLoS ONE 14(5): e0216796; Carey, H. et al. (2023) DeepSlice, Nature Communications 14: 5884.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import combinations
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from .affine import Array

Marker = tuple[float, float, float, float]
"""x, y that the anchoring means, and x, y of the place on the picture that shows it."""

_MARGIN = 0.1
"""How far beyond the picture, in its widths and heights, nothing moves."""

_CLOSE = 1e-3
"""Full-resolution pixels that the inverse of a lattice is searched to."""

_AT_ONCE = 1024
"""Points that are looked up in triangles together."""

_BLOCK = 16
"""Points of a lattice, along rows and columns, whose displacements are summed up together."""

TOUCHING = 1e-9
"""Share of a triangle by which a point may lie outside of it and count as in: rounding must not
leave a gap between two triangles."""

Spans = tuple[tuple[float, float], tuple[float, float]]


class Bend(Protocol):
    """Which pixel of a section shows what the plane puts at another one."""

    def to_bent(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Array, Array]:
        """Return the pixels that show straight ones; NaN where that is not known."""

    def to_straight(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Array, Array]:
        """Return the straight pixels of bent ones; NaN where that is not known."""

    def moves(self, x: tuple[float, float], y: tuple[float, float]) -> Spans:
        """Return the least and greatest displacement along x and y within a rectangle."""


class BendSource(Protocol):
    """Where a bend comes from: it may have to be fetched."""

    @property
    def key(self) -> str:
        """What tells it from others."""

    def load(self) -> Bend | None:
        """Return it; None where the section is straight after all."""


@dataclass(frozen=True, slots=True, eq=False)
class Markers:
    """VisuAlign's markers of a section.

    Parameters
    ----------
    points
        Shape (n, 4), pixels of the picture, edges at 0: x, y that the anchoring means, and x, y
        of the place on the picture that shows it.
    size
        Width and height of the picture.
    scale
        Shape (2, 2): full-resolution pixels that a pixel of the picture spans, along x and y; and
        the full-resolution x, y of its outer corner.
    """

    points: Array
    size: tuple[int, int]
    scale: Array

    @property
    def key(self) -> str:
        """What tells it from others."""
        return hashlib.sha256(self.points.tobytes() + self.scale.tobytes()).hexdigest()

    def load(self) -> Triangles:
        """Return the triangles between the markers."""
        return _triangles(self.points.tobytes(), self.size, self.scale.tobytes())


@lru_cache(maxsize=1024)
def _triangles(points: bytes, size: tuple[int, int], scale: bytes) -> Triangles:
    markers = np.frombuffer(points).reshape(-1, 4)
    per_pixel, corner = np.frombuffer(scale).reshape(2, 2)
    vertices, corners = triangulate(size, markers.tolist())
    straight, bent = vertices[:, :2] * per_pixel + corner, vertices[:, 2:] * per_pixel + corner
    return Triangles(straight, bent, corners)


def triangulate(
    size: tuple[float, float], markers: Sequence[Sequence[float]]
) -> tuple[Array, npt.NDArray[np.intp]]:
    """Return VisuAlign's triangles of some markers.

    The corners of a frame that lies a tenth of the picture outside of it stay where they are. The
    markers are put in one by one (Bowyer and Watson): all triangles whose circumcircle holds the
    new one go, and it is joined to the edges around the hole. Order and rounding decide only
    where four points lie on one circle, as markers on a lattice do.

    Parameters
    ----------
    size
        Width and height of the picture.
    markers
        x, y that the anchoring means, and x, y of the place on the picture.

    Returns
    -------
    vertices
        Shape (n, 4), as the markers: the four corners of the frame, then the markers.
    triangles
        Shape (m, 3): places among the vertices. It is the Delaunay triangulation of the places on
        the picture; markers outside of the frame, and where there is one already, have no part.
    """
    width, height = size
    vertices: list[Sequence[float]] = [
        (x, y, x, y)
        for y in (-_MARGIN * height, (1 + _MARGIN) * height)
        for x in (-_MARGIN * width, (1 + _MARGIN) * width)
    ]
    triangles = [_circled(vertices, (0, 1, 2)), _circled(vertices, (1, 2, 3))]
    for marker in markers:
        x, y = marker[2:]
        vertices.append(marker)
        if any(x == other[2] and y == other[3] for other in vertices[:-1]):
            continue
        if not any(_holds(vertices, corners, x, y) for corners, _ in triangles):
            continue
        hit = [_in_circle(circle, x, y) for _, circle in triangles]
        holed = [each for each, inside in zip(triangles, hit, strict=True) if inside]
        triangles = [each for each, inside in zip(triangles, hit, strict=True) if not inside]
        edges = [edge for corners, _ in holed for edge in combinations(corners, 2)]
        around = sorted(edge for edge in edges if edges.count(edge) == 1)
        last = len(vertices) - 1
        triangles += [_circled(vertices, (*edge, last)) for edge in around]
    return np.array(vertices, dtype=float), np.array([each for each, _ in triangles], dtype=np.intp)


_Circle = tuple[float, float, float, float]
_Circled = tuple[tuple[int, int, int], _Circle]


def _circled(vertices: list[Sequence[float]], corners: tuple[int, int, int]) -> _Circled:
    """Return a triangle of the picture with its circumcircle: weight, middle and radius squared."""
    a, b, c = (np.array(vertices[place][2:]) for place in corners)
    sides = [float(((one - other) ** 2).sum()) for one, other in ((b, c), (a, c), (a, b))]
    total = sum(sides)
    # The barycentric coordinates of the middle, times their sum: no division, no rounding by it.
    shares = [side * (total - 2 * side) for side in sides]
    weight = sum(shares)
    middle = [
        sum(share * at[k] for share, at in zip(shares, (a, b, c), strict=True)) for k in (0, 1)
    ]
    radius = sum((float(a[k]) * weight - middle[k]) ** 2 for k in (0, 1))
    return corners, (weight, float(middle[0]), float(middle[1]), radius)


def _in_circle(circle: _Circle, x: float, y: float) -> bool:
    weight, middle_x, middle_y, radius = circle
    return (x * weight - middle_x) ** 2 + (y * weight - middle_y) ** 2 < radius


def _holds(
    vertices: list[Sequence[float]], corners: tuple[int, int, int], x: float, y: float
) -> bool:
    (ax, ay), (bx, by), (cx, cy) = (vertices[place][2:] for place in corners)
    area = (bx - ax) * (cy - ay) - (cx - ax) * (by - ay)
    if area == 0:
        return False
    u = ((x - ax) * (cy - ay) - (cx - ax) * (y - ay)) / area
    v = ((bx - ax) * (y - ay) - (x - ax) * (by - ay)) / area
    return u >= 0 and v >= 0 and u + v <= 1


@dataclass(frozen=True, eq=False)
class Triangles:
    """A bend that is linear on triangles.

    Parameters
    ----------
    straight, bent
        Shape (n, 2): full-resolution x, y of the vertices, by the plane and on the picture.
    corners
        Shape (m, 3): which vertices span each triangle.

    Notes
    -----
    On the picture the triangles do not overlap. Where markers pull across each other they do on
    the plane: it is *folded*, and several places of the picture show one of the plane. Then the
    first triangle that is not turned over gives the pixel; on the way back every place of the
    picture is told as it lies. Outside of all triangles nothing moves.
    """

    straight: Array
    bent: Array
    corners: npt.NDArray[np.intp]

    @cached_property
    def from_straight(self) -> Pieces:
        """The triangles as the plane has them: those that are turned over come last."""
        turned = np.sign(_areas(self.straight[self.corners])) != np.sign(
            _areas(self.bent[self.corners])
        )
        corners = self.corners[np.argsort(turned, kind="stable")]
        return Pieces.of(self.straight[corners], self.bent[corners])

    @cached_property
    def from_bent(self) -> Pieces:
        """The triangles as they lie on the picture."""
        return Pieces.of(self.bent[self.corners], self.straight[self.corners])

    def to_bent(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Array, Array]:
        """Return the pixels that show straight ones."""
        return self.from_straight.moved(x, y)

    def to_straight(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Array, Array]:
        """Return the straight pixels of bent ones."""
        return self.from_bent.moved(x, y)

    def moves(self, x: tuple[float, float], y: tuple[float, float]) -> Spans:
        """Return the least and greatest displacement along x and y within a rectangle."""
        low, high, least, most = self._ranges
        near = (low <= (x[1], y[1])).all(axis=1) & (high >= (x[0], y[0])).all(axis=1)
        # Linear between its corners, a triangle moves nothing further than the furthest of them.
        least, most = least[near].min(axis=0, initial=0), most[near].max(axis=0, initial=0)
        return (float(least[0]), float(most[0])), (float(least[1]), float(most[1]))

    @cached_property
    def _ranges(self) -> tuple[Array, Array, Array, Array]:
        """Least and greatest straight x, y of each triangle, and of the moves of its corners."""
        corners, moved = self.straight[self.corners], (self.bent - self.straight)[self.corners]
        return corners.min(axis=1), corners.max(axis=1), moved.min(axis=1), moved.max(axis=1)


def _areas(corners: Array) -> Array:
    """Return twice the signed areas of triangles, shape (m,)."""
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    u, v = b - a, c - a
    return np.asarray(u[:, 0] * v[:, 1] - u[:, 1] * v[:, 0])


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """Triangles of one plane, and where each of them goes.

    Parameters
    ----------
    corners
        Shape (m, 3, 2): x, y of the corners of each triangle.
    inside
        Shape (m, 2, 3): from (x, y, 1) to its barycentric coordinates u, v.
    onto
        Shape (m, 2, 3): from (x, y, 1) to where it goes.
    """

    corners: Array
    inside: Array
    onto: Array

    @classmethod
    def of(cls, here: Array, there: Array) -> Pieces:
        """Return triangles from their corners, shape (m, 3, 2), without those that are lines."""
        some = _areas(here) != 0
        here, there = here[some], there[some]
        base = np.zeros((len(here), 3, 3))
        base[:, :2, 0], base[:, :2, 1] = here[:, 1] - here[:, 0], here[:, 2] - here[:, 0]
        base[:, :2, 2], base[:, 2, 2] = here[:, 0], 1.0
        to = np.empty((len(here), 2, 3))
        to[:, :, 0], to[:, :, 1] = there[:, 1] - there[:, 0], there[:, 2] - there[:, 0]
        to[:, :, 2] = there[:, 0]
        inverse = np.asarray(np.linalg.inv(base), dtype=np.float64)
        return cls(here, inverse[:, :2], np.asarray(to @ inverse, dtype=np.float64))

    def moved(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Array, Array]:
        """Return where points go, by the first triangle that holds them; others stay."""
        x, y = _floats(x, y)
        out = np.stack([x.ravel(), y.ravel()])
        low, high = self.corners.min(axis=1), self.corners.max(axis=1)
        slack = TOUCHING * (high - low)
        low, high = low - slack, high + slack
        for start in range(0, out.shape[1], _AT_ONCE):
            # Points that follow each other lie near each other: few triangles are looked at.
            points = out[:, start : start + _AT_ONCE]
            some = np.isfinite(points).all(axis=0)
            if not some.any():
                continue
            least, most = points[:, some].min(axis=1), points[:, some].max(axis=1)
            near = np.flatnonzero((low <= most).all(axis=1) & (high >= least).all(axis=1))
            if not len(near):
                continue
            inside = self.inside[near]
            u, v = np.moveaxis(inside[:, :, :2] @ points + inside[:, :, 2:], 1, 0)
            hit = (u >= -TOUCHING) & (v >= -TOUCHING) & (u + v <= 1 + TOUCHING)
            onto = self.onto[near[hit.argmax(axis=0)]]
            there = np.einsum("nij,jn->in", onto[:, :, :2], points) + onto[:, :, 2].T
            points[...] = np.where(hit.any(axis=0), there, points)
        return out[0].reshape(x.shape), out[1].reshape(x.shape)


@dataclass(frozen=True, eq=False)
class Lattice:
    """A bend that is an affine and a displacement field.

    Parameters
    ----------
    field
        Shape (rows, columns, 2), float32: full-resolution x, y to add, at the points of a lattice.
    index
        Shape (2, 3): from straight (x, y, 1) to (column, row) of the lattice, whole numbers at its
        points.
    onto
        Shape (2, 3): from (column, row, 1) of the lattice to full-resolution x, y.

    Notes
    -----
    ``bent = onto (index straight) + field (index straight)``. The field is known half a step
    around its points; nothing is known further out.
    """

    field: npt.NDArray[np.float32]
    index: Array
    onto: Array

    @cached_property
    def affine(self) -> Array:
        """The affine part, from straight (x, y, 1) to bent x, y, shape (2, 3)."""
        return np.asarray(self.onto @ np.concatenate([self.index, [[0.0, 0.0, 1.0]]]))

    def known(self, column: Array, row: Array) -> npt.NDArray[np.bool_]:
        """Return whether places of the lattice lie within it."""
        rows, columns = self.field.shape[:2]
        return np.asarray(
            (column >= -0.5) & (column <= columns - 0.5) & (row >= -0.5) & (row <= rows - 0.5)
        )

    def to_bent(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Array, Array]:
        """Return the pixels that show straight ones; NaN outside of the lattice."""
        column, row = _applied(self.index, *_floats(x, y))
        out_x, out_y = self._onto(column, row)
        known = self.known(column, row)
        return np.where(known, out_x, np.nan), np.where(known, out_y, np.nan)

    def to_straight(self, x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Array, Array]:
        """Return the straight pixels of bent ones, to `_CLOSE`; NaN where there is none."""
        x, y = _floats(x, y)
        back = _inverse(self.onto)
        column, row = _applied(back, x, y)
        for _ in range(60):
            there_x, there_y = self._onto(column, row)
            off_x, off_y = x - there_x, y - there_y
            if not (np.hypot(off_x, off_y) > _CLOSE / 10).any():
                break
            step = self._steps(column, row, off_x, off_y)
            column, row = column + step[0], row + step[1]
        there_x, there_y = self._onto(column, row)
        found = (np.hypot(x - there_x, y - there_y) <= _CLOSE) & self.known(column, row)
        out_x, out_y = _applied(_inverse(self.index), column, row)
        return np.where(found, out_x, np.nan), np.where(found, out_y, np.nan)

    def moves(self, x: tuple[float, float], y: tuple[float, float]) -> Spans:
        """Return the least and greatest displacement along x and y within a rectangle."""
        rows, columns = self.field.shape[:2]
        corners = [(one, other) for one in x for other in y]
        column, row = (
            [a * one + b * other + c for one, other in corners] for a, b, c in self.index.tolist()
        )
        part = _blocks(row, rows), _blocks(column, columns)
        low, high = (each[part].reshape(-1, 2) for each in self._blocks)
        low, high = low.min(axis=0).tolist(), high.max(axis=0).tolist()
        spans = []
        for axis, (a, b, c) in enumerate(self.affine.tolist()):
            moved = [a * one + b * other + c - (one, other)[axis] for one, other in corners]
            spans.append((min(moved) + low[axis], max(moved) + high[axis]))
        return spans[0], spans[1]

    @cached_property
    def components(self) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The displacements along x, and those along y."""
        return np.ascontiguousarray(self.field[..., 0]), np.ascontiguousarray(self.field[..., 1])

    @cached_property
    def steepest(self) -> float:
        """By how much displacements differ at most from one point to the next."""
        steps = (np.abs(np.diff(self.field, axis=axis)).max(initial=0) for axis in (0, 1))
        return float(max(steps))

    @cached_property
    def _blocks(self) -> tuple[Array, Array]:
        """Least and greatest displacement in each block of the lattice."""
        starts = [np.arange(0, length, _BLOCK) for length in self.field.shape[:2]]
        least, most = (
            reduce.reduceat(reduce.reduceat(self.field, starts[0], axis=0), starts[1], axis=1)
            for reduce in (np.minimum, np.maximum)
        )
        return least.astype(float), most.astype(float)

    def _onto(self, column: Array, row: Array) -> tuple[Array, Array]:
        x, y = _applied(self.onto, column, row)
        moved = _between(self.field, column, row)
        return x + moved[..., 0], y + moved[..., 1]

    def _steps(self, column: Array, row: Array, off_x: Array, off_y: Array) -> Array:
        """Return a step of Newton's method towards where the pixel is off by nothing."""
        half = 0.25
        along = (
            _between(self.field, column + half, row) - _between(self.field, column - half, row)
        ) / (2 * half)
        down = (
            _between(self.field, column, row + half) - _between(self.field, column, row - half)
        ) / (2 * half)
        a, b = self.onto[0, 0] + along[..., 0], self.onto[0, 1] + down[..., 0]
        c, d = self.onto[1, 0] + along[..., 1], self.onto[1, 1] + down[..., 1]
        area = a * d - b * c
        area = np.where(area == 0, np.inf, area)
        steps = np.stack([d * off_x - b * off_y, a * off_y - c * off_x]) / area
        # Two lattice steps at a time: further away the slope says nothing.
        return np.asarray(np.clip(steps, -2.0, 2.0))


def _floats(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Array, Array]:
    one, other = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    return one, other


def _applied(affine: Array, x: Array, y: Array) -> tuple[Array, Array]:
    (a, b, c), (d, e, f) = affine
    return a * x + b * y + c, d * x + e * y + f


def _inverse(affine: Array) -> Array:
    return np.asarray(np.linalg.inv(np.concatenate([affine, [[0.0, 0.0, 1.0]]]))[:2])


def _blocks(values: list[float], length: int) -> slice:
    """Return the blocks of a lattice of some length that places along it depend on."""
    first = min(max(math.floor(min(values)), 0), length - 1)
    past = min(max(math.floor(max(values)) + 2, first + 1), length)
    return slice(first // _BLOCK, -(-past // _BLOCK))


def _between(field: npt.NDArray[Any], column: Array, row: Array) -> Array:
    """Return a field between its points, linearly; beyond its border the border's values."""
    rows, columns = field.shape[:2]
    # As fmax does, no number is taken for 0.
    column = np.fmin(np.fmax(column, 0), columns - 1)
    row = np.fmin(np.fmax(row, 0), rows - 1)
    left = np.minimum(column.astype(np.intp), max(columns - 2, 0))
    top = np.minimum(row.astype(np.intp), max(rows - 2, 0))
    right, bottom = np.minimum(left + 1, columns - 1), np.minimum(top + 1, rows - 1)
    u, v = (column - left)[..., None], (row - top)[..., None]
    upper = field[top, left] * (1 - u) + field[top, right] * u
    lower = field[bottom, left] * (1 - u) + field[bottom, right] * u
    return np.asarray(upper * (1 - v) + lower * v, dtype=np.float64)
