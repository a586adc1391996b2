"""Reading typed fields out of RMA rows, which may lack anything.

Every column of the service but ``id`` may be null, and associations may be absent, null, or
hold nulls.
"""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from typing import Any

from ..errors import RegistrationError

Row = Mapping[str, Any]
Matrix = tuple[tuple[float, ...], ...]

_LAYOUT_2D = ((0, 1, 4), (2, 3, 5))
_LAYOUT_3D = ((0, 1, 2, 9), (3, 4, 5, 10), (6, 7, 8, 11))
"""Where the service's numbered entries stand: linear part row by row, translation last."""

ENTRIES = {
    name: tuple(f"{name}_{place:02d}" for place in range(count))
    for name, count in (("tsv", 6), ("tvs", 6), ("tvr", 12), ("trv", 12))
}
"""What the service calls the entries of each matrix, in their order."""

_LONGEST_TEXT = 100
_MOST_TEXTS = 8
_LARGEST_INTEGER = 2**53
_LARGEST_ENTRY = 1e9
"""Of a matrix: a kilometre or a gigapixel. Products of larger ones might overflow."""


def shown(value: Any) -> str:
    """Return how a value of a row reads in a message, which stays short whatever it is."""
    if type(value) is int and abs(value) <= _LARGEST_INTEGER:
        return str(value)
    return reprlib.repr(value)


def integer(
    row: Row, field: str, owner: str, *, least: int | None = None, most: int = _LARGEST_INTEGER
) -> int:
    """Return a whole number, or raise a `RegistrationError` that names owner and field."""
    value = row.get(field)
    if type(value) is float and value.is_integer():
        value = int(value)
    if type(value) is not int:
        raise RegistrationError(f"{owner}: {field} is {shown(value)}; it must be a whole number")
    lowest = -most if least is None else least
    if not lowest <= value <= most:
        bound = f"at most {most}" if value > most else f"at least {lowest}"
        raise RegistrationError(
            f"{owner}: {field} is {shown(value)}; it must be a whole number of {bound}"
        )
    return value


def optional_integer(
    row: Row, field: str, owner: str, *, least: int | None = None, most: int = _LARGEST_INTEGER
) -> int | None:
    """Return a whole number, or None where the field is null or absent."""
    if row.get(field) is None:
        return None
    return integer(row, field, owner, least=least, most=most)


def whole_or_none(value: Any, least: int = 1 - _LARGEST_INTEGER) -> int | None:
    """Return a whole number that is at least something, or None for anything else."""
    whole = isinstance(value, int) and not isinstance(value, bool)
    return value if whole and least <= value < _LARGEST_INTEGER else None


def ages(row: Row, specimen: Row) -> Iterator[str]:
    """Yield the ages that the donor of a specimen, and a dataset itself, are said to have."""
    donor = next(iter(records(specimen.get("donor"))), {})
    yield from (*texts(records(donor.get("age")), "name"), *texts([row], "age"))


def positive(row: Row, field: str, owner: str, *, most: float = math.inf) -> float:
    """Return a finite number above 0, or raise a `RegistrationError`."""
    value = finite_number(row.get(field))
    if value is None or not 0 < value <= most:
        bound = "" if most == math.inf else f" and at most {most:g}"
        raise RegistrationError(
            f"{owner}: {field} is {shown(row.get(field))}; it must be a finite number above "
            f"0{bound}"
        )
    return value


def optional_positive(row: Row, field: str) -> float | None:
    """Return a finite number above 0, or None where there is none."""
    value = finite_number(row.get(field))
    return value if value is not None and value > 0 else None


def flag(row: Row, field: str) -> bool:
    """Return a boolean; null and absent are False, and the spelled forms are understood."""
    value = row.get(field)
    return value.lower() in ("t", "true") if isinstance(value, str) else bool(value)


def records(value: Any) -> list[Row]:
    """Return the rows of an association, without the nulls that it may hold."""
    if _is_row(value):
        return [value]
    if isinstance(value, Iterable) and not isinstance(value, str | bytes):
        return [row for row in value if _is_row(row)]
    return []


def _is_row(value: Any) -> bool:
    # Nearly all are plain dicts, and asking an abstract class takes ten times as long.
    return type(value) is dict or isinstance(value, Mapping)


def texts(rows: Iterable[Row], field: str) -> tuple[str, ...]:
    """Return the non-empty texts of one field over rows, each a short printable line.

    They come to stand in attributes, figures and terminals, which obey some of what cannot be
    printed.
    """
    found = (row[field] for row in rows if isinstance(row.get(field), str) and row[field])
    return tuple(_line(text) for text in islice(found, _MOST_TEXTS))


def _line(text: str) -> str:
    line = "".join(c if c.isprintable() else "?" for c in text[:_LONGEST_TEXT])
    return line if len(text) <= _LONGEST_TEXT else line[:-3] + "..."


def matrix_2d(alignment: Any, name: str, owner: str) -> Matrix:
    """Return ``tsv`` or ``tvs`` as 2 rows of 3, finite and invertible."""
    rows = _matrix(alignment, name, _LAYOUT_2D, "alignment2d", owner)
    (a, b, _), (c, d, _) = rows
    if abs(a * d - b * c) <= 1e-9 * math.hypot(a, b) * math.hypot(c, d):
        raise RegistrationError(f"{owner}: alignment2d.{name} is singular: {rows}")
    return rows


def matrix_3d(alignment: Any, name: str, owner: str) -> Matrix:
    """Return ``tvr`` or ``trv`` as 3 rows of 4, finite and invertible."""
    rows = _matrix(alignment, name, _LAYOUT_3D, "alignment3d", owner)
    (a, b, c, _), (d, e, f, _), (g, h, i, _) = rows
    determinant = a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)
    if abs(determinant) <= 1e-9 * math.prod(math.hypot(*row[:3]) for row in rows):
        raise RegistrationError(f"{owner}: alignment3d.{name} is singular: {rows}")
    return rows


def _matrix(
    alignment: Any, name: str, layout: tuple[tuple[int, ...], ...], field: str, owner: str
) -> Matrix:
    if not _is_row(alignment):
        what = "null or absent" if alignment is None else shown(alignment)
        raise RegistrationError(f"{owner}: {field} is {what}; without it there is no registration")
    values = [_number(alignment.get(entry), entry, field, owner) for entry in ENTRIES[name]]
    return tuple(tuple([values[place] for place in places]) for places in layout)


def _number(given: Any, entry: str, field: str, owner: str) -> float:
    value = given if type(given) is float else finite_number(given)
    if value is None or not abs(value) <= _LARGEST_ENTRY:
        raise RegistrationError(
            f"{owner}: {field}.{entry} is {shown(given)}; it must be a finite number of at most "
            f"{_LARGEST_ENTRY:g}"
        )
    return value


def finite_number(value: Any) -> float | None:
    """Return a number as float64, or None where it is none, or not finite."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
