"""What openings can be asked for: each option with its default, its check and what it means.

The options of a function are a TypedDict, whose annotations hold an `Option` each. From these come
the signature and the docstring of the function (`takes`), and the checks before anything is read.
"""

import inspect
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache, partial
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypedDict, TypeVar, get_args, get_type_hints

import numpy as np
import xarray as xr

from ..errors import RegistrationError
from ..model import affine
from ..model.checks import (
    LARGEST_ID,
    checked_choice,
    checked_flag,
    finite,
    listed,
    near,
    pair,
    positive,
    whole_number,
)
from ..model.read import VIEWS, View
from ..model.registration import Registration
from ..model.registration_files import FORMS, parse_registration, registration_of
from ..model.sections import Detection
from ..model.space import AXES
from ..sampling.reads import INTERPOLATIONS, Interpolation
from ..source import Source
from ..source.published import PublishedRegistration
from .volumes import Between

Region = dict[str, tuple[float, float]]
Chunks = Literal["auto"] | Mapping[str, Any] | None
F = TypeVar("F", bound=Callable[..., Any])

_LARGEST_FILE = 64 * 2**20

LARGEST_TIER = 30
"""Times that a side may be halved: beyond, nothing is left of any image."""


def _is(value: Any, word: str) -> bool:
    return isinstance(value, str) and value == word


def checked_id(name: str, value: Any) -> int:
    """Return the id of a dataset or image."""
    if isinstance(value, str):
        way = "without quotes" if value.strip().isdigit() else f"atldld.search({value!r}) finds ids"
        raise TypeError(f"{name} is {value!r}; it must be a whole number: {way}")
    return whole_number(name, value, 0, LARGEST_ID)


def checked_detection(value: Any) -> Detection:
    """Return None, ``"center"`` or the x and y of a pixel."""
    if value is None or _is(value, "center"):
        return value  # type: ignore[no-any-return]  # narrowed by _is
    if isinstance(value, str):
        raise ValueError(f"detection_xy is {value!r}; it must be None, 'center' or (x, y)")
    return pair("detection_xy", value)


def checked_region(value: Any, axes: Sequence[str] = AXES) -> Region:
    """Return the ends of each axis that a region names, the lower first; None is no region."""
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise TypeError(f"region is {value!r}; it must be a dict such as {{'p': (6000, 7000)}}")
    region = {}
    for axis, ends in value.items():
        if axis not in axes:
            raise ValueError(f"region has {axis!r}; its axes are {', '.join(map(repr, axes))}")
        low, high = pair(f"region {axis}", ends)
        if low > high:
            raise ValueError(f"region {axis} is ({low:g}, {high:g}); the lower end comes first")
        region[str(axis)] = low, high
    return region


def checked_chunks(value: Any) -> Chunks:
    """Return ``"auto"``, None or a dict."""
    if value is None or _is(value, "auto"):
        return value  # type: ignore[no-any-return]  # narrowed by _is
    if not isinstance(value, Mapping):
        raise TypeError(f"chunks is {value!r}; it must be 'auto', None or a dict of dimensions")
    for name, size in value.items():
        if isinstance(size, int | np.integer) and (size == 0 or size < -1):
            raise ValueError(
                f"chunks has {size} for {name!r}; it must be 1 or more, or -1 for all in one"
            )
    return dict(value)


def checked_space(value: Any) -> int | Literal["native"]:
    """Return ``"native"``, 9 or 10."""
    if _is(value, "native"):
        return "native"
    if isinstance(value, str):
        way = ""
        if value.lower().startswith("ccf"):
            way = (
                ". Datasets lie in Allen's 2011 space, and no formula leads to CCFv3: a "
                "registration does, registration=..."
            )
        raise ValueError(f"reference_space is {value!r}; it must be 'native', 9 or 10{way}")
    number = whole_number("reference_space", value, 0, 2**31)
    if number not in (9, 10):
        raise ValueError(f"reference_space is {number}; it must be 'native', 9 or 10")
    return number


def _tier(value: Any) -> int | Literal["auto"]:
    if isinstance(value, str) and value != "auto":
        raise TypeError(f"tier is {value!r}; it must be 'auto' or a whole number, without quotes")
    return "auto" if _is(value, "auto") else whole_number("tier", value, 0, LARGEST_TIER)


