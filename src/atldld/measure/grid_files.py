"""Files of Allen's grids: which nodes they have, in which space, and what they hold."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Literal, TypeVar
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt
import xarray as xr

from .. import __version__
from ..arrays.index import GUARD, GuardIndex
from ..model.space import AXES, FLIP_R, can_flip, space_name
from ..source.archives import CONNECTIVITY, zip_members
from .voxel_files import VoxelFile, metaimages_of

Space = int | Literal["CCFv3"]
Single = npt.NDArray[np.float32]
_Volume = TypeVar("_Volume", xr.DataArray, xr.Dataset)

_LARGEST_VOLUME = 2**24
"""Bytes of one expression volume; the largest, of day 13.5 of the embryo, has 3.2 million."""

_LEAST_STEP, _LARGEST_STEP = 10.0, 1000.0
"""Microns between nodes: the grids of the developing mouse have 80 to 200."""

_CCFV3_EXTENT = (13200, 8000, 11400)
_LONG_NAMES = {
    "energy": "expression energy",
    "density": "expression density",
    "intensity": "expression intensity",
    **{name: name.replace("_", " ") for name in CONNECTIVITY},
}
_AXIS_NAMES = {"p": "posterior", "i": "inferior", "r": "right"}
_CITATIONS = {
    "expression": (
        "Allen Institute for Brain Science, Allen Mouse Brain Atlas, section dataset {id}, 3-D "
        "expression grid data; Lein, E.S. et al. (2007) Genome-wide atlas of gene expression in "
        "the adult mouse brain, Nature 445: 168-176. Use is subject to "
        "https://alleninstitute.org/terms-of-use and https://alleninstitute.org/citation-policy."
    ),
    "connectivity": (
        "Allen Institute for Brain Science, Allen Mouse Brain Connectivity Atlas, section dataset "
        "{id}, 3-D grid data; Oh, S.W. et al. (2014) A mesoscale connectome of the mouse brain, "
        "Nature 508: 207-214. Use is subject to https://alleninstitute.org/terms-of-use and "
        "https://alleninstitute.org/citation-policy."
    ),
}


@dataclass(frozen=True, slots=True)
class GridForm:
    """The nodes of a grid, and the space that they lie in.

    Parameters
    ----------
    space
        Id of a reference space of Allen's, or ``"CCFv3"``.
    shape
        Nodes along p, i, r.
    step
        Microns between nodes.
    first
        Microns of node 0 along each axis: node k sits at ``first + k * step``.
    """

    space: Space
    shape: tuple[int, int, int]
    step: float
    first: float = 0.0

    def flipped(self, space: Space) -> GridForm:
        """Return the same nodes in the other one of spaces 9 and 10."""
        return GridForm(space, self.shape, self.step, self.first)


def p56_form(space: int) -> GridForm:
    """Return the grid of the adult mouse brain, in space 9 or 10: 200 microns, from 0."""
    return GridForm(space, (67, 41, 58), 200.0)


def ccfv3_form(resolution: int) -> GridForm:
    """Return the grid of the connectivity atlas: its nodes are the centres of voxels."""
    p, i, r = (length // resolution for length in _CCFV3_EXTENT)
    return GridForm("CCFv3", (p, i, r), float(resolution), resolution / 2)


@dataclass(frozen=True, slots=True, eq=False)
class GridVolumes:
    """What the files of one dataset hold.

    Parameters
    ----------
    form
        Its nodes.
    values
        float32 by name of the volume, shape as in `form`; NaN where there are no data.
    dataset_id
        What the files say, or None.
    """

    form: GridForm
    values: Mapping[str, Single]
    dataset_id: int | None = None

    def in_space(self, space: Space) -> GridVolumes:
        """Return it in the other one of spaces 9 and 10, or as it is.

        Raises
        ------
        ValueError
            If nothing leads there.
        """
        if space == self.form.space:
            return self
        native, other = self.form.space, space
        if isinstance(native, str) or isinstance(other, str) or not can_flip(native, other):
            raise ValueError(
                f"the volumes lie in {space_name(native)}; nothing leads to {space_name(other)}"
            )
        values = {name: flip_nodes(each, self.form.step) for name, each in self.values.items()}
        return GridVolumes(self.form.flipped(space), values, self.dataset_id)


@dataclass(frozen=True, slots=True)
class Said:
    """What is known of the space of a file beside what it says.

    Parameters
    ----------
    wanted
        The space that the user wants, or ``"native"``.
    native
        The one that the user says it lies in, or None.
    record
        Returns the one that the record of the dataset says, or None.
    """

    wanted: Any = "native"
    native: Space | None = None
    record: Callable[[], int | None] = field(default=lambda: None)

    def space(self, said: int | None, name: str) -> int:
        """Return the space that a file lies in: what it says, or else what is known of it."""
        if said is not None and self.native not in (None, said):
            raise ValueError(
                f"native_space is {self.native}, but {name} says that it lies in space {said}"
            )
        for known in (said, self.native, None if said or self.native else self.record()):
            if known is not None:
                return int(known)
        if self.wanted != "native":
            return int(self.wanted)
        raise ValueError(
            f"{name} does not say which reference space it lies in: pass reference_space=10 for a "
            "sagittal dataset, 9 for a coronal one"
        )


def zip_grid(content: bytes, name: str, said: Said, volumes: Collection[str] = ()) -> GridVolumes:
    """Return the volumes of a zip of the grid service.

    Parameters
    ----------
    content, name
        Its bytes, and what to call it.
    said
        What is known of its space.
    volumes
        Names of those wanted, as far as they are there; all if empty.

    Raises
    ------
    ValueError
        If it is damaged, holds none, or is of another kind.
    """

    def is_wanted(member: str) -> bool:
        stem = PurePosixPath(member).stem
        return not volumes or stem in volumes or member.endswith("data_set.xml")

    try:
        members = zip_members(content, is_wanted)
        images = metaimages_of(members, members.__getitem__, _LARGEST_VOLUME)
    except (KeyError, ValueError) as error:
        raise ValueError(f"{name} is damaged, or not a zip of the grid service: {error}") from error
    described = [each for each in members if each.endswith("data_set.xml")]
    facts = _facts(members[described[0]]) if described else {}
    if not images:
        raise ValueError(f"{name} holds no MetaImage volume")
    return images_grid(
        images, name, said.space(facts.get("reference_space"), name), facts.get("dataset_id")
    )


def images_grid(
    images: Mapping[str, VoxelFile], name: str, space: int, dataset_id: int | None = None
) -> GridVolumes:
    """Return expression volumes with their nodes, or refuse those of another kind.

    In spaces 9 and 10 there is one grid. Those of the developing mouse each have their own, which
    begins at 0 as well and is as long as the file says.
    """
    forms = set()
    for volume, image in images.items():
        step = image.spacing[0]
        shape = image.values.shape
        spaced = "ElementSpacing" in image.header or "ElementSize" in image.header
        fits = len(shape) == 3 and len({*image.spacing}) == 1 and not any(image.offset) and spaced
        if fits and space in (9, 10):
            fits = GridForm(space, shape, step) == p56_form(space)
        if not fits or not _LEAST_STEP <= step <= _LARGEST_STEP:
            sides = " x ".join(map(str, shape))
            raise ValueError(
                f"{name}: {volume} has {sides} voxels of {image.spacing} from {image.offset}; an "
                "expression volume of the adult mouse brain has 67 x 41 x 58 of 200 microns from "
                "0, others have cubes from 0. Volumes of the connectivity atlas come as NRRD, in "
                "CCFv3"
            )
        forms.add(GridForm(space, (shape[0], shape[1], shape[2]), step))
    if len(forms) != 1:
        raise ValueError(f"{name} holds volumes of several grids")
    values = {volume: _without_holes(image.values) for volume, image in images.items()}
    return GridVolumes(forms.pop(), values, dataset_id)


def nrrd_volume(image: VoxelFile, volume: str, name: str) -> GridVolumes:
    """Return a volume of the connectivity atlas, or refuse what is none."""
    step = image.spacing[0]
    # Allen's NRRD count in microns, others in millimetres.
    step = step * 1000 if step < 1 else step
    whole = step.is_integer() and len({*image.spacing}) == 1 and image.values.ndim == 3
    if not whole or ccfv3_form(int(step)).shape != image.values.shape:
        sides = " x ".join(map(str, image.values.shape))
        raise ValueError(
            f"{name} has {sides} voxels of {image.spacing}; a volume of the connectivity atlas "
            "spans CCFv3 in voxels of 10, 25, 50 or 100 microns"
        )
    return GridVolumes(ccfv3_form(int(step)), {volume: _without_holes(image.values)})


def labelled(grid: GridVolumes, name: str, native: Space | None = None) -> xr.Dataset:
    """Return volumes with their coordinates.

    Parameters
    ----------
    grid
        The volumes.
    name
        Where they come from.
    native
        The space that they were in before they were interpolated; None if they were not.
    """
    variables = {volume: xr.Variable(AXES, values) for volume, values in grid.values.items()}
    attrs = form_attributes(grid.form, name, native, grid.dataset_id)
    out = xr.Dataset(variables, coords=form_coordinates(grid.form), attrs=attrs)
    for volume in grid.values:
        out[volume].attrs.update({"long_name": long_name(volume), **attrs})
    return guarded(out, grid.form.space)


def long_name(volume: str) -> str:
    """Return what to call a volume in a figure."""
    return _LONG_NAMES.get(volume, volume)


def form_coordinates(form: GridForm) -> dict[str, xr.Variable]:
    """Return p, i and r of the nodes."""
    return node_coordinates((form.first,) * 3, form.step, form.shape)


def node_coordinates(
    first: tuple[float, ...], step: float, shape: tuple[int, ...]
) -> dict[str, xr.Variable]:
    """Return p, i and r of evenly spaced nodes, in microns."""
    return {
        axis: xr.Variable(
            axis,
            start + np.arange(count) * step,
            {"long_name": f"{axis} ({_AXIS_NAMES[axis]})", "units": "µm"},
        )
        for axis, start, count in zip(AXES, first, shape, strict=True)
    }


def guarded(volume: _Volume, space: Any) -> _Volume:
    """Return a volume over p, i, r that refuses to mix with those of another space.

    Parameters
    ----------
    volume
        The volume; a guard that it has is replaced.
    space
        9, 10 or ``"CCFv3"``.

    Examples
    --------
    >>> nine, ten = (guarded(xr.DataArray([1.0], {"p": [0.0]}), space) for space in (9, 10))
    >>> nine + ten
    Traceback (most recent call last):
    ...
    atldld.errors.MixError: an array of volumes in P56 Brain and one of volumes in P56 \
