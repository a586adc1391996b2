from __future__ import annotations

import gzip
import json
import re
import warnings
from contextlib import suppress
from urllib.parse import unquote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atldld.errors import APIError, AtldldError, AtldldWarning
from atldld.options import set_options
from atldld.source import rma
from atldld.source.allen import AllenSource
from atldld.source.http import UnfitBodyError
from atldld.source.rma import Query, condition, fetch_page, fetch_rows, page_of, row_url

from .conftest import REAL, answer, needs_real_data, rows_answer

IMAGES = Query("SectionImage", (condition("data_set_id", 5),), include="alignment2d")


def asked(path: str) -> tuple[int, int]:
    """Return start_row and num_rows of a request."""
    found = re.search(r"\[start_row\$eq(\d+)\]\[num_rows\$eq(\d+)\]", unquote(path))
    return int(found[1]), int(found[2])


def pages_of(rows, total=None, most=2000, skip=0):
    """Serve rows in pages of at most `most`, promising `total` of them."""

    def handler(request):
        start, count = asked(request.path)
        page = rows[start : start + min(count, most)]
        return rows_answer(
            page,
            start_row=start,
            num_rows=len(page) + (skip if page else 0),
            total_rows=len(rows) if total is None else total,
        )

    return handler


def numbered(count):
    return [{"id": number} for number in range(count)]


def test_a_query_is_spelled_as_the_service_documents_it():
    url = unquote(IMAGES.url("http://h/api/v2", 2000, 500))
    assert url == (
        "http://h/api/v2/data/query.json?criteria=model::SectionImage,rma::criteria,"
        "[data_set_id$eq5],rma::include,alignment2d,"
        "rma::options[start_row$eq2000][num_rows$eq500][order$eq'id']"
    )


def test_urls_hold_no_characters_that_need_mending():
    query = Query("Gene", (condition("name", 'é "x" &?#/', "il"),))
    for url in (query.url("http://h"), row_url("http://h", "Gene", 5, "a(b)")):
        assert re.fullmatch(r"[A-Za-z0-9:/?=&.,()$'%_*-]+", url)
    assert "&" not in query.url("http://h")


@pytest.mark.parametrize("text", ["a'b", "a]b", "[a", "a\nb", "a\0"])
def test_a_value_cannot_end_its_condition(text):
    with pytest.raises(ValueError, match="must not hold"):
        condition("acronym", text)


def test_truth_is_spelled_out():
    assert condition("failed", False) == "[failed$eqfalse]"


@pytest.mark.parametrize("row_id", ["5", 5.0, None, "../x"])
def test_a_row_is_named_by_a_whole_number(row_id):
    with pytest.raises((ValueError, TypeError)):
        row_url("http://h", "SectionDataSet", row_id)


# The envelope


def test_a_page():
    page = page_of(rows_answer([{"id": 1}, None, 5]).partition(b"\r\n\r\n")[2], "http://h")
    assert (page.rows, page.num_rows, page.total_rows) == (({"id": 1},), 3, 3)


@pytest.mark.parametrize(
    ("envelope", "said"),
    [
        ({"success": False, "msg": "no such model"}, "refused the query: no such model"),
        ({"success": "false", "msg": []}, "refused the query: it does not say why"),
        ({"success": True, "msg": "odd"}, "refused the query: odd"),
        ({"success": True, "msg": None}, "holds None instead of rows"),
        ({"success": True, "msg": 5}, "holds 5 instead of rows"),
        ({"success": True}, "not that of a query"),
        ([], "not that of a query"),
        (None, "not that of a query"),
        ("text", "not that of a query"),
    ],
)
def test_what_the_envelope_says(serve, envelope, said):
    server = serve(lambda request: answer(json.dumps(envelope).encode()))
    with pytest.raises(APIError, match=said) as caught:
        fetch_page(server.url + "/x")
    assert caught.value.url == server.url + "/x"
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", ["400 Bad Request", "500 Internal Server Error"])
def test_a_failure_may_come_with_a_status(serve, status):
    body = json.dumps({"success": False, "msg": "no such model"}).encode()
    server = serve(lambda request: answer(body, status))
    with pytest.raises(APIError, match="no such model") as caught:
        fetch_page(server.url)
    assert caught.value.status == int(status[:3])
    assert len(server.requests) == (1 if status.startswith("4") else 3)