def _fill_value(value: Any) -> int | None:
    return None if value is None else whole_number("fill_value", value, 0, 255)


def _max_distance(value: Any) -> float | None:
    if value is None:
        return None
    distance = finite("max_distance", value)
    if distance < 0:
        raise ValueError(f"max_distance is {distance:g}; it must be a number of microns, 0 or more")
    return distance


def registration_from(value: Any, *, mirror: bool = False) -> Registration | PublishedRegistration:
    """Return the registration that a user gave.

    Parameters
    ----------
    value
        Path of a file of QuickNII, VisuAlign or DeepSlice; folder or fsspec URL of a published
        registration; a mapping of what a JSON file of them
        holds; a mapping from section numbers or image ids to nine numbers; or a `Registration`.
    mirror
        Whether to turn left and right over.

    Raises
    ------
    TypeError
        If it is none of these.
    FileNotFoundError
        If there is no such file.
    RegistrationError
        If the file does not say where sections lie.
    """
    if isinstance(value, Registration | PublishedRegistration):
        return value
    if isinstance(value, Mapping):
        return registration_of(value, name="a mapping", mirror=mirror)
    if not isinstance(value, str | os.PathLike):
        raise TypeError(
            f"registration is {type(value).__name__}; it must be the path of {FORMS}, or a mapping"
        )
    if "://" in os.fspath(value) or Path(value).is_dir():
        if mirror:
            raise ValueError("mirror is for files; open with the published registration as it is")
        return PublishedRegistration.at(os.fspath(value))
    path = Path(value)
    if not path.is_file():
        raise FileNotFoundError(f"there is no registration file {path}")
    with path.open("rb") as file:
        body = file.read(_LARGEST_FILE + 1)
    if len(body) > _LARGEST_FILE:
        raise RegistrationError(
            f"{path.name} has more than {_LARGEST_FILE // 2**20} MiB; it must be {FORMS}"
        )
    return parse_registration(body, name=path.name, mirror=mirror)


def _registration(value: Any) -> Registration | PublishedRegistration | None:
    return None if value is None else registration_from(value)


def _optional_id(value: Any) -> int | None:
    return None if value is None else checked_id("dataset_id", value)


def _as_it_is(value: Any) -> Any:
    return value


@dataclass(frozen=True, slots=True, eq=False)
class Option:
    """What an option is if it is not given, and how a value for it is checked.

    Parameters
    ----------
    default
        In its own type.
    check
        Returns a value in its own type, or says what is wrong with it.
    """

    default: Any
    check: Callable[[Any], Any]


class ReadOptions(TypedDict, total=False):
    """What all openings can be asked for.

    Parameters
    ----------
    view
        ``"image"``, ``"projection"``, ``"expression"`` (Allen's coloured heat map), or
        ``"expression_mask"`` (its grey levels: one value a pixel, no ``channel`` dimension). A
        section without an expression mask is left out of the expression views.
    on_error
        What to do about an image that cannot be had. ``"raise"``: an `ImageError` that names
        it. ``"fill"``: it is filled and does not count as covered, with a warning, and
        ``.atlas.failures()`` tells afterwards; docs/reliability.md says what that costs. Either
        way, with ``tier="auto"`` a neighbouring tier serves for an image that is bad at its
        tier, and ``.atlas.failures()`` tells.
    source
        Where data come from: None, the service of ``set_options(api_url=...)``; the base URL of a
        service; the path or fsspec URL of a bundle; or a `Source`.
    """

    view: Annotated[View, Option("image", partial(checked_choice, "view", known=VIEWS))]
    on_error: Annotated[
        Literal["raise", "fill"],
        Option("raise", partial(checked_choice, "on_error", known=("raise", "fill"))),
    ]
    source: Annotated[str | Source | None, Option(None, _as_it_is)]


