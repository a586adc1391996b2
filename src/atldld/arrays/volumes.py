"""Volumes of parallel sections: what a box of nodes needs of each section, and its pixels."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from ..model.affine import Array, grid_affine
from ..model.sections import Stack
from ..model.space import FLIP_R, Plane, flip_matrix
from ..reading.reader import Found, places
from ..reading.threads import opencv_threads
from ..sampling.bands import Band, NodePlane, SectionPlanes, bands
from ..sampling.reads import (
    Coverage,
    Indices,
    Interpolation,
    Reach,
    choose_interpolation,
    covered_reaches,
    window_around,
)
from ..sampling.warp import Pixels, Warp, framed
from .lazy import Box, Images, Key, P, Sampling, SectionPart, What

Between = Literal["nearest", "linear"]

MIDLINE = FLIP_R / 2
"""r of the plane that hemispheres are mirrored about, microns, the same in spaces 9 and 10."""

_TILE = 128
"""Side of the tiles that are warped at once: a band of a plane is often narrow."""


@dataclass(frozen=True, eq=False, kw_only=True)
class VolumeSampling(Sampling[P]):
    """How the sections of a dataset fill a volume; see `Sampling`.

    Parameters
    ----------
    plane
        The plane of section.
    between
        ``"nearest"``, or ``"linear"``: blended from the two sections that a node lies between.
    max_distance
        Microns of the stack; along the slicing axis, of sections that were registered.
    mirrored
        Whether a node that no section shows takes what its mirror image shows.
    """

    plane: Plane
    between: Between
    max_distance: float
    mirrored: bool = False

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of nodes along p, i and r."""
        return self.grid.shape

    @property
    def axes(self) -> tuple[int, int, int]:
        """Which of p, i, r the planes follow each other along, their rows and columns."""
        return self.plane.section, self.plane.y, self.plane.x

    @property
    @abstractmethod
    def gap(self) -> float:
        """Median microns along the slicing axis from section to section; 0 where there is one."""

    def numbers(self, key: Key) -> list[Indices]:
        """Return the grid numbers of an outer index along planes, rows and columns."""
        asked = places(key[:3], self.grid.shape)
        return [asked[axis] + self.grid.axes[axis].first for axis in self.axes]


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class VolumePiece(SectionPart):
    """One section's part in a box of a volume.

    Parameters
    ----------
    layers
        The planes of the box that it has a part in.
    affines
        Shape (planes, 2, 3): from (column number, row number, 1) to pixels of the tier, where
        that begins on the pixel lattice of its slide.
    reaches
        For each of them, between which pixels of the tier its used nodes lie.
    interpolation
        How they are sampled.
    """

    layers: tuple[Layer, ...]
    affines: Array
    reaches: list[Reach]
    interpolation: Interpolation


