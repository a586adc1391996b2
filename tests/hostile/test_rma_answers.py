"""Whatever a service answers to a query: a sound Dataset, or one of our errors."""

from __future__ import annotations

import copy
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atldld.errors import APIError, AtldldError, RegistrationError

from .conftest import DATASET, MISSING, changed, envelope, metadata, small_phantom

pytestmark = pytest.mark.exhaustive

ROW = small_phantom().row
SHARED = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large]
FUZZ = settings(max_examples=200, deadline=None, suppress_health_check=SHARED, derandomize=True)

hostile_numbers = (
    st.sampled_from([0, -1, 1, 2**31, 2**53, 2**63, 2**64, 10**400, 1e308, 5e-324, -0.0, 0.5])
    | st.integers()
    | st.floats()
)
hostile_values = st.recursive(
    st.none()
    | st.booleans()
    | hostile_numbers
    | hostile_numbers.map(str)
    | st.sampled_from(
        ["", "../../etc/passwd", "null", "NaN", "\x1b[2J", "\ud800", "1/2", "x" * 9999]
    )
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=8,
)
paths = st.lists(st.integers(0, 200), min_size=1, max_size=4)
changes = st.lists(st.tuples(paths, hostile_values | st.just(MISSING)), min_size=1, max_size=4)


@FUZZ
@given(changes)
def test_a_row_changed_anywhere(opening, changes):
    row: Any = ROW
    for path, new in changes:
        row = changed(row, path, new)
    opening(envelope([row]))


@FUZZ
@given(hostile_values, st.sampled_from(["msg", "num_rows", "total_rows", "success", "start_row"]))
def test_an_envelope_changed_anywhere(opening, value, field):
    opening(envelope([ROW], **{field: value}))


@FUZZ
@given(st.binary(max_size=200))
def test_bytes_that_are_not_json(opening, body):
    assert isinstance(opening(body), AtldldError)


@FUZZ
@given(st.data())
def test_a_number_changed_anywhere(opening, data):
    """Each number of a row in turn, so that matrices are reached as often as names."""
    where = data.draw(st.sampled_from(NUMBERS))
    opening(envelope([replaced(ROW, where, data.draw(hostile_numbers))]))