class GridOptions(ReadOptions, total=False):
    """What openings that put sections onto a grid can be asked for as well.

    Parameters
    ----------
    tier
        Image tier: how many times each side of the source image is halved. ``"auto"`` takes,
        for each section, the coarsest tier whose pixel, measured in reference microns along its
        longer axis, is not larger than a grid step. No section is read past its last tier.
    interpolation
        Within a section: ``"nearest"``, ``"linear"``, ``"cubic"`` or ``"area"``; ``"auto"`` is
        linear, but area where a grid step spans more than 1.5 source pixels.
    masked
        Whether to give float32 with NaN where nothing is shown, for arithmetic: uint8 wraps,
        and a fill value enters a mean.
    """

    tier: Annotated[int | Literal["auto"], Option("auto", _tier)]
    interpolation: Annotated[
        Literal["auto", "nearest", "linear", "cubic", "area"],
        Option("auto", partial(checked_choice, "interpolation", known=("auto", *INTERPOLATIONS))),
    ]
    masked: Annotated[bool, Option(False, partial(checked_flag, "masked"))]


class SectionOptions(GridOptions, total=False):
    """What openings of sections can be asked for.

    Parameters
    ----------
    resolution
        Microns between grid points in the section plane, above 0.
    mapping
        ``"oblique"``: each section is sampled on its own tilted plane, so that both in-plane
        coordinates of the grid are exact. ``"parallel"``: on a plane of constant p (or r, or
        i), the approximation of `atldld.sync.get_parallel_transform`. Neither makes the slice
        coordinate right for every pixel of a tilted section: it stands for the section.
    detection_xy
        What gives a section its slice coordinate. None: where its plane meets the middle line
        of the space, which is even and strictly monotone. ``(x, y)``: the place of that
        full-resolution pixel. ``"center"``: the place of the middle of the image.
    region
        ``{"p": (low, high), "i": ..., "r": ...}`` in microns, ends included: cuts the grid in
        the plane, before anything is chunked. Along the slicing axis it keeps every section
        whose plane passes through the box anywhere on that part of the grid: a tilted section
        belongs to a box that its slice coordinate lies outside of. (With ``mapping="parallel"``
        what counts is where the pixels lie that are shown, and the grid is cut so that none of
        them is lost.)
    fill_value
        Value where nothing is covered, with ``masked=False``: by default 255 for bright field,
        0 for fluorescence and expression.
    chunks
        ``"auto"``: as many whole sections as fit into 16 MiB, at most 8; a larger plane is
        split into pieces of at most 16 MiB. A dict as in xarray. None: no dask; the array is
        read when it is indexed.
    reference_space
        ``"native"``, or 9 or 10: r of the other space is ``11350 - r``.
    registration
        A better registration in the place of Allen's affine one: the path of a file of QuickNII,
        VisuAlign or DeepSlice (``.atlas.to_quicknii`` writes one to start from), what such a
        file holds, or a mapping from section numbers or image ids to nine numbers; or the folder
        or fsspec URL of a published registration, whose files are fetched section by section.
        p, i, r are then those of its atlas, CCFv3, and so says ``reference_space``. Sections
        that it does not place are left out, with a warning.
    """

    resolution: Annotated[float, Option(25, partial(positive, "resolution"))]
    mapping: Annotated[
        Literal["oblique", "parallel"],
        Option("oblique", partial(checked_choice, "mapping", known=get_args(affine.Mapping))),
    ]
    detection_xy: Annotated[
        tuple[float, float] | Literal["center"] | None, Option(None, checked_detection)
    ]
    region: Annotated[Mapping[str, tuple[float, float]] | None, Option(None, checked_region)]
    fill_value: Annotated[int | None, Option(None, _fill_value)]
    chunks: Annotated[Literal["auto"] | Mapping[str, Any] | None, Option("auto", checked_chunks)]
    reference_space: Annotated[Literal["native", 9, 10], Option("native", checked_space)]
    registration: Annotated[
        str | os.PathLike[str] | Mapping[Any, Any] | Registration | PublishedRegistration | None,
        Option(None, _registration),
    ]


class DatasetOptions(SectionOptions, total=False):
    """What `open_dataset` can be asked for.

    Parameters
    ----------
    include_expression
        Whether to add Allen's coloured expression heat map as ``expression``. A section that
        has none is filled there (NaN if masked), and ``has_expression`` is False for it.
    annotation
        Structure ids over p, i and r, as from `open_annotation`, or its name or path: adds
        ``structure_id``, the label at the exact place of every pixel. As a mask it leaves out
        what lies outside the brain; it is the key of a groupby, and the borders of a picture.
    """

    include_expression: Annotated[bool, Option(False, partial(checked_flag, "include_expression"))]
    annotation: Annotated[xr.DataArray | str | os.PathLike[str] | None, Option(None, _as_it_is)]


