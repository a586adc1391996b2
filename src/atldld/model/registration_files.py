"""Files that say where sections lie: of QuickNII, VisuAlign, WebAlign and DeepSlice.

All of them list pictures with nine numbers each (see `anchoring`), and differ in how:

========================  =========================================================
QuickNII, VisuAlign,      JSON: ``target`` and ``slices`` with ``filename``, ``nr``,
DeepSlice                 ``width``, ``height``, ``anchoring`` and ``markers``
WebAlign (``.waln``)      JSON: ``atlas`` and ``sections``, where the nine are called ``ouv``
DeepSlice (``.csv``)      a column each for ``Filenames`` and ``ox`` to ``vz``
QuickNII (``.xml``)       ``series`` of ``slice``, the nine as ``ox=1&oy=2...``
========================  =========================================================

What is in them was written by many programs and edited by hand: a number may be a text, and what
is missing may be NaN.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal
from xml.etree import ElementTree

import numpy as np

from ..errors import RegistrationError
from .anchoring import DEFAULT_TARGET, NINE, Target, corners_of
from .bend import Marker
from .registration import Named, Placement, Registration
from .space import P56_EXTENT, space_name

MARK = "atldld"
"""Key of what our own files say beyond the anchorings."""

FORMS = "a file of QuickNII (.json, .xml), VisuAlign (.json, .waln) or DeepSlice (.json, .csv)"

_KEY = "key of a mapping"
_LARGEST_NUMBER = 2**31
_FEWEST_DIGITS = 5
"""Of the id of an image at the service; the numbers of sections have at most four."""


@dataclass(frozen=True, slots=True)
class _Content:
    """What a file holds: the name of its atlas, how many voxels that has, and the entries."""

    target: Any
    shape: Any
    entries: Sequence[Any]


def parse_registration(body: bytes, *, name: str, mirror: bool = False) -> Registration:
    """Return the registration that a file describes.

    Parameters
    ----------
    body
        What is in the file.
    name
        Its name; the ending says its form.
    mirror
        Whether to turn left and right over, ``r -> 11400 - r``.

    Raises
    ------
    RegistrationError
        If it is not such a file, its atlas is not known, or the place of a picture is none.
    """
    checksum = hashlib.sha256(body).hexdigest()
    ending = name.lower().rpartition(".")[2]
    if ending in ("csv", "xml"):
        content = (_csv if ending == "csv" else _xml)(body, name)
        return _registration(content, "CCFv3", name, checksum, mirror)
    try:
        read = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RegistrationError(f"{name} is no JSON file: {error}; it must be {FORMS}") from None
    if not isinstance(read, Mapping) or not {"slices", "sections"} & set(read):
        raise RegistrationError(f"{name} has no slices; it must be {FORMS}")
    return registration_of(read, name=name, checksum=checksum, mirror=mirror)


def registration_of(
    content: Mapping[Any, Any], *, name: str, checksum: str | None = None, mirror: bool = False
) -> Registration:
    """Return the registration that a mapping describes.

    Parameters
    ----------
    content
        What a JSON file holds; or a mapping from section number or image id to nine numbers, in
        voxels of CCFv3 at 25 microns.
    name
        What to call it.
    checksum
        SHA-256 of the file; None for that of the content.
    mirror
        Whether to turn left and right over, ``r -> 11400 - r``.

    Raises
    ------
    RegistrationError
        As `parse_registration`.
    """
    if {"slices", "sections"} & set(content):
        key = "slices" if "slices" in content else "sections"
        entries = content[key]
        if not isinstance(entries, Sequence) or isinstance(entries, str | bytes):
            raise RegistrationError(f"{name}: {key} is no list")
        target = content.get("target", content.get("atlas"))
        read = _Content(target, content.get("target-resolution"), entries)
        space = "CCFv3" if mirror else _space(content, entries)
    else:
        read, space = _Content(DEFAULT_TARGET, None, _keyed(content)), "CCFv3"
    return _registration(read, space, name, checksum, mirror)


def anchorings_checksum(slices: Iterable[Any]) -> str:
    """Return the checksum by which a file of ours knows that nobody moved or bent its sections."""
    moved = [
        [each.get("nr"), each.get("anchoring"), *([each["markers"]] if each.get("markers") else [])]
        for each in slices
    ]
    return hashlib.sha256(json.dumps(moved).encode()).hexdigest()


def _space(content: Mapping[Any, Any], slices: Sequence[Any]) -> Literal[9, 10, "CCFv3"]:
    """Return the space of anchorings: Allen's own in a file of ours that nobody changed."""
    mark = content.get(MARK)
    if not isinstance(mark, Mapping) or not all(isinstance(each, Mapping) for each in slices):
        return "CCFv3"
    try:
        changed = mark.get("anchorings") != anchorings_checksum(slices)
    except (TypeError, ValueError, RecursionError):
        changed = True
    known: dict[Any, Literal[9, 10]] = {9: 9, 10: 10}
    space = mark.get("reference_space")
    return known.get(space, "CCFv3") if not changed and isinstance(space, int) else "CCFv3"


