"""Any object as any argument: a result, or an error that says what is wrong, and before asking."""

from __future__ import annotations

import datetime
import decimal
import fractions
import re
import tracemalloc
import warnings
from typing import Any

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import atldld
from atldld.errors import AtldldError, AtldldWarning
from atldld.options import set_options

from .conftest import DATASET

SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
FUZZ = settings(max_examples=300, deadline=None, suppress_health_check=SHARED, derandomize=True)

plain = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.sampled_from([0, 1, -1, 2**31, 2**63, 2**64])
    | st.floats()
    | st.sampled_from([1e-300, 1e-9, 0.002, 1e300, 25.0, 200])
    | st.text(max_size=12)
    | st.binary(max_size=12)
    | st.complex_numbers()
    | st.decimals(allow_nan=False)
    | st.fractions()
    | st.sampled_from(
        ["auto", "image", "native", "center", "oblique", "raise", "p", "", "\0", "../..", "9"]
    )
    | st.sampled_from(
        [
            np.int64(3),
            np.uint8(200),
            np.float32("nan"),
            np.float64(100),
            np.bool_(True),
            np.array(5),
            np.array([1, 2]),
            np.array([]),
            np.datetime64("NaT", "s"),
            pd.NaT,
            pd.NA,
            pd.Timestamp(0),
            datetime.date(2020, 1, 1),
            xr.DataArray([1.0, 2.0]),
            pd.Series([1, 2]),
            Ellipsis,
            NotImplemented,
            object(),
            int,
            len,
            range(3),
            slice(1, 2),
            slice("a", None, 0),
            decimal.Decimal("1e400"),
            fractions.Fraction(10**300, 1),
        ]
    )
)
anything = st.recursive(
    plain,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(["p", "i", "r", "y", "section", "q", "", 0, None]), inner)
    ),
    max_leaves=5,
)

OPTIONS = (
    "resolution", "tier", "view", "mapping", "detection_xy", "region", "interpolation", "masked",
    "fill_value", "chunks", "reference_space", "on_error", "source",
)  # fmt: skip
OF_THE_DATASET = ("region", "reference_space", "resolution", "chunks", "detection_xy")
"""Options that may be wrong for one dataset and right for another: it must be asked first."""