class VolumeOptions(GridOptions, total=False):
    """What openings of volumes can be asked for.

    Parameters
    ----------
    resolution
        Microns between voxels along p, i and r; voxel k is centred on ``k * resolution``, with
        ``floor(extent / resolution)`` voxels an axis.
    like
        An array with coordinates p, i and r, in microns: the volume has its nodes instead, to
        the last bit, so that ``xr.align(volume, like, join="exact")`` holds. They must lie on
        an evenly spaced lattice along each axis, or be picked from one. Where `like` says which
        reference space it lies in, so does the volume. ``tier="auto"`` then goes by the
        smallest of its steps.
    max_distance
        Microns of the image stack. By default the larger of 100 and half the median gap between
        neighbouring sections of the whole dataset.
    between
        ``"nearest"``: the pixel of the nearest section. ``"linear"``: a voxel that shows a
        section takes a share of the other one that it lies between as well, by distance in z,
        where that one covers it too.
    mirror
        Whether a voxel that shows no section takes what its mirror image about the midline of
        the atlas shows (r = 5675 microns in spaces 9 and 10). Sagittal datasets hold one
        hemisphere. The variable ``mirrored`` marks such voxels: they are a guess, not data.
    region
        ``{"p": (low, high), "i": ..., "r": ...}`` in microns, ends included; cuts the volume.
    chunks
        ``"auto"``: slabs along the slicing axis (of one dataset), of at most 16 MiB (4 MiB with
        ``between="linear"``). A dict as in xarray. None: no dask.
    reference_space
        ``"native"``, or 9 or 10: r of the other space is ``11350 - r``. Voxels are sampled
        where they are in that space; nothing is resampled. Sagittal datasets lie in 10 and
        coronal ones in 9: to have both in one array, say which.
    registration
        Another registration in the place of Allen's, as for `open_dataarray`; a published one
        places each dataset by its animal. Sections that are placed one by one are not parallel: a
        voxel shows the section nearest to it along the slicing axis, and `max_distance` and
        ``distance`` are microns along that axis.
    """

    resolution: Annotated[float, Option(25, partial(positive, "resolution"))]
    like: Annotated[xr.DataArray | xr.Dataset | None, Option(None, _as_it_is)]
    max_distance: Annotated[float | None, Option(None, _max_distance)]
    between: Annotated[
        Between, Option("nearest", partial(checked_choice, "between", known=get_args(Between)))
    ]
    mirror: Annotated[bool, Option(False, partial(checked_flag, "mirror"))]
    region: Annotated[Mapping[str, tuple[float, float]] | None, Option(None, checked_region)]
    chunks: Annotated[Literal["auto"] | Mapping[str, Any] | None, Option("auto", checked_chunks)]
    reference_space: Annotated[Literal["native", 9, 10], Option("native", checked_space)]
    registration: Annotated[Any, Option(None, _registration)]


class ImageOptions(ReadOptions, total=False):
    """What `open_image` can be asked for.

    Parameters
    ----------
    tier
        How many times each side of the image is halved; 0 is full resolution.
    region
        What to cut out, ends included: ``{"x": (low, high), "y": ...}`` in full-resolution
        pixels; or ``{"p": (low, high), "i": ..., "r": ...}`` in microns, for the rectangle
        around what lies within. Both may be mixed; an axis that is not named is whole.
    chunks
        ``"auto"``: squares of 2048 pixels, with edges at multiples of 2048 of the tier,
        whatever the region. A dict as in xarray. None: no dask.
    reference_space
        The space of p, i, r: ``"native"``, or 9 or 10 (r of the other one is ``11350 - r``).
    registration
        Another registration in the place of Allen's, as for `open_dataarray`: p, i, r are then
        those of its space, through the bend of a section that has one. The pixels are the same.
    dataset_id
        The dataset that the image belongs to, if you know: that saves a search.
    """

    tier: Annotated[int, Option(0, partial(whole_number, "tier", least=0, most=LARGEST_TIER))]
    region: Annotated[
        Mapping[str, tuple[float, float]] | None,
        Option(None, partial(checked_region, axes=("x", "y", *AXES))),
    ]
    chunks: Annotated[Literal["auto"] | Mapping[str, Any] | None, Option("auto", checked_chunks)]
    reference_space: Annotated[Literal["native", 9, 10], Option("native", checked_space)]
    registration: Annotated[Any, Option(None, _registration)]
    dataset_id: Annotated[int | None, Option(None, _optional_id)]