def _registration(
    content: _Content,
    space: Literal[9, 10, "CCFv3"],
    name: str,
    checksum: str | None,
    mirror: bool,
) -> Registration:
    try:
        target = Target.named(content.target)
    except ValueError as error:
        raise RegistrationError(f"{name}: {error}") from None
    told = content.shape
    if told is not None and (not isinstance(told, Sequence) or list(told) != list(target.shape)):
        raise RegistrationError(
            f"{name}: target-resolution is {_short(told)}, but {target.name} has "
            f"{list(target.shape)} voxels"
        )
    placements = []
    for number, each in enumerate(content.entries):
        if not isinstance(each, Mapping):
            raise RegistrationError(f"{name}: slice {number} is no object")
        placements.append(_placement(each, _label(each, number), target, name))
    placements = _without_shared(placements)
    if mirror:
        placements = [each.mirrored(P56_EXTENT[2]) for each in placements]
    if checksum is None:
        checksum = hashlib.sha256(repr((target, placements)).encode()).hexdigest()
    return Registration(name, checksum, space_name(space), space, tuple(placements))


def _label(entry: Mapping[Any, Any], number: int) -> str:
    file = entry.get("filename")
    return file if isinstance(file, str) and file else f"slice {number}"


def _anchoring(entry: Mapping[Any, Any], label: str, name: str) -> list[float] | None:
    """Return nine numbers, or None where there are none."""
    given = entry.get("anchoring", entry.get("ouv"))
    if given is None or (isinstance(given, Sequence) and not given):
        return None
    numbers = None
    if isinstance(given, Sequence | np.ndarray) and not isinstance(given, str | bytes):
        numbers = [_number(value) for value in given]
    if numbers is None or len(numbers) != len(NINE) or any(value is None for value in numbers):
        raise RegistrationError(f"{name}: the anchoring of {label} is not nine numbers")
    known = [value for value in numbers if value is not None and math.isfinite(value)]
    return known if len(known) == len(NINE) else None


def _placement(entry: Mapping[Any, Any], label: str, target: Target, name: str) -> Placement:
    anchoring = _anchoring(entry, label, name)
    corners = () if anchoring is None else corners_of(anchoring, target).tolist()
    file = entry.get("filename")
    named = _named(file if isinstance(file, str) else "")
    if _KEY in entry:
        named = Named(numbers=(entry[_KEY],), section=entry[_KEY])
    size = _size(entry)
    return Placement(
        label=label,
        named=named,
        # The name says what the picture was made from; DeepSlice takes nr from it too.
        section_number=_whole(entry.get("nr")) if named.section is None else named.section,
        size=size,
        corners=tuple((p, i, r) for p, i, r in corners),
        markers=_markers(entry.get("markers"), size, label, name),
    )


def _markers(given: Any, size: tuple[int, int] | None, label: str, name: str) -> tuple[Marker, ...]:
    if given is None:
        return ()
    markers = []
    if isinstance(given, Sequence) and not isinstance(given, str | bytes):
        for each in given:
            numbers = list(map(_number, each)) if isinstance(each, list | tuple) else []
            if len(numbers) == 4 and all(n is not None and math.isfinite(n) for n in numbers):
                markers.append(tuple(numbers))
    if not isinstance(given, Sequence) or len(markers) != len(given):
        raise RegistrationError(f"{name}: the markers of {label} are not four numbers each")
    if markers and size is None:
        raise RegistrationError(
            f"{name}: {label} has markers, but no width and height for them to count in"
        )
    return tuple(markers)  # type: ignore[arg-type]  # four numbers each, as checked


