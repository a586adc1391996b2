"""Nothing that arrives on a connection becomes the body of another request."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import atldld
from atldld.errors import AtldldError, ImageError
from atldld.options import set_options
from atldld.testing import AllenServer, Fault

from .conftest import DATASET, small_phantom

pytestmark = pytest.mark.exhaustive

# Images of one size: nothing about them says which is which.
PHANTOM = small_phantom(sections=8, image_size=(221, 181))
GIVEN_UP_AFTER = 0.3


def right(seen: Any, true: Any) -> bool:
    return bool((seen == true).all())


@pytest.fixture(scope="module")
def true(tmp_path_factory: Any) -> np.ndarray:
    """Return the pixels, as they come where nothing goes wrong."""
    with AllenServer([PHANTOM]) as server, set_options(cache_dir=tmp_path_factory.mktemp("true")):
        pixels = atldld.open_dataarray(DATASET, source=server.url, resolution=100).values
    assert all(not right(pixels[0], each) for each in pixels[1:])
    return pixels


@pytest.fixture
def server(tmp_path: Any) -> Iterator[AllenServer]:
    # On one connection, so that whatever is left on it is there for the next request.
    one = set_options(cache_dir=tmp_path / "cache", max_connections=1, retries=2, timeout=10)
    with AllenServer([PHANTOM]) as server, one:
        yield server


def images(server: AllenServer, true: Any) -> list[bool]:
    """Read section by section, and say of each whether it could be had; none may be wrong."""
    sections = atldld.open_dataarray(DATASET, source=server.url, resolution=100)
    had = []
    for number, each in enumerate(true):
        try:
            assert right(sections[number].values, each), number
            had.append(True)
        except ImageError:
            had.append(False)
    return had


@pytest.mark.parametrize("request_kind", ["image", "redirect", "metadata", "any"])
@pytest.mark.parametrize("kind", ["early-hints", "two-answers"])
@pytest.mark.parametrize("every", [1, 3])
def test_a_second_answer_is_nobodys(server, true, kind, request_kind, every):
    server.add_fault(Fault(kind, request=request_kind, every=every))
    try:
        had = images(server, true)
    except AtldldError:
        had = []
    # An interim answer each time leaves no way to the real one; all else is had at last.
    assert all(had) or (kind, every) == ("early-hints", 1)
    server.clear_faults()
    assert images(server, true) == [True] * len(true)


def test_an_answer_that_comes_late_is_nobodys(server, true):
    server.add_fault(Fault("latency", seconds=3 * GIVEN_UP_AFTER, request="image", every=2))
    with set_options(timeout=GIVEN_UP_AFTER, retries=1):
        images(server, true)
    server.clear_faults()
    assert images(server, true) == [True] * len(true)
