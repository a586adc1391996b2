"""Packing a dataset into a bundle: exactly the reads that opening it so will need."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

import numpy as np

from ..model.read import VIEWS, View
from ..source import source_from
from ..source.bundle import BundleSource
from ..source.location import Location
from ..source.protocol import Source
from ..source.targets import target_at
from .plan import PackRequest, plan_packing
from .run import Packing

MOST_TIERS: Final = 31
"""Tiers 0 to 30 may be asked for, as in `open_dataarray`."""


@dataclass(frozen=True, slots=True)
class Packed:
    """What a packing did.

    Parameters
    ----------
    source
        The bundle, to be opened: ``open_dataarray(dataset_id, source=packed.source)``.
    dataset_id
        The dataset that it holds.
    files, bytes
        How many files the bundle has besides its manifest, and how large they are together.
    fetched
        How many images were fetched for it now.
    kept
        How many images were there already, and found sound.
    failed
        Names of images that could not be had.
    """

    source: BundleSource
    dataset_id: int
    files: int
    bytes: int
    fetched: int
    kept: int
    failed: tuple[str, ...]


def pack(
    dataset_id: int,
    target: str | os.PathLike[str],
    *,
    resolution: float | None = None,
    tiers: int | Sequence[int] | None = None,
    region: Mapping[str, tuple[float, float]] | None = None,
    views: View | Sequence[View] = ("image",),
    mapping: Literal["oblique", "parallel"] = "oblique",
    detection_xy: tuple[float, float] | Literal["center"] | None = None,
    interpolation: Literal["auto", "nearest", "linear", "cubic", "area"] = "auto",
    reference_space: Literal["native", 9, 10] = "native",
    chunks: Literal["auto"] | None = "auto",
    on_error: Literal["raise", "skip"] = "raise",
    source: str | os.PathLike[str] | Source | None = None,
) -> Packed:
    """Pack a dataset into a bundle: what opening it with these options needs, and no more.

    `open_dataarray` and `open_dataset` with ``source=target`` then work without a network, and
    give the same pixels, bit by bit. Packing that was stopped, even killed, goes on where it
    stopped when it is called again; until it has finished there is no bundle that could be
    opened. A bundle of the dataset that is there already is checked, mended and added to.

    Parameters
    ----------
    dataset_id
        Id of the section dataset.
    target
        A folder, a file named ``*.zip``, or an fsspec URL such as ``"s3://bucket/key"``.
        Credentials come from the environment or fsspec's configuration.
    resolution
        Microns between grid points of the arrays that the bundle will be opened as; by default
        25, as in `open_dataarray`.
    tiers
        Image tiers to pack, each for ``open_dataarray(tier=...)``. By default those that
        ``tier="auto"`` takes at the resolution.
    region
        As in `open_dataarray`: only what lies in it is packed.
    views
        ``"image"``, ``"projection"``, ``"expression"``, ``"expression_mask"``, or several.
    mapping, detection_xy, interpolation, reference_space
        As in `open_dataarray`. They matter where parts of images are packed.
    chunks
        ``"auto"``: what an array of that chunking reads. None: one read a section, which serves
        every chunking; where large images are read in parts, it may be larger.
    on_error
        ``"raise"``: where images cannot be had, pack the others and raise; a later call goes on.
        ``"skip"``: finish without them; the bundle says which they are and why.
    source
        Where data come from, as in `open_dataarray`.

    Returns
    -------
    Packed
        The bundle as a source, and what was fetched and kept.

    Raises
    ------
    BundleError
        If the target cannot be written, holds something else, or images cannot be had.
    ValueError, TypeError
        If an option cannot be used, before anything is read.
    DatasetNotFoundError, RegistrationError, APIError
        As `open_dataarray`.

    See Also
    --------
    verify_bundle : Whether everything in a bundle is there and sound.

    Examples
    --------
    >>> import atldld, tempfile
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> folder = tempfile.TemporaryDirectory()
    >>> with AllenServer([phantom_dataset(1001, sections=3)]) as server:
    ...     packed = atldld.pack(1001, f"{folder.name}/phantom.zip", source=server.url)
    >>> packed.fetched
    3
    >>> sections = atldld.open_dataarray(1001, source=f"{folder.name}/phantom.zip")
    >>> sections.isel(section=1).compute().dtype
    dtype('uint8')
    >>> folder.cleanup()
    """
    if not isinstance(on_error, str) or on_error not in ("raise", "skip"):
        raise ValueError(f"on_error is {on_error!r}; it must be 'raise' or 'skip'")
    if chunks is not None and not (isinstance(chunks, str) and chunks == "auto"):
        raise ValueError(f"chunks is {chunks!r}; a bundle is packed for 'auto' or None")
    location = Location.of(target)
    request = PackRequest(
        resolution=25 if resolution is None else resolution,
        tiers=None if tiers is None else _several("tiers", tiers, range(MOST_TIERS)),
        views=_several("views", views, VIEWS),
        region=region,
        mapping=mapping,
        detection_xy=detection_xy,
        interpolation=interpolation,
        reference_space=reference_space,
        chunks=chunks,
    )
    plan = plan_packing(source_from(source), dataset_id, request)
    with target_at(location) as goal:
        packing = Packing(plan, goal, location.name)
        manifest = packing.run(skip=on_error == "skip")
    return Packed(
        source=BundleSource.at(target),
        dataset_id=manifest.dataset_id,
        files=len(manifest.files),
        bytes=sum(entry.size for entry in manifest.files.values()),
        fetched=packing.fetched,
        kept=packing.kept,
        failed=tuple(sorted(manifest.failed)),
    )


def _several(name: str, value: Any, known: Collection[Any]) -> tuple[Any, ...]:
    """Return one or several values of an option, each once and each a known one."""
    values = [value] if isinstance(value, str) or not isinstance(value, Sequence) else value
    several: list[Any] = []
    for each in values:
        if isinstance(each, bool) or not isinstance(each, str | int | np.integer):
            raise TypeError(f"{name} has {each!r}; it must be {_words(known)}, or several")
        if each not in known:
            raise ValueError(f"{name} has {each!r}; it must be {_words(known)}, or several")
        if each not in several:
            several.append(each)
    if not several:
        raise ValueError(f"{name} is empty; leave it out, or name at least one")
    return tuple(several)


def _words(known: Collection[Any]) -> str:
    if isinstance(known, range):
        return f"a whole number from {known.start} to {known.stop - 1}"
    return f"one of {', '.join(map(repr, known))}"
