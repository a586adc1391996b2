"""Checks of what users give, and words for what is wrong with it."""

from __future__ import annotations

import difflib
import math
import operator
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

LARGEST_ID = 2**63 - 1


def checked_choice(name: str, value: Any, known: Sequence[Any]) -> Any:
    """Return a text, one of those known, or say which they are."""
    if not isinstance(value, str) or value not in known:
        raise ValueError(f"{name} is {value!r}; it must be one of {', '.join(map(repr, known))}")
    return value


def checked_flag(name: str, value: Any) -> bool:
    """Return True or False."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} is {value!r}; it must be True or False")
    return bool(value)


def whole_number(name: str, value: Any, least: int, most: int | None = None) -> int:
    """Return a whole number within bounds, ends included, or say what would be right."""
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{name} is {value!r}; it must be a whole number")
    if number < least or (most is not None and number > most):
        bounds = f"at least {least}" if most is None else f"from {least} to {most}"
        raise ValueError(f"{name} is {number}; it must be {bounds}")
    return number


def finite(name: str, value: Any) -> float:
    """Return a number that is neither infinite nor NaN, or say what is wrong with it."""
    if isinstance(value, str | bytes | bool):
        raise TypeError(f"{name} is {value!r}; it must be a number")
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name} is {value!r}; it must be a number") from None
    except OverflowError:
        raise ValueError(f"{name} is too large; it must be a number of microns") from None
    if not math.isfinite(number):
        raise ValueError(f"{name} is {value!r}; it must be finite")
    return number


def positive(name: str, value: Any) -> float:
    """Return a number of microns above 0."""
    number = finite(name, value)
    if number <= 0:
        raise ValueError(f"{name} is {value!r}; it must be a number of microns above 0")
    return number


def pair(name: str, value: Any) -> tuple[float, float]:
    """Return two finite numbers."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise TypeError(f"{name} is {value!r}; it must be two numbers")
    return finite(name, value[0]), finite(name, value[1])


def near(wanted: str, known: Sequence[str]) -> str:
    """Return a question for the name that was meant, with a blank after it, or nothing.

    Examples
    --------
    >>> near("corona", ["coronal", "sagittal"])
    "did you mean 'coronal'? "
    >>> near("horizontal", ["coronal"])
    ''
    """
    by_case = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(wanted.casefold(), by_case, n=1, cutoff=0.75)
    return f"did you mean {by_case[found[0]]!r}? " if found else ""


def listed(names: Iterable[str], most: int = 40) -> str:
    """Return names in quotes, no more than some.

    Examples
    --------
    >>> listed(["a", "b", "c"], most=2)
    "'a', 'b' and 1 more"
    """
    every = [repr(name) for name in names]
    more = f" and {len(every) - most} more" if len(every) > most else ""
    return ", ".join(every[:most]) + more