NOT_JSON = {
    "a page": (b"<html><title>Be back soon</title></html>", "an HTML page: 'Be back soon'"),
    "text": (b"busy", "not JSON: 'busy'"),
    "half": (b'{"success": true, "msg": [{"id"', "not JSON"),
    "nothing": (b" ", "not JSON"),
    "not text": (b"\xff\xfe\0", "not JSON"),
    "deep": (b"[" * 100_000, "not JSON"),
    "a long number": (b"1" * 5000, "not JSON"),
}


@pytest.mark.parametrize("kind", NOT_JSON)
def test_what_is_not_json_is_asked_again(serve, kind):
    body, said = NOT_JSON[kind]
    server = serve(lambda r: answer(body) if r.number == 0 else rows_answer([{"id": 1}]))
    assert fetch_page(server.url).rows == ({"id": 1},)
    assert len(server.requests) == 2
    server = serve(lambda request: answer(body))
    with pytest.raises(APIError, match=f"after 3 tries, the last: the answer is {said}"):
        fetch_page(server.url)


def test_half_of_a_compressed_answer_is_asked_again(serve):
    body = gzip.compress(rows_answer([{"id": 1, "name": "x" * 9000}]).partition(b"\r\n\r\n")[2])
    bodies = [answer(part, Content_Encoding="gzip") for part in (body[:-20], body)]
    server = serve(lambda request: bodies[min(request.number, 1)])
    assert len(fetch_page(server.url).rows) == 1
    assert len(server.requests) == 2


# Pages


@pytest.mark.parametrize("count", [0, 1, 5, 10, 11])
def test_pages_are_joined(serve, count):
    server = serve(pages_of(numbered(count), most=5))
    assert fetch_rows(server.url, IMAGES) == numbered(count)
    assert [asked(path)[0] for path in server.paths] == list(range(0, max(count, 1), 5))


def test_as_many_rows_are_asked_for_as_the_service_gives(serve):
    server = serve(pages_of(numbered(4001)))
    assert len(fetch_rows(server.url, IMAGES)) == 4001
    assert [asked(path) for path in server.paths] == [(0, 2000), (2000, 2000), (4000, 2000)]


def test_an_order_is_always_asked_for(serve):
    server = serve(pages_of(numbered(3)))
    fetch_rows(server.url, IMAGES)
    assert all("[order$eq'id']" in unquote(path) for path in server.paths)


