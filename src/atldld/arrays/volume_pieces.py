"""What a box of a volume needs of each section: arithmetic on matrices and sizes, no pixels."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
from dask.tokenize import tokenize

from ..model.affine import Array, tier_origin
from ..model.grid import Grid
from ..model.read import ImageRead, View, Window
from ..model.sections import Stack
from ..model.space import FLIP_R, Plane, flip_matrix
from ..reading.reader import part_read
from ..sampling.bands import Band, NodePlane, SectionPlanes, bands
from ..sampling.coverage import Coverage, Indices
from ..sampling.reads import Interpolation, choose_interpolation, needed_window
from .pieces import CHANNELS, sample_reads, whole_read

Between = Literal["nearest", "linear"]


@dataclass(frozen=True, eq=False)
class VolumeSampling:
    """How the sections of a dataset fill a volume: everything but where bytes come from.

    Parameters
    ----------
    dataset_id
        The dataset, for messages.
    plane
        Its plane of section.
    stack
        The sections.
    grid
        The nodes.
    tiers
        Shape (n,): the tier each section is read at.
    view
        Which picture of the section.
    interpolation
        How a node is sampled from an image.
    between
        ``"nearest"``, or ``"linear"``: blended from the two sections that a node lies between.
    max_distance
        Microns of the stack.
    mirrored
        Whether a node that no section shows takes what its mirror image shows.
    """

    dataset_id: int
    plane: Plane
    stack: Stack
    grid: Grid
    tiers: npt.NDArray[np.int16]
    view: View
    interpolation: Interpolation | Literal["auto"]
    between: Between
    max_distance: float
    mirrored: bool

    def __dask_tokenize__(self) -> tuple[Hashable, ...]:
        stack = self.stack
        columns = (getattr(stack, field.name) for field in fields(stack))
        rest = [repr(getattr(self, field.name)) for field in fields(self) if field.name != "stack"]
        return tokenize(*columns, self.tiers), *rest

    def __getstate__(self) -> dict[str, object]:
        # What is derived is derived anew in the process that needs it.
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def channels(self) -> tuple[int, ...]:
        """Length of the channel dimension, or nothing where a pixel has one value."""
        return () if self.view == "expression_mask" else (len(CHANNELS),)

    @property
    def axes(self) -> tuple[int, int, int]:
        """Which of p, i, r the planes follow each other along, their rows and columns."""
        return self.plane.section, self.plane.y, self.plane.x

    @property
    def bounds(self) -> tuple[tuple[int, int], tuple[int, int]]:
        """First, and one past the last, number of the rows and columns of the uncut grid."""
        return self.grid.axes[self.plane.y].lattice, self.grid.axes[self.plane.x].lattice

    @cached_property
    def layers(self) -> tuple[SectionPlanes, ...]:
        """The sections where they are, and where they are mirrored, if they are to be."""
        stacks = [self.stack]
        if self.mirrored:
            stacks.append(replace(self.stack, trv=self.stack.trv @ flip_matrix()))
        return tuple(
            SectionPlanes(stack.trv, stack.z, stack.pixels_of_space(), stack.width, stack.height)
            for stack in stacks
        )

    def nodes(self, number: int, rows: Indices, columns: Indices) -> NodePlane:
        """Return some nodes of one plane; all are grid numbers."""
        low, high = int(columns.min()), int(columns.max())
        return NodePlane(self.grid, self.plane, number, rows, low, high)

    def box(self, planes: Indices, rows: Indices, columns: Indices) -> Box:
        """Return what a box of nodes needs; all are grid numbers, in any order."""
        nodes = [self.nodes(int(number), rows, columns) for number in planes]
        blended = self.between == "linear"
        layers = []
        for sections in self.layers:
            found = bands(nodes, sections, self.max_distance, blended=blended)
            layers.append(tuple(zip(range(len(nodes)), nodes, found, strict=True)))
        return Box(self, columns, tuple(layers))

    def samples(self) -> list[ImageRead]:
        """Return a few images from amid the dataset, to find out about its service."""
        return sample_reads(self.dataset_id, self.stack)

    def to_tier(self, section: int, tier: int, affine: Array) -> Array:
        """Turn an affine to full-resolution pixels of a section into one to pixels of a tier."""
        out = affine.copy()
        out[:, 2] -= [
            tier_origin(int(self.stack.x[section]), tier),
            tier_origin(int(self.stack.y[section]), tier),
        ]
        return np.asarray(out / 2.0**tier)

    def piece(self, section: int, layers: Sequence[Layer], tier: int) -> VolumePiece:
        """Return what some planes need of a section at a tier."""
        whole = whole_read(self.dataset_id, self.stack, section, tier, self.view)
        affines = [self.to_tier(section, tier, layer.affine) for layer in layers]
        interpolation = choose_interpolation(self.interpolation, affines[0])
        needed: Window | None = None
        for layer, affine in zip(layers, affines, strict=True):
            window = needed_window(affine, layer.band.used, whole.size, interpolation)
            needed = window if needed is None or window is None else _joined(needed, window)
        return VolumePiece(section, tuple(layers), tuple(affines), interpolation, whole, needed)


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


Planes = tuple[tuple[int, NodePlane, list[Band]], ...]


@dataclass(frozen=True, slots=True, eq=False)
class Box:
    """A box of nodes, and which sections they show.

    Parameters
    ----------
    sampling
        How the volume is filled.
    columns
        The numbers of its columns.
    layers
        For the sections, and for their mirror images if there are any: place, nodes and bands
        of each plane.
    """

    sampling: VolumeSampling
    columns: Indices
    layers: tuple[Planes, ...]

    def shown(self, layer: int, without: Collection[int] = ()) -> npt.NDArray[np.bool_]:
        """Return which nodes show a section, shape (planes, rows, columns).

        Parameters
        ----------
        layer
            0 for the sections, 1 for their mirror images.
        without
            Sections that count for nothing.
        """
        planes = self.layers[layer]
        rows = len(planes[0][1].rows)
        out = np.zeros((len(planes), rows, len(self.columns)), dtype=bool)
        for place, _, found in planes:
            for band in found:
                if band.section not in without and band.shown.any:
                    out[place] |= band.shown.mask(self.columns)
        return out

    def pieces(self) -> list[VolumePiece]:
        """Return what the box needs of each section, by section."""
        sampling = self.sampling
        parts: dict[int, list[Layer]] = {}
        hidden: npt.NDArray[np.bool_] | None = None
        for mirrored, planes in enumerate(self.layers):
            if mirrored:
                hidden = self.shown(0)
            for place, nodes, found in planes:
                for band in found:
                    if hidden is not None:
                        band = _without(band, self.columns, hidden[place])
                        if not band.used.any:
                            continue
                    affine = nodes.affine(sampling.layers[mirrored].pixels_of_space[band.section])
                    layer = Layer(mirrored, place, nodes, affine, band)
                    parts.setdefault(band.section, []).append(layer)
        return [
            sampling.piece(section, layers, int(sampling.tiers[section]))
            for section, layers in sorted(parts.items())
        ]


@dataclass(frozen=True, slots=True, eq=False)
class VolumePiece:
    """One section's part in a box of a volume.

    Parameters
    ----------
    section
        Row of the stack.
    layers
        The planes of the box that it has a part in.
    affines
        For each of them, shape (2, 3): from (column number, row number, 1) to pixels of the
        tier, where that begins on the pixel lattice of its slide.
    interpolation
        How they are sampled.
    whole
        The read of the whole image at the tier.
    needed
        The pixels that are needed of it.
    """

    section: int
    layers: tuple[Layer, ...]
    affines: tuple[Array, ...]
    interpolation: Interpolation
    whole: ImageRead
    needed: Window | None

    def read(self, held: Collection[Window | None] = ()) -> ImageRead:
        """Return what to ask a source for that has some windows of the image at hand."""
        return part_read(self.whole, self.needed, held)


def _joined(one: Window, other: Window) -> Window:
    left, top = min(one.left, other.left), min(one.top, other.top)
    right, bottom = max(one.right, other.right), max(one.bottom, other.bottom)
    return Window(left, top, right - left, bottom - top)


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


MIDLINE = FLIP_R / 2
"""r of the plane that hemispheres are mirrored about, microns, the same in spaces 9 and 10."""