@pytest.fixture(autouse=True)
def _cache(tmp_path_factory):
    with (
        set_options(
            cache_dir=tmp_path_factory.mktemp("arguments"), retries=0, api_url="http://127.0.0.1:9"
        ),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore", AtldldWarning)
        yield


def opened(server: Any, function: Any, dataset_id: Any = DATASET, **options: Any) -> Any:
    """Return the object or the error, which is one that a user can read."""
    try:
        found = function(dataset_id, **{"source": server.url, "resolution": 500, **options})
    except (ValueError, TypeError, KeyError, AtldldError) as error:
        found = error
    assert not isinstance(found, Exception) or str(found)
    return found


@FUZZ
@given(st.sampled_from(OPTIONS), anything)
def test_any_object_as_any_option(server, name, value):
    server.reset_log()
    found = opened(server, atldld.open_dataarray, **{name: value})
    if isinstance(found, Exception) and not isinstance(found, AtldldError):
        assert name in str(found) or name in OF_THE_DATASET
        if name not in OF_THE_DATASET:
            assert not server.requests


@FUZZ
@given(anything)
def test_any_object_as_an_id(server, value):
    server.reset_log()
    found = opened(server, atldld.open_dataset, dataset_id=value)
    if isinstance(found, ValueError | TypeError):
        assert not server.requests
    for request in server.requests:
        # Of a dataset that there is none of, it is asked whether an image has that id.
        of_image = "query.json?criteria=model::SectionDataSet,rma::criteria,section_images[id$eq"
        asked = rf"/api/v2/data/(SectionDataSet/\d+\.json|{re.escape(of_image)}\d+\])"
        assert re.match(asked, request.path)


@pytest.mark.parametrize("value", ["901", 901.0, "901/../1", b"901", True, None, [901], -1, 2**63])
def test_ids_are_whole_numbers_before_anything_is_asked(server, value):
    server.reset_log()
    with pytest.raises((TypeError, ValueError), match="dataset_id"):
        atldld.open_dataarray(value, source=server.url)
    assert not server.requests


@FUZZ
@given(anything)
def test_any_object_as_include_expression(server, value):
    opened(server, atldld.open_dataset, include_expression=value)


TERMS = ("gene", "plane", "product", "specimen", "dataset_id", "image_id", "failed", "source")


@FUZZ
@given(st.sampled_from(TERMS), anything)
def test_any_object_as_a_search_term(server, name, value):
    server.reset_log()
    try:
        found: Any = atldld.search(**{"source": server.url, name: value})
    except (ValueError, TypeError, AtldldError) as error:
        found = error
    if isinstance(found, ValueError | TypeError):
        assert name in str(found)
        # A product is looked up before it can be wrong.
        assert not server.requests or name == "product"


@pytest.fixture(scope="module")
def sections(server, tmp_path_factory):
    with set_options(cache_dir=tmp_path_factory.mktemp("sections")):
        return atldld.open_dataarray(DATASET, source=server.url, resolution=500)


@FUZZ
@given(st.dictionaries(st.sampled_from(["p", "i", "r", "q", "section"]), anything, min_size=1))
def test_any_object_as_a_place(server, sections, place):
    server.reset_log()
    try:
        found: Any = sections.atlas.at(**place)
    except (ValueError, TypeError, KeyError) as error:
        found = error
    assert str(found) if isinstance(found, Exception) else found.ndim <= sections.ndim
    assert not server.requests


@FUZZ
@given(
    st.sampled_from(["p", "i", "r", "section", "y", "x", "channel"]),
    anything,
    st.sampled_from([None, "nearest", "pad", "nonsense"]),
    st.none() | plain,
)
def test_any_object_as_a_label(server, sections, name, label, method, tolerance):
    """Selection by section is ours; by the other coordinates it is xarray's own."""
    server.reset_log()
    try:
        found: Any = sections.sel({name: label}, method=method, tolerance=tolerance)
    except Exception as error:
        found = error
    if not isinstance(found, Exception):
        assert found.size <= sections.size * 4
    elif name == "section":
        # IndexError is xarray's own word on arrays of two dimensions.
        assert isinstance(
            found, ValueError | TypeError | KeyError | IndexError | NotImplementedError
        )
    assert not server.requests


@pytest.mark.parametrize(
    "options",
    [
        {"resolution": 1e-300},
        {"resolution": 1e-6},
        {"resolution": 0.002},
        {"resolution": 0.1},
        {"resolution": 1, "chunks": {"section": 1, "y": 1, "x": 1}},
        {"resolution": 1e308},
        {"tier": 30},
        {"detection_xy": (1e30, 1e30)},
        {"region": {"i": (-1e308, 1e308)}, "resolution": 1.5},
    ],
    ids=str,
)
def test_extremes_fill_no_memory(server, options):
    tracemalloc.start()
    try:
        opened(server, atldld.open_dataarray, **options)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 2**28


@pytest.mark.parametrize(
    "options",
    [
        {"resolution": 10**400},
        {"resolution": 1e-308},
        {"resolution": 5e-324},
        {"detection_xy": (10**400, 0)},
        {"region": {"p": (0, 10**400)}},
        {"region": {"i": (1e308, 1e308)}, "resolution": 0.5},
    ],
    ids=str,
)
def test_numbers_that_no_float_can_hold(server, options):
    assert isinstance(opened(server, atldld.open_dataarray, **options), ValueError)


@pytest.mark.parametrize("place", [10**400, slice(10**400)], ids=["value", "slice"])
def test_places_that_no_float_can_hold(sections, place):
    with pytest.raises((ValueError, KeyError)):
        sections.atlas.at(p=place)


def test_a_pixel_beyond_all_images(server):
    found = opened(server, atldld.open_dataarray, detection_xy=(1e308, 1e308))
    assert isinstance(found, ValueError)
