"""Reading typed fields out of RMA rows, which may lack anything.

Every column of the service but ``id`` may be null, and associations may be absent, null, or
hold nulls.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..errors import RegistrationError

Row = Mapping[str, Any]
Matrix = tuple[tuple[float, ...], ...]

_LAYOUT_2D = ((0, 1, 4), (2, 3, 5))
_LAYOUT_3D = ((0, 1, 2, 9), (3, 4, 5, 10), (6, 7, 8, 11))
"""Where the service's numbered entries stand: linear part row by row, translation last."""

_LARGEST_INTEGER = 2**53


def integer(row: Row, field: str, owner: str, *, least: int | None = None) -> int:
    """Return a whole number, or raise a `RegistrationError` that names owner and field."""
    value = row.get(field)
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if not isinstance(value, int) or isinstance(value, bool):
        raise RegistrationError(f"{owner}: {field} is {value!r}; it must be a whole number")
    if abs(value) > _LARGEST_INTEGER or (least is not None and value < least):
        bound = "" if least is None else f" of at least {least}"
        raise RegistrationError(f"{owner}: {field} is {value}; it must be a whole number{bound}")
    return value


def optional_integer(row: Row, field: str, owner: str, *, least: int | None = None) -> int | None:
    """Return a whole number, or None where the field is null or absent."""
    return None if row.get(field) is None else integer(row, field, owner, least=least)


def positive(row: Row, field: str, owner: str) -> float:
    """Return a finite number above 0, or raise a `RegistrationError`."""
    value = _number(row.get(field))
    if value is None or value <= 0:
        raise RegistrationError(
            f"{owner}: {field} is {row.get(field)!r}; it must be a finite number above 0"
        )
    return value


def flag(row: Row, field: str) -> bool:
    """Return a boolean; null and absent are False, and the spelled forms are understood."""
    value = row.get(field)
    return value.lower() in ("t", "true") if isinstance(value, str) else bool(value)


def records(value: Any) -> list[Row]:
    """Return the rows of an association, without the nulls that it may hold."""
    if isinstance(value, Mapping):
        return [value]
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [row for row in value if isinstance(row, Mapping)]
    return []


def texts(rows: Iterable[Row], field: str) -> tuple[str, ...]:
    """Return the non-empty texts of one field over rows."""
    return tuple(row[field] for row in rows if isinstance(row.get(field), str) and row[field])


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
    if not isinstance(alignment, Mapping):
        what = "null or absent" if alignment is None else f"{alignment!r}"
        raise RegistrationError(f"{owner}: {field} is {what}; without it there is no registration")
    rows = []
    for places in layout:
        row = []
        for place in places:
            entry = f"{name}_{place:02d}"
            value = _number(alignment.get(entry))
            if value is None:
                raise RegistrationError(
                    f"{owner}: {field}.{entry} is {alignment.get(entry)!r}; "
                    "it must be a finite number"
                )
            row.append(value)
        rows.append(tuple(row))
    return tuple(rows)


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None