def test_the_number_of_rows_that_the_service_counts_is_trusted(serve):
    def handler(request):
        # Joined rows: ten of the database make five of the answer.
        start, _ = asked(request.path)
        return rows_answer(numbered(10)[start // 2 : start // 2 + 5], num_rows=10, total_rows=20)

    server = serve(handler)
    assert fetch_rows(server.url, IMAGES) == numbered(10)
    assert [asked(path)[0] for path in server.paths] == [0, 10]


def test_rows_that_were_promised_and_never_come(serve):
    server = serve(pages_of(numbered(7), total=9, most=5))
    with pytest.warns(AtldldWarning, match="promised 9 rows of SectionImage and delivered 7"):
        assert fetch_rows(server.url, IMAGES) == numbered(7)
    assert len(server.requests) == 3


def test_pages_that_come_again_end(serve):
    server = serve(lambda request: rows_answer(numbered(5), total_rows=100))
    with pytest.warns(AtldldWarning, match="promised 100 .* delivered 5"):
        assert fetch_rows(server.url, IMAGES) == numbered(5)
    assert len(server.requests) == 2


def test_pages_that_overlap_are_joined(serve):
    def handler(request):
        start, _ = asked(request.path)
        return rows_answer(numbered(8)[max(start - 1, 0) : start + 3], num_rows=3, total_rows=8)

    server = serve(handler)
    assert fetch_rows(server.url, IMAGES) == numbered(8)


def test_without_a_promise_an_empty_page_ends(serve):
    server = serve(lambda r: rows_answer(numbered(5) if r.number == 0 else [], total_rows=None))
    assert fetch_rows(server.url, IMAGES) == numbered(5)
    assert len(server.requests) == 2


def test_rows_without_end_are_refused(serve, monkeypatch):
    monkeypatch.setattr(rma, "_MOST_ROWS", 20)
    server = serve(
        lambda r: rows_answer([{"id": 5 * r.number + n} for n in range(5)], total_rows=10**9)
    )
    with pytest.raises(APIError, match="more than 20 rows"):
        fetch_rows(server.url, IMAGES)
    assert len(server.requests) == 5


# Anything at all


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**400), 10**400)
    | st.floats()
    | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4)
    ),
    max_leaves=12,
)
envelopes = st.fixed_dictionaries(
    {},
    optional={
        "success": json_values,
        "msg": json_values | st.lists(st.dictionaries(st.just("id"), json_values), max_size=3),
        "num_rows": json_values,
        "total_rows": json_values,
    },
)


@given(json_values | envelopes)
def test_any_json_is_a_page_or_an_error(value):
    with suppress(APIError, UnfitBodyError):
        page = page_of(json.dumps(value).encode(), "http://h")
        assert all(isinstance(row, dict) for row in page.rows)


@given(st.binary())
def test_any_bytes_are_a_page_or_an_error(body):
    with suppress(APIError, UnfitBodyError):
        page_of(body, "http://h")


@pytest.fixture
def one_server(serve):
    return serve(lambda request: b"")


FIXTURES = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]


@settings(max_examples=60, deadline=None, suppress_health_check=FIXTURES)
@given(st.lists(json_values | envelopes, min_size=1, max_size=4))
def test_any_answers_end_in_rows_or_an_error(one_server, answers):
    seen = len(one_server.requests)
    one_server.handler = lambda r: answer(
        json.dumps(answers[(r.number - seen) % len(answers)]).encode()
    )
    with set_options(retries=0), suppress(AtldldError), warnings.catch_warnings():
        warnings.simplefilter("ignore", AtldldWarning)
        fetch_rows(one_server.url, IMAGES)
    assert len(one_server.requests) - seen <= 50


def mutated(value, change):
    """Return a copy of rows in which what one path leads to is something else."""
    path, new = change
    if not path or not isinstance(value, dict | list) or not value:
        return new
    keys = sorted(value) if isinstance(value, dict) else range(len(value))
    chosen = list(keys)[path[0] % len(keys)]
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[chosen] = mutated(value[chosen], (path[1:], new))
    return copy


@needs_real_data
@settings(max_examples=150, deadline=None, suppress_health_check=FIXTURES)
@given(
    st.lists(
        st.tuples(st.lists(st.integers(0, 1000), min_size=2, max_size=7), json_values),
        min_size=1,
        max_size=3,
    )
)
def test_a_recorded_answer_changed_anywhere_is_a_dataset_or_an_error(one_server, changes):
    envelope = json.loads((REAL / "69289763" / "query.json").read_bytes())
    for change in changes:
        envelope["msg"] = mutated(envelope["msg"], change)
    one_server.handler = lambda request: answer(json.dumps(envelope).encode())
    with set_options(retries=0, cache_dir="/dev/null/x"), warnings.catch_warnings():
        warnings.simplefilter("ignore", AtldldWarning)
        with suppress(AtldldError):
            assert AllenSource(one_server.url).dataset(69289763).id == 69289763