Brain, L/R Flipped cannot be combined: their rows and columns are different directions. Open both \
with the same reference_space=, or as volumes on one grid
    """
    where = f"volumes in {space_name(space)}"
    guard = xr.Variable((), space, {"long_name": "reference space", "frame": where})
    coords = xr.Coordinates({GUARD: guard}, indexes={GUARD: GuardIndex(GUARD, where)})
    return volume.drop_vars(GUARD, errors="ignore").assign_coords(coords)


def form_attributes(
    form: GridForm, name: str, native: Space | None, dataset_id: int | None
) -> dict[str, Any]:
    """Return what volumes say of themselves."""
    kind = "connectivity" if form.space == "CCFv3" else "expression"
    resampled = "no"
    if native is not None:
        resampled = f"linearly along r, from space {native} by r -> {FLIP_R:g} - r"
    return {
        "reference_space": form.space,
        "reference_space_name": space_name(form.space),
        "native_reference_space": form.space if native is None else native,
        "resampled": resampled,
        "source": name,
        "atldld_version": __version__,
        "citation": _CITATIONS[kind].format(id="" if dataset_id is None else dataset_id),
        **({} if dataset_id is None else {"dataset_id": dataset_id}),
    }


def flip_nodes(values: Single, step: float) -> Single:
    """Return a volume as the other one of spaces 9 and 10 sees it, on the same nodes.

    Parameters
    ----------
    values
        Shape (p, i, r), nodes k * step; NaN where there are no data.
    step
        Microns between nodes along r.

    Returns
    -------
    values
        The same shape: at node m the value at ``11350 - m * step``, linear between the two
        nodes around it. A node without data is left out of the mean where it is the further
        one; where it is the nearer one, there is no value.

    Examples
    --------
    >>> volume = np.arange(58, dtype=np.float32).reshape(1, 1, 58)
    >>> flip_nodes(volume, 200.0)[0, 0, :3]
    array([56.75, 55.75, 54.75], dtype=float32)
    """
    count = values.shape[-1]
    place = (FLIP_R - np.arange(count) * step) / step
    below = np.floor(place).astype(int)
    total = np.zeros(values.shape, dtype=np.float64)
    weight = np.zeros(values.shape, dtype=np.float64)
    for node, share in ((below, below + 1 - place), (below + 1, place - below)):
        there = (node >= 0) & (node < count)
        taken = values[..., np.clip(node, 0, count - 1)]
        good = np.where(there, share, 0.0) * ~np.isnan(taken)
        total += np.where(good > 0, taken, 0.0) * good
        weight += good
    out = np.full(values.shape, np.nan, dtype=np.float32)
    enough = weight >= 0.5
    out[enough] = (total[enough] / weight[enough]).astype(np.float32)
    return out


def _without_holes(values: npt.NDArray[Any]) -> Single:
    """Return values with NaN where a file has -1 for no data."""
    out = values.astype(np.float32)
    out[out < 0] = np.nan
    return out


def _facts(xml: bytes) -> dict[str, int]:
    """Return what the dataset's own description says of id and space."""
    if b"<!" in xml.replace(b"<!--", b""):
        return {}  # A document type, which could define entities without end.
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError:
        return {}
    facts = {}
    for key, tag in (("dataset_id", "id"), ("reference_space", "reference-space-id")):
        text = root.findtext(tag)
        if text is not None and re.fullmatch(r"\s*\d{1,18}\s*", text):
            facts[key] = int(text)
    return facts