@dataclass(frozen=True, eq=False, kw_only=True)
class StackSampling(VolumeSampling[VolumePiece]):
    """How parallel sections, those of an image stack, fill a volume; see `VolumeSampling`."""

    sections: Stack

    @cached_property
    def layers(self) -> tuple[SectionPlanes, ...]:
        """The sections where they are, and where they are mirrored, if they are to be."""
        stacks = [self.sections]
        if self.mirrored:
            stacks.append(replace(self.sections, trv=self.sections.trv @ flip_matrix()))
        return tuple(
            SectionPlanes(stack.trv, stack.z, stack.pixels_of_space(), stack.width, stack.height)
            for stack in stacks
        )

    @property
    def gap(self) -> float:
        """Median microns along the slicing axis from section to section; 0 where there is one."""
        z, rate = self.sections.z, abs(self.sections.trv[2, self.plane.section])
        return float(np.median(np.diff(z))) / rate if len(z) > 1 else 0.0

    def nodes(self, number: int, rows: Indices, columns: Indices) -> NodePlane:
        """Return some nodes of one plane; all are grid numbers."""
        low, high = int(columns.min()), int(columns.max())
        return NodePlane(self.grid, self.plane, number, rows, low, high)

    def box(self, key: Key) -> StackBox:
        """Return the nodes of an outer index along p, i and r."""
        return StackBox(self, *self.numbers(key))

    def at_tier(self, part: VolumePiece, tier: int) -> VolumePiece:
        """Return the same piece, read at another tier."""
        return self.piece(part.section, part.layers, tier)

    def piece(self, section: int, layers: Sequence[Layer], tier: int) -> VolumePiece:
        """Return what some planes need of a section at a tier."""
        stack = self.sections
        whole = stack.whole_image(self.dataset_id, section, tier, self.view)
        offset = int(stack.x[section]), int(stack.y[section])
        straight = np.stack([each.affine for each in layers])
        affines = grid_affine(straight, 1.0, (0.0, 0.0), tier, offset)
        interpolation = choose_interpolation(self.interpolation, affines[0])
        reaches = covered_reaches(affines, [each.band.used for each in layers])
        (left, right), (top, bottom) = (
            zip(*each, strict=True) for each in zip(*reaches, strict=True)
        )
        whole_reach = (min(left), max(right)), (min(top), max(bottom))
        needed = window_around(whole_reach, affines[0], whole.size, interpolation)
        return VolumePiece(
            section=section,
            whole=whole,
            needed=needed,
            layers=tuple(layers),
            affines=affines,
            reaches=reaches,
            interpolation=interpolation,
        )


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One plane of a box as one section, or its mirror image, fills it.

    Parameters
    ----------
    mirrored
        0 where the section is, 1 where it is mirrored.
    place
        Which plane of the box.
    nodes
        Its nodes.
    affine
        Shape (2, 3): from (column number, row number, 1) to full-resolution x, y.
    band
        Which of the nodes.
    """

    mirrored: int
    place: int
    nodes: NodePlane
    affine: Array
    band: Band


@dataclass(frozen=True, eq=False)
class VolumeBox(Box[P]):
    """A box of nodes of a volume.

    Parameters
    ----------
    sampling
        How the volume is filled.
    planes, rows, columns
        Grid numbers, in any order.
    """

    sampling: Any
    planes: Indices
    rows: Indices
    columns: Indices

    @property
    def shape(self) -> tuple[int, int, int]:
        """Number of planes, rows and columns."""
        return len(self.planes), len(self.rows), len(self.columns)


@dataclass(frozen=True, eq=False)
class StackBox(VolumeBox[VolumePiece]):
    """A box of nodes, and which sections of a stack they show; see `VolumeBox`."""

    sampling: StackSampling

    @cached_property
    def layers(self) -> tuple[tuple[tuple[int, NodePlane, list[Band]], ...], ...]:
        """Place, nodes and bands of each plane: of the sections, and perhaps mirror images."""
        sampling, blended = self.sampling, self.sampling.between == "linear"
        nodes = [sampling.nodes(int(number), self.rows, self.columns) for number in self.planes]
        return tuple(
            tuple(
                zip(
                    range(len(nodes)),
                    nodes,
                    bands(nodes, sections, sampling.max_distance, blended=blended),
                    strict=True,
                )
            )
            for sections in sampling.layers
        )

    def shown_by(self, layer: int, without: Collection[int] = ()) -> npt.NDArray[np.bool_]:
        """Return which nodes show a section (layer 0), or a mirror image of one (layer 1)."""
        out = np.zeros(self.shape, dtype=bool)
        for place, _, found in self.layers[layer]:
            for band in found:
                if band.section not in without and band.shown.any:
                    out[place] |= band.shown.mask(self.columns)
        return out

    def shown(self, without: Collection[int] = ()) -> npt.NDArray[np.bool_]:
        """Return which nodes show a section or its mirror image, but for some sections."""
        out, hidden = (np.zeros(self.shape, dtype=bool) for _ in range(2))
        for layer in range(len(self.layers)):
            out |= self.shown_by(layer, without) & ~hidden
            hidden |= self.shown_by(layer)
        return out

    def pieces(self) -> list[VolumePiece]:
        """Return what the box needs of each section, by section."""
        sampling = self.sampling
        parts: dict[int, list[Layer]] = {}
        hidden: npt.NDArray[np.bool_] | None = None
        for mirrored, planes in enumerate(self.layers):
            if mirrored:
                hidden = self.shown_by(0)
            bands_of: dict[int, list[tuple[int, NodePlane, Band]]] = {}
            for place, nodes, found in planes:
                for band in found:
                    if hidden is not None:
                        band = _without(band, self.columns, hidden[place])
                        if not band.used.any:
                            continue
                    bands_of.setdefault(band.section, []).append((place, nodes, band))
            for section, some in bands_of.items():
                numbers = self.planes[[place for place, *_ in some]]
                onto = sampling.layers[mirrored].pixels_of_space[section]
                affines = some[0][1].at(numbers).affine(onto)
                parts.setdefault(section, []).extend(
                    Layer(mirrored, place, nodes, affines[..., k], band)
                    for k, (place, nodes, band) in enumerate(some)
                )
        return [
            sampling.piece(section, layers, int(sampling.tiers[section]))
            for section, layers in sorted(parts.items())
        ]

    def fill(
        self, images: Images[VolumePiece], out: npt.NDArray[Any], fill_value: float
    ) -> set[int]:
        """Fill the box; return which sections could not be had."""
        out[...] = fill_value
        if self.sampling.between == "linear":
            return self._blend(images, out)
        return self._show(images, out)

    def _show(self, images: Images[VolumePiece], out: npt.NDArray[Any]) -> set[int]:
        """Fill the box with the pixels of the nearest section."""
        failed = set()
        mirror = out.copy() if len(self.layers) > 1 else out
        for found in images(self.pieces()):
            if found.image is None:
                failed.add(found.asked.section)
            else:
                with opencv_threads.value.one_each():
                    for layer, put in self._warps(found):
                        put((mirror if layer.mirrored else out)[layer.place])
                        del put
            del found  # before the next one is decoded
        if mirror is not out:
            np.copyto(out, mirror, where=_spread(~self.shown_by(0), out))
        return failed

    def _blend(self, images: Images[VolumePiece], out: npt.NDArray[Any]) -> set[int]:
        """Fill the box with the pixels of the two sections that a voxel lies between."""
        sums = [np.zeros(out.shape, dtype=np.float32) for _ in self.layers]
        weights = [np.zeros(out.shape[:3], dtype=np.float32) for _ in self.layers]
        failed = set()
        for found in images(self.pieces()):
            if found.image is None:
                failed.add(found.part.section)
                continue
            scratch = np.zeros(out.shape[1:], dtype=np.uint8)
            with opencv_threads.value.one_each():
                for layer, put in self._warps(found):
                    put(scratch)
                    part = _extent(layer, self.columns)
                    weight = self._weight(layer, part)
                    share = _product(scratch[part], weight)
                    sums[layer.mirrored][layer.place][part] += share
                    weights[layer.mirrored][layer.place][part] += weight
                    del put
            del found  # before the next one is decoded
        for number in range(len(self.layers)):
            shown = self.shown_by(number, failed)
            if number:
                # What an own section shows is not mirrored, though it could not be had.
                shown &= ~self.shown_by(0)
            put_means(sums[number], weights[number], shown, out)
        return failed

    def _warps(
        self, found: Found[VolumePiece]
    ) -> Iterator[tuple[Layer, Callable[[npt.NDArray[Any]], None]]]:
        """Yield the planes that an image shows in, each with what puts it there."""
        part, axes, plane = found.part, self.sampling.grid.axes, self.sampling.plane
        assert found.image is not None
        image = framed(found.image, part.interpolation), found.window, part.whole.size
        bounds = axes[plane.y].lattice, axes[plane.x].lattice
        past = found.past_lattice
        affines = part.affines - np.array([[0, 0, shift] for shift in past])
        # The planes of a section differ in shift alone, those of its mirror image likewise.
        made: dict[int, Warp] = {}
        for layer, affine, reach in zip(part.layers, affines, part.reaches, strict=True):
            if layer.mirrored not in made:
                made[layer.mirrored] = Warp(
                    image, affine, self.rows, self.columns, bounds, part.interpolation, _TILE
                )
            (left, right), (top, bottom) = reach
            moved = (left - past[0], right - past[0]), (top - past[1], bottom - past[1])
            warp, used = made[layer.mirrored], layer.band.used
            yield layer, partial(warp.put, affine, used, None, reach=moved)

    def _weight(self, layer: Layer, part: tuple[slice, slice]) -> npt.NDArray[np.float32]:
        """Return the share of a section in each node of a part of a plane, by distance in z."""
        planes, section = self.sampling.layers[layer.mirrored], layer.band.section
        rows, columns = layer.nodes.rows[part[0]], self.columns[part[1]]
        z = layer.nodes.z(planes.trv, rows[:, None], columns) - planes.z[section]
        # Beyond the first and the last section there is nothing to share with.
        below, above = (
            planes.z[k + 1] - planes.z[k] if 0 <= k < len(planes.z) - 1 else np.inf
            for k in (section - 1, section)
        )
        share, other = z / above, z / -below
        np.maximum(share, other, out=share)
        np.subtract(1, share, out=share)
        weight: npt.NDArray[np.float32] = share.astype(np.float32)
        weight *= layer.band.used.mask(columns, part[0])
        return weight

    def put(self, what: What, out: npt.NDArray[Any]) -> None:
        """Put which section each node shows, how far it lies from it in z, or if by its mirror."""
        stack = self.sampling.sections
        hidden = np.zeros(out.shape, dtype=bool) if len(self.layers) > 1 else None
        for mirrored, planes in enumerate(self.layers):
            for place, nodes, found in planes:
                for band in found:
                    there = band.shown.mask(self.columns)
                    if hidden is not None:
                        there &= ~hidden[place]
                        hidden[place] |= there
                    if what == "distance":
                        rows = nodes.rows[:, None]
                        z = nodes.z(self.sampling.layers[mirrored].trv, rows, self.columns)
                        np.copyto(out[place], z - stack.z[band.section], where=there)
                    else:
                        number = stack.section_number[band.section]
                        out[place][there] = number if what == "section_number" else bool(mirrored)


def put_means(
    total: npt.NDArray[np.float32],
    weight: npt.NDArray[np.float32],
    shown: npt.NDArray[np.bool_],
    out: npt.NDArray[Any],
) -> None:
    """Put weighted means where a section is shown that could be had, plane by plane."""
    import cv2

    for place in range(len(out)):
        there = shown[place] & (weight[place] > 0)
        divisor = np.where(there, weight[place], 1)
        values = total[place] / _spread(divisor, total[place])
        if out.dtype == np.uint8:
            values = np.rint(values)
        # OpenCV copies behind a mask a hundred times faster than numpy does.
        cv2.copyTo(values.astype(out.dtype, copy=False), there.view(np.uint8), dst=out[place])


def _product(pixels: Pixels, weight: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Return pixels times the weight of each."""
    import cv2

    if not weight.size:
        return np.zeros(pixels.shape, dtype=np.float32)
    return np.asarray(cv2.multiply(pixels, _spread(weight, pixels), dtype=cv2.CV_32F))