def _named(file: str) -> Named:
    """Return what the name of a picture says about which section it is.

    Examples
    --------
    >>> _named("1435/10um/101317018_s0219.jpg")
    Named(numbers=(101317018,), images=(101317018,), folders=(1435,), section=219)
    >>> _named("thumbnails/mouse7_s003.png")
    Named(numbers=(7,), images=(), folders=(), section=3)
    """
    *folders, base = re.split(r"[/\\]", file)
    sections = re.findall(r"_s(\d+)", base)
    rest = re.sub(r"_s\d+|\d+um|\.\w+$", "_", base)
    found = re.findall(r"(image_|)(?<!\d)(\d{1,18})(?!\d)", rest)
    return Named(
        numbers=tuple(int(digits) for _, digits in found),
        images=tuple(
            int(digits)
            for before, digits in found
            if before or (len(digits) >= _FEWEST_DIGITS and digits[0] != "0")
        ),
        folders=tuple(int(each) for each in folders if re.fullmatch(r"\d{1,18}", each)),
        section=_whole(sections[-1]) if sections else None,
    )


def _without_shared(placements: list[Placement]) -> list[Placement]:
    """Return entries without the numbers that the names of all hold: they tell none apart."""
    if len(placements) < 2:
        return placements
    shared = set.intersection(*(set(each.named.numbers) for each in placements))
    return [each.not_named(shared) for each in placements] if shared else placements


def _size(entry: Mapping[Any, Any]) -> tuple[int, int] | None:
    size = tuple(map(_number, (entry.get("width"), entry.get("height"))))
    if all(side is not None and 1 <= side < _LARGEST_NUMBER for side in size):
        return int(size[0]), int(size[1])  # type: ignore[arg-type]  # both are numbers
    return None


def _whole(value: Any) -> int | None:
    """Return a whole number given as such, as a float or as text; None for anything else."""
    number = _number(value)
    if number is None or not abs(number) < _LARGEST_NUMBER or number != int(number):
        return None
    return int(number)


def _number(value: Any) -> float | None:
    """Return a number given as such or as text, perhaps NaN; None for anything else."""
    if value is None or value == "":
        return math.nan
    if isinstance(value, bool) or not isinstance(value, int | float | str | np.number):
        return None
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _keyed(content: Mapping[Any, Any]) -> list[dict[str, Any]]:
    """Return the entries of a mapping from section number or image id to nine numbers."""
    entries = []
    for key, anchoring in content.items():
        if not isinstance(key, int | np.integer) or isinstance(key, bool):
            raise RegistrationError(
                f"a registration is keyed by section number or image id, not by {_short(key)}"
            )
        numbers = anchoring.ravel().tolist() if isinstance(anchoring, np.ndarray) else anchoring
        entries.append(
            {"filename": f"section or image {key}", _KEY: int(key), "anchoring": numbers}
        )
    return entries


def _csv(body: bytes, name: str) -> _Content:
    """Return the rows of a table as entries; its atlas is that of the program's mouse model."""
    try:
        rows = list(csv.DictReader(io.StringIO(body.decode("utf-8-sig"), newline="")))
    except (ValueError, csv.Error) as error:
        raise RegistrationError(f"{name} is no CSV file: {error}; it must be {FORMS}") from None
    entries = []
    for row in rows:
        lower = {str(key).strip().lower(): value for key, value in row.items()}
        lacking = [column for column in ("filenames", *NINE) if column not in lower]
        if lacking:
            raise RegistrationError(
                f"{name} has no column {lacking[0]!r}; a table of DeepSlice has Filenames and "
                f"{', '.join(NINE)}"
            )
        nine = [lower[column] for column in NINE]
        entries.append({**lower, "filename": lower["filenames"], "anchoring": nine})
    return _Content(DEFAULT_TARGET, None, entries)


def _xml(body: bytes, name: str) -> _Content:
    """Return the slices of a series as entries."""
    try:
        root = ElementTree.fromstring(body)
        slices = [
            {**{child.tag: child.text for child in each}, **each.attrib}
            for each in root.iter("slice")
        ]
    except (ElementTree.ParseError, ValueError, RecursionError) as error:
        raise RegistrationError(f"{name} is no XML file: {error}; it must be {FORMS}") from None
    if root.tag != "series":
        raise RegistrationError(f"{name} has no series of slices; it must be {FORMS}")
    entries: list[dict[str, Any]] = []
    for each in slices:
        nine = dict(re.findall(r"(\w\w)=([^&\s]*)", each.get("anchoring") or ""))
        entry: dict[str, Any] = {**each, "anchoring": [nine.get(key, "") for key in NINE]}
        entries.append(entry if nine else {**entry, "anchoring": None})
    return _Content(root.attrib.get("target", DEFAULT_TARGET), None, entries)


def _short(value: Any) -> str:
    try:
        text = repr(value)
    except RecursionError:
        text = type(value).__name__
    return text if len(text) <= 80 else f"{text[:77]}..."
