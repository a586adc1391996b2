"""Which cases of a promise `make test` tries; the others are left to `make test-exhaustive`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def usual(cases: Iterable[Any], these: Collection[Any] | int = 1) -> list[Any]:
    """Return the cases for `pytest.mark.parametrize`, with all but the usual ones marked.

    Parameters
    ----------
    cases
        One value each, or a tuple of values.
    these
        The usual ones, or how many of the first are.
    """
    cases = list(cases)
    kept = cases[:these] if isinstance(these, int) else list(these)
    assert all(case in cases for case in kept)
    return [
        case
        if case in kept
        else pytest.param(
            *(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.exhaustive
        )
        for case in cases
    ]