def _without(band: Band, columns: Indices, hidden: npt.NDArray[np.bool_]) -> Band:
    """Return a band that is used for no more than the nodes that are not hidden."""
    left = band.used.mask(columns) & ~hidden
    some = left.any(axis=1)
    ascending = np.sort(columns)
    order = np.argsort(columns)
    first = ascending[np.argmax(left[:, order], axis=1)]
    last = ascending[::-1][np.argmax(left[:, order[::-1]], axis=1)]
    low, high = band.used.asked
    used = Coverage(
        band.used.rows, np.where(some, first, high + 1), np.where(some, last, low - 1), (low, high)
    )
    return replace(band, used=used)


def _extent(layer: Layer, columns: Indices) -> tuple[slice, slice]:
    """Return the rows and columns of a plane between which its used nodes lie."""
    used = layer.band.used
    rows = np.flatnonzero(used.first <= used.last)
    low, high = used.first[rows].min(), used.last[rows].max()
    across = np.flatnonzero((columns >= low) & (columns <= high))
    if len(across) == 0:
        return slice(0, 0), slice(0, 0)
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(across[0]), int(across[-1]) + 1)


def _spread(values: npt.NDArray[Any], over: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return values of nodes with an axis for the channels of others, if these have one."""
    if values.ndim == over.ndim:
        return values
    if values.ndim != 2 or values.size == 0:
        return values[..., None]
    import cv2

    # Written out: numpy goes through an axis of three, repeated, many times slower.
    plain = values.view(np.uint8) if values.dtype == bool else values
    return np.asarray(cv2.merge([plain] * over.shape[-1])).view(values.dtype)