_KINDS = (
    ReadOptions, GridOptions, SectionOptions, DatasetOptions, VolumeOptions, ImageOptions,
)  # fmt: skip
_ORDER = (
    "include_expression", "annotation", "resolution", "like", "max_distance", "between", "mirror",
    "tier", "view", "mapping", "detection_xy", "region", "interpolation", "masked", "fill_value",
    "chunks", "reference_space", "registration", "dataset_id", "on_error", "source",
)  # fmt: skip


@cache
def options_of(kind: type) -> dict[str, Option]:
    """Return the options of a function by name, in the order in which they are told."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hints[name].__metadata__[0] for name in sorted(hints, key=_ORDER.index)}


@cache
def _meanings() -> dict[Option, str]:
    """Return the part of a docstring that says what an option means."""
    found: dict[Option, str] = {}
    for kind in _KINDS:
        text = inspect.cleandoc(kind.__doc__ or "").partition("----------\n")[2]
        for each in re.split(r"^(?=\w+\n)", text, flags=re.MULTILINE)[1:]:
            found[options_of(kind)[each.partition("\n")[0]]] = each.rstrip() + "\n"
    return found


def takes(kind: type) -> Callable[[F], F]:
    """Give a function that takes ``**options`` their signature, and say what they mean.

    Parameters
    ----------
    kind
        The TypedDict of its options. What they mean takes the place of ``**options`` and the line
        below it in the docstring.
    """

    def signed(function: F) -> F:
        signature, hints = inspect.signature(function), get_type_hints(kind)
        first = [each for each in signature.parameters.values() if each.kind != each.VAR_KEYWORD]
        given = [
            inspect.Parameter(
                name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=hints[name]
            )
            for name, option in options_of(kind).items()
        ]
        wanted: Any = function
        wanted.__signature__ = signature.replace(parameters=[*first, *given])
        if function.__doc__:
            before, _, after = inspect.cleandoc(function.__doc__).partition("**options\n")
            meanings = "".join(_meanings()[option] for option in options_of(kind).values())
            function.__doc__ = before + meanings + after.partition("\n")[2]
        return function

    return signed


def checked_options(kind: type, whose: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of a function, each in its own type, with defaults for the others.

    Parameters
    ----------
    kind
        The TypedDict of the options.
    whose
        What has these options, for messages.
    given
        What a user gave.

    Raises
    ------
    ValueError, TypeError
        If one of them cannot be used.
    """
    known = options_of(kind)
    check_names(list(known), whose, given)
    found = {name: option.check(given.get(name, option.default)) for name, option in known.items()}
    if found.get("masked") and found.get("fill_value") is not None:
        raise ValueError("masked=True puts NaN where nothing is covered; leave out fill_value")
    return found


def check_names(known: Sequence[str], whose: str, given: Mapping[str, Any]) -> None:
    """Refuse options that are not known; the message says which are."""
    for name in given:
        if name not in known:
            raise TypeError(
                f"{name!r} is no option of {whose}; {near(name, known)}The options are "
                f"{listed(known)}"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class SectionRequest:
    """What is asked of an opening that puts sections onto a grid, checked."""

    dataset_id: int
    resolution: float
    tier: int | Literal["auto"]
    view: View
    region: Region
    interpolation: Interpolation | Literal["auto"]
    masked: bool
    chunks: Chunks
    reference_space: int | Literal["native"]
    on_error: Literal["raise", "fill"]
    registration: Registration | PublishedRegistration | None = None
    mapping: affine.Mapping = "oblique"
    detection_xy: Detection = None
    fill_value: int | None = None

    @classmethod
    def of(cls, dataset_id: Any, options: Mapping[str, Any]) -> Self:
        """Return a request of checked options; those that are for others are passed over."""
        names = {field.name for field in fields(cls)} & set(options)
        number = checked_id("dataset_id", dataset_id)
        return cls(dataset_id=number, **{name: options[name] for name in names})


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRequest(SectionRequest):
    """What is asked of an opening of volumes, checked."""

    max_distance: float | None
    between: Between
    mirror: bool