def numbers(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of each number in a row, those of one image only."""
    if isinstance(value, dict):
        return [path for key in value for path in numbers(value[key], (*at, key))]
    if isinstance(value, list):
        return [path for place, one in enumerate(value[:1]) for path in numbers(one, (*at, place))]
    return [at] if isinstance(value, int | float) and not isinstance(value, bool) else []


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    if not path:
        return new
    out = copy.copy(value)
    out[path[0]] = replaced(value[path[0]], path[1:], new)
    return out


NUMBERS = numbers(ROW)


SPELLINGS = ["null", "NaN", "-Infinity", "1e999", "1" + "0" * 400, '"7"']


@pytest.mark.parametrize("place", range(len(NUMBERS)), ids=lambda n: ".".join(map(str, NUMBERS[n])))
def test_each_number_of_a_row(opening, place):
    """Also spelled as JSON does not allow it, which Python's parser takes."""
    text = json.dumps(envelope([replaced(ROW, NUMBERS[place], "@")]))
    for turn in range(2):
        spelling = SPELLINGS[(place + 3 * turn) % len(SPELLINGS)]
        opening(text.replace('"@"', spelling).encode())


def test_an_integer_of_ten_thousand_digits(opening):
    text = json.dumps(envelope([replaced(ROW, ("section_thickness",), "@")]))
    assert isinstance(opening(text.replace('"@"', "9" * 10_000).encode()), APIError)


@pytest.mark.parametrize("depth", [50, 400, *range(900, 1000, 14), 2000, 100_000])
def test_nested_beyond_measure(opening, depth):
    deep = "[" * depth + "]" * depth
    opening(deep.encode())
    opening(f'{{"success": true, "msg": {deep}}}'.encode())
    text = json.dumps(envelope([{**ROW, "treatments": "@"}]))
    opening(text.replace('"@"', deep).encode())
    opening(text.replace('"@"', '{"a":' * depth + "1" + "}" * depth).encode())


def images(*changes: dict[str, Any]) -> dict[str, Any]:
    """Return the phantom's row with images changed one by one."""
    row = copy.deepcopy(ROW)
    for image, change in zip(row["section_images"], changes, strict=False):
        image.update(change)
    return row


def test_an_id_listed_twice(opening):
    first = ROW["section_images"][0]["id"]
    found = opening(envelope([images({}, {"id": first})]))
    assert found.sizes["section"] == 3
    assert len(set(found.image_id.values)) == 3


def test_all_sections_with_one_number(opening):
    found = opening(envelope([images(*[{"section_number": 5}] * 4)]))
    assert found.sizes["section"] == 4


def test_images_of_another_dataset(opening):
    other = [{**image, "data_set_id": 1} for image in ROW["section_images"]]
    found = opening(envelope([{**ROW, "section_images": other}]))
    assert isinstance(found, RegistrationError)


def test_another_dataset_than_asked_for(opening):
    assert isinstance(opening(envelope([{**ROW, "id": DATASET + 1}])), APIError)


@pytest.mark.parametrize("image_id", ["../../../x", "1?x=1", -1, 1.5, "7", None, True, 2**53 + 1])
def test_ids_are_whole_numbers_before_they_reach_an_address(opening, image_id):
    found = opening(envelope([images({"id": image_id})]))
    assert found.sizes["section"] == 3
    assert found.image_id.dtype.kind == "i"


def test_pages_that_go_in_a_circle(opening, server):
    row = {**ROW, "section_images": []}
    pages = [ROW["section_images"][:2], ROW["section_images"][2:]]
    server.clear_faults()
    server.reset_log()
    server.add_fault(metadata(json.dumps(envelope([row])).encode(), times=1))
    for number in range(20):
        page = envelope(pages[number % 2], total_rows=10**9, num_rows=2)
        server.add_fault(metadata(json.dumps(page).encode(), times=1))
    found = opening.outcome()
    assert found.sizes["section"] == 4
    assert len(server.requests) == 4


def test_pages_without_an_end_are_left(opening, server, monkeypatch):
    """Each page brings something new: only the number of rows can end that."""
    monkeypatch.setattr("atldld.source.rma._MOST_ROWS", 100)
    row = {**ROW, "section_images": []}
    server.clear_faults()
    server.reset_log()
    server.add_fault(metadata(json.dumps(envelope([row])).encode(), times=1))
    for number in range(200):
        page = envelope([{"id": number}], total_rows=10**9, num_rows=1)
        server.add_fault(metadata(json.dumps(page).encode(), times=1))
    assert "more than 100 rows" in str(opening.outcome())
    assert len(server.requests) < 110


def test_ten_thousand_images(opening):
    one = ROW["section_images"][0]
    many = [{**one, "id": 10**6 + n, "section_number": n} for n in range(10_000)]
    body = json.dumps(envelope([{**ROW, "section_images": many}])).encode()
    tracemalloc.start()
    try:
        found = opening(body)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert found.sizes["section"] == 10_000
    assert most < 40 * len(body)


def test_ten_thousand_broken_images(opening):
    """One word on each would drown a user; the error has room for five."""
    one = {**ROW["section_images"][0], "alignment2d": None}
    many = [{**one, "id": 10**6 + n} for n in range(10_000)]
    found = opening(envelope([{**ROW, "section_images": many}]))
    assert isinstance(found, RegistrationError)
    assert len(str(found)) < 2000


@pytest.mark.parametrize("space", [1, 4, 9, None, 10**15])
@pytest.mark.parametrize("scale", [1e-4, 1e4, 1e6])
def test_matrices_of_another_scale(opening, space, scale):
    """Footprints of a kilometre must not become grids that fill the memory."""
    row = copy.deepcopy(ROW)
    row["reference_space_id"] = space
    for name, value in row["alignment3d"].items():
        if name.startswith("tvr"):
            row["alignment3d"][name] = value * scale
        elif name.startswith("trv") and name not in ("trv_09", "trv_10", "trv_11"):
            row["alignment3d"][name] = value / scale
    tracemalloc.start()
    try:
        opening(envelope([row]), resolution=25)
        most = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert most < 2**28


@pytest.mark.parametrize(
    "text", ["\ud800", "\x1b[2J\x1b]0;owned\x07", "a\nb\r\tc", "x" * 10**6, "\u202eevil", "\0"]
)
def test_names_are_one_printable_line(opening, text):
    """They reach terminals, files and figures by way of attributes."""
    found = opening(
        envelope(
            [
                {
                    **ROW,
                    "genes": [{"acronym": text}] * 3,
                    "products": [{"name": text, "id": 1}] * 3,
                    "specimen": {
                        "name": text,
                        "hemisphere": text,
                        "donor": {"age": {"name": text}},
                    },
                }
            ]
        )
    )
    for value in [*found.attrs.values(), *found.image.attrs.values()]:
        str(value).encode()
        assert str(value).isprintable()
        assert len(str(value)) < 1000


@pytest.mark.parametrize("values", [b"[],", b"{},", b"0,", b'{"a":[]},'])
def test_an_answer_of_empty_values_fills_no_memory(opening, values):
    body = b'{"success": true, "msg": [' + values * (20_000_000 // len(values)) + b"0]}"
    tracemalloc.start()
    try:
        assert "more than 4000000 values" in str(opening(body))
        assert tracemalloc.get_traced_memory()[1] < 10 * len(body)
    finally:
        tracemalloc.stop()
