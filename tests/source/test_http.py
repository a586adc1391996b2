from __future__ import annotations

import gc
import gzip
import os
import stat
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atldld import process
from atldld.errors import APIError, plain
from atldld.options import current, set_options
from atldld.source.http import UnfitBodyError, error_text, fetch, retry_after

from .conftest import answer

BODY = bytes(range(256)) * 40


def get(url: str, **settings):
    return fetch(url, limit_bytes=2**20, **settings)


def in_turn(*answers):
    """Answer the first request with the first, and so on; the last one stays."""
    return lambda request: answers[min(request.number, len(answers) - 1)]


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    return head + b"".join(b"%x\r\n%s\r\n" % (len(c), c) for c in chunks) + end


WHOLE = answer(BODY)
HEAD, _, _ = WHOLE.partition(b"\r\n\r\n")

FAULTS = {
    "reset before the header": ["reset"],
    "closed before the header": ["close"],
    "closed in the header": [HEAD[:20], "close"],
    "reset in the body": [WHOLE[:5000], "reset"],
    "body too short": [WHOLE[:5000], "close"],
    "chunk cut off": [chunked(BODY)[:5000], "close"],
    "no last chunk": [chunked(BODY, end=b""), "close"],
    "nonsense": [b"SSH-2.0-OpenSSH_9.2\r\n", "close"],
    "no length of a chunk": [chunked(end=b"zz\r\n"), "close"],
    "length is no number": [b"HTTP/1.1 200 OK\r\nContent-Length: 1,2\r\n\r\n", "close"],
    "endless header": [b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "close"],
    "not gzip": [answer(BODY, Content_Encoding="gzip"), "close"],
    "500": [answer(b"", "500 Internal Server Error")],
    "502": [answer(b"<html>", "502 Bad Gateway")],
    "503": [answer(b"", "503 Service Unavailable")],
    "504": [answer(b"", "504 Gateway Timeout")],
    "429": [answer(b"", "429 Too Many Requests")],
    "408": [answer(b"", "408 Request Timeout")],
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_one_more_request(serve, fault):
    server = serve(lambda request: iter(FAULTS[fault]) if request.number == 0 else WHOLE)
    body = get(server.url)
    assert (body.content, body.tries, len(server.requests)) == (BODY, 2, 2)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_lasting_fault_is_one_error(serve, fault):
    server = serve(lambda request: iter(FAULTS[fault]))
    with pytest.raises(APIError, match="gave up after 3 tries, the last: ") as caught:
        get(f"{server.url}/a?b=c")
    assert len(server.requests) == 3
    assert caught.value.url == f"{server.url}/a?b=c"
    assert caught.value.status == (int(fault) if fault.isdecimal() else None)


def test_a_chunked_body(serve):
    server = serve(lambda request: chunked(BODY[:1], BODY[1:]))
    assert get(server.url).content == BODY


def test_a_compressed_body(serve):
    body = answer(gzip.compress(BODY), Content_Encoding="gzip")
    server = serve(lambda request: body)
    assert get(server.url, headers={"Accept-Encoding": "gzip"}).content == BODY
    assert server.requests[0].headers["accept-encoding"] == "gzip"


def test_the_client_says_who_it_is(serve):
    server = serve(lambda request: WHOLE)
    get(server.url)
    assert server.requests[0].headers["user-agent"].startswith("atldld/")


@pytest.mark.parametrize("status", ["400 Bad Request", "401 Unauthorized", "404 Not Found",
                                    "410 Gone", "204 No Content", "304 Not Modified"])  # fmt: skip
def test_other_statuses_are_not_tried_again(serve, status):
    server = serve(lambda request: answer(b"", status))
    with pytest.raises(APIError) as caught:
        get(server.url)
    assert caught.value.message == f"HTTP status {status[:3]}"
    assert caught.value.status == int(status[:3])
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"success": false, "msg": "no such model"}', "no such model"),
        (b"<html><head><title>Not \n here</title></head>", "Not here"),
        (b"<p>gone</p>", "gone"),
        (b"line\x00\x1b[31m", "line??[31m"),
        (b"x" * 500, "x" * 197 + "..."),
        (b"[" * 9000, "[" * 197 + "..."),
        (b"\xff\xfe", "\ufffd\ufffd"),
    ],
)
def test_what_the_service_says_is_passed_on(serve, body, words):
    server = serve(lambda request: answer(body, "400 Bad Request"))
    with pytest.raises(APIError) as caught:
        get(server.url)
    assert caught.value.message == f"HTTP status 400, saying {words!r}"
    assert error_text(body) == words


@given(st.binary())
def test_said_takes_any_bytes(body):
    assert plain(error_text(body)) == error_text(body)


def test_a_body_that_the_check_refuses_is_tried_again(serve):
    def check(content, headers):
        if content != BODY:
            raise UnfitBodyError("it is not what was asked for")

    server = serve(in_turn(answer(b"<html>busy</html>"), WHOLE))
    assert get(server.url, check=check).tries == 2
    server = serve(in_turn(answer(b"<html>busy</html>")))
    with pytest.raises(APIError, match="after 3 tries, the last: it is not what was asked for"):
        get(server.url, check=check)
    assert len(server.requests) == 3


BOMB = answer(gzip.compress(bytes(10**7)), Content_Encoding="gzip")


@pytest.mark.parametrize("body", [answer(BODY), chunked(BODY), BOMB])
def test_a_body_that_is_too_large_is_refused(serve, body):
    server = serve(lambda request: body)
    with pytest.raises(APIError, match=r"more than the 9999( bytes)? expected"):
        fetch(server.url, limit_bytes=9999)
    assert len(server.requests) == 1


def test_an_endless_body_is_left(serve):
    def endless(request):
        yield b"HTTP/1.1 200 OK\r\n\r\n"
        while True:
            yield bytes(2**16)

    server = serve(endless)
    with pytest.raises(APIError, match="more than the 1048576 bytes"):
        get(server.url)


DRIPS = {
    "header": (b"HTTP/1.1 200 OK\r\nX: ", b"x"),
    "status": (b"", b"H"),
    "body": (b"HTTP/1.1 200 OK\r\nContent-Length: 10000\r\n\r\n", b"x"),
    "chunks": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    "length of a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", b"0"),
    "error": (b"HTTP/1.1 500 Oh\r\nContent-Length: 10000\r\n\r\n", b"x"),
}


@pytest.mark.parametrize("place", DRIPS)
def test_a_dripping_server_holds_nobody(serve, place):
    first, drop = DRIPS[place]
    stopped = threading.Event()

    def drip(request):
        yield first
        while not stopped.wait(0.02):
            yield drop

    server = serve(drip)
    with set_options(timeout=0.4, retries=1), pytest.raises(APIError) as caught:
        get(server.url)
    stopped.set()
    if place == "error":
        assert caught.value.message.endswith("the last: HTTP status 500")
    else:
        assert "no complete answer within the time limit" in caught.value.message
    assert len(server.requests) == 2


def test_a_silent_server_holds_nobody(serve):
    stopped = threading.Event()
    server = serve(lambda request: iter([stopped]))
    with set_options(timeout=0.2, retries=1), pytest.raises(APIError, match="time limit"):
        get(server.url)
    stopped.set()
    assert len(server.requests) == 2


def test_nobody_listens():
    with set_options(retries=1), pytest.raises(APIError) as caught:
        get("http://127.0.0.1:9/x")
    assert "after 2 tries, the last: no connection: " in str(caught.value)
    assert "(http://127.0.0.1:9/x)" in str(caught.value)


def test_a_host_without_address():
    with set_options(retries=0), pytest.raises(APIError, match="cannot be resolved"):
        get("http://host.invalid/x")


@pytest.mark.parametrize("status", ["429 Too Many Requests", "503 Service Unavailable"])
def test_a_rest_that_was_asked_for_is_granted(serve, status, monkeypatch):
    pauses = []
    monkeypatch.setattr(process, "pause", pauses.append)
    server = serve(in_turn(answer(b"", status, Retry_After="3"), WHOLE))
    assert get(server.url).tries == 2
    assert pauses == [3.0]


def test_a_rest_beyond_the_time_limit_is_an_error_at_once(serve):
    server = serve(lambda request: answer(b"", "503 Busy", Retry_After="3600"))
    with pytest.raises(APIError, match="left alone for 3600 s, longer than we may wait"):
        get(server.url)
    assert len(server.requests) == 1


def test_pauses_grow_and_differ(serve, monkeypatch):
    pauses = []
    monkeypatch.setattr(process, "pause", pauses.append)
    server = serve(lambda request: answer(b"", "500 Oh"))
    with set_options(timeout=60, retries=4), pytest.raises(APIError):
        get(server.url)
    for pause, longest in zip(pauses, [0.5, 1.0, 2.0, 3.0], strict=True):
        assert longest / 2 <= pause <= longest


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5.0), (" 0 ", 0.0), (formatdate(1060, usegmt=True), 60.0),
     (formatdate(900, usegmt=True), 0.0), ("soon", None), ("", None), ("-5", None),
     ("9" * 50, 999999999.0), ("Mon, 99 Jan 99999 00:00:00 GMT", None)],
)  # fmt: skip
def test_retry_after(text, seconds):
    assert retry_after({"retry-after": text}, now=1000.0) == seconds


@given(st.text())
def test_retry_after_takes_any_text(text):
    seconds = retry_after({"retry-after": text}, now=1000.0)
    assert seconds is None or seconds >= 0


def test_redirects_are_followed(serve):
    server = serve(
        lambda request: (
            WHOLE
            if request.path == "/cgi-bin/imageservice?path=x"
            else answer(b"moved", "302 Found", Location="/cgi-bin/imageservice?path=x")
        )
    )
    assert get(f"{server.url}/section_image_download/7").content == BODY
    assert len(server.requests) == 2


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_the_body_of_a_redirect_is_not_waited_for(serve, code):
    def handler(request):
        if request.path == "/x":
            yield WHOLE
        else:
            yield f"HTTP/1.1 {code} Go\r\nLocation: /x\r\nContent-Length: 10000\r\n\r\n".encode()
            yield stopped

    stopped = threading.Event()
    body = get(serve(handler).url)
    stopped.set()
    assert (body.content, body.tries) == (BODY, 1)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_end(serve, code):
    server = serve(lambda request: answer(b"", f"{code} Moved", Location=f"/{request.number}"))
    with pytest.raises(APIError, match="redirected more than 5 times"):
        get(server.url)
    assert len(server.requests) == 6


def test_redirects_stay_on_the_web(serve):
    server = serve(lambda request: answer(b"", "302 Found", Location="file:///etc/passwd"))
    with pytest.raises(APIError, match="not an http or https URL") as caught:
        get(server.url)
    assert "passwd" not in str(caught.value)
    assert len(server.requests) == 1


def test_a_redirect_with_a_long_body_does_not_mix_answers(serve):
    server = serve(
        in_turn(answer(bytes(10**6), "302 Found", Location="/x"), answer(BODY), answer(b"two"))
    )
    assert get(server.url).content == BODY
    assert get(server.url).content == b"two"


def test_passwords_are_sent_to_their_host_only_and_not_shown(serve):
    other = serve(lambda request: answer(b"", "404 Not Found"))
    server = serve(lambda request: answer(b"", "302 Found", Location=f"{other.url}/x"))
    url = server.url.replace("http://", "http://me:secret@") + "/a"
    with pytest.raises(APIError) as caught:
        get(url)
    assert server.requests[0].headers["authorization"] == "Basic bWU6c2VjcmV0"
    assert "authorization" not in other.requests[0].headers
    assert "secret" not in str(caught.value)
    assert caught.value.url == f"{server.url}/a"


def test_no_connection_is_used_twice(serve):
    """Also where the server would have it so: what is left on one is nobody's."""
    server = serve(
        in_turn(2 * WHOLE, answer(b"moved", "302 Found", Location="/x") + WHOLE, answer(b"right"))
    )
    assert get(server.url).content == BODY
    assert get(server.url).content == b"right"
    assert (len(server.requests), server.connections) == (3, 3)
    assert {request.headers["connection"] for request in server.requests} == {"close"}


@pytest.mark.parametrize("status", ["102 Processing", "103 Early Hints", "199 Soon"])
def test_after_an_interim_answer_the_real_one_is_nobodys(serve, status):
    gone_on = threading.Event()

    def handler(request):
        if request.number == 0:
            yield f"HTTP/1.1 {status}\r\nLink: </x>\r\n\r\n".encode()
            gone_on.wait(120)
            yield answer(b"of the first request")
        else:
            gone_on.set()
            yield WHOLE

    body = get(serve(handler).url)
    assert (body.content, body.tries) == (BODY, 2)


def test_a_service_of_interim_answers_alone_is_one_error(serve):
    server = serve(lambda request: b"HTTP/1.1 103 Early Hints\r\n\r\n" + WHOLE)
    with pytest.raises(APIError, match=r"an interim answer \(HTTP status 103\)"):
        get(server.url)


def test_100_continue_is_passed_over(serve):
    server = serve(lambda request: b"HTTP/1.1 100 Continue\r\n\r\n" + WHOLE)
    assert get(server.url).content == BODY


@pytest.mark.parametrize("most", [1, 3])
def test_only_so_many_requests_at_once(serve, most):
    def after_the_others(request):
        # Each answer waits until as many requests have come as may be under way at once.
        with arrived:
            count[0] += 1
            round_end = -(-count[0] // most) * most
            arrived.notify_all()
            arrived.wait_for(lambda: count[0] >= round_end, timeout=120)
        yield WHOLE

    arrived, count = threading.Condition(), [0]
    server = serve(after_the_others)
    with set_options(max_connections=most, timeout=120), ThreadPoolExecutor(12) as pool:
        for future in [pool.submit(get, server.url) for _ in range(12)]:
            assert future.result().content == BODY
    assert server.most_at_once == most


def test_a_pause_holds_no_slot(serve, monkeypatch):
    def other_request(seconds):
        monkeypatch.undo()
        got.append(get(server.url + "/other").content)

    got = []
    server = serve(lambda r: answer(b"", "500 Oh") if r.number == 0 else WHOLE)
    monkeypatch.setattr(process, "pause", other_request)
    with set_options(max_connections=1):
        assert get(server.url).content == BODY
    assert got == [BODY]


def test_slots_are_given_back_after_errors(serve):
    server = serve(lambda request: answer(b"", "404 Not Found"))
    with set_options(max_connections=1):
        for _ in range(3):
            with pytest.raises(APIError):
                get(server.url)
    server.handler = lambda request: WHOLE
    with set_options(max_connections=1):
        assert get(server.url).content == BODY


def test_a_proxy_of_the_environment(serve, monkeypatch):
    proxy = serve(lambda request: WHOLE)
    monkeypatch.setenv("http_proxy", proxy.url.replace("http://", "http://me:secret@"))
    assert get("http://api.example/x").content == BODY
    assert proxy.paths == ["http://api.example/x"]
    assert proxy.requests[0].headers["proxy-authorization"] == "Basic bWU6c2VjcmV0"
    monkeypatch.setenv("http_proxy", proxy.url.removeprefix("http://"))
    assert get("http://api.example/y").content == BODY


def test_no_proxy(serve, monkeypatch):
    server = serve(lambda request: WHOLE)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    assert get(server.url).content == BODY


def test_a_broken_proxy_is_named_without_its_password(monkeypatch):
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    with set_options(retries=0), pytest.raises(APIError, match="proxy") as caught:
        get("http://api.example/x")
    assert "secret" not in str(caught.value)


def test_a_proxy_of_another_kind_is_refused(monkeypatch):
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")
    with pytest.raises(APIError, match="for a SOCKS proxy: pip install pysocks"):
        get("http://api.example/x")


def test_options_of_the_call_win(serve):
    server = serve(lambda request: answer(b"", "500 Oh"))
    with pytest.raises(APIError):
        get(server.url, options=current().model_copy(update={"retries": 0}))
    assert len(server.requests) == 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.one_of(
        st.binary(max_size=200),
        st.binary(max_size=100).map(lambda rest: b"HTTP/1.1 200 OK\r\n" + rest),
        st.binary(max_size=100).map(
            lambda rest: b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + rest
        ),
        st.text(max_size=50).map(
            lambda rest: f"HTTP/1.1 302 Found\r\nLocation: {rest}\r\n\r\n".encode()
        ),
    )
)
def test_any_answer_is_a_body_or_an_error(one_server, raw):
    one_server.handler = lambda request: iter([raw, "close"])
    with set_options(retries=0, timeout=2), suppress(APIError):
        assert isinstance(get(one_server.url + "/x").content, bytes)


@pytest.fixture
def one_server(serve):
    return serve(lambda request: b"")


def open_sockets() -> int:
    def is_socket(number):
        try:
            return stat.S_ISSOCK(os.fstat(number).st_mode)
        except OSError:
            return False

    return sum(map(is_socket, range(512)))


@pytest.mark.skipif(os.name == "nt", reason="sockets are no files here")
@pytest.mark.parametrize("fault", [*FAULTS, "too large", "redirected away", "refused", "none"])
def test_no_socket_is_left_open(serve, fault):
    others = {
        "too large": [answer(bytes(2**21))],
        "redirected away": [answer(bytes(10**6), "302 Found", Location="ftp://g/")],
        "refused": [answer(b"", "404 Not Found")],
        "none": [WHOLE],
    }
    before = open_sockets()
    server = serve(lambda request: iter({**FAULTS, **others}[fault]))
    # What only the garbage collector would close counts as left open.
    gc.disable()
    try:
        with set_options(retries=1), suppress(APIError):
            get(server.url)
        server.stop()
        assert open_sockets() == before
    finally:
        gc.enable()


def part(body: bytes, first: int, last: int, whole: object = None, **headers: str) -> bytes:
    place = f"bytes {first}-{last}/{len(BODY) if whole is None else whole}"
    return answer(body, "206 Partial Content", Content_Range=place, **headers)


@pytest.mark.parametrize(("start", "stop"), [(0, 1), (100, 5000), (9000, 99_999)])
def test_a_part_of_a_file(serve, start, stop):
    found = BODY[start:stop]
    server = serve(lambda request: part(found, start, start + len(found) - 1))
    body = get(server.url, byte_range=(start, stop))
    assert (body.content, body.whole_bytes) == (found, len(BODY))
    assert server.requests[0].headers["range"] == f"bytes={start}-{stop - 1}"


@pytest.mark.parametrize(
    ("wrong", "words", "tries"),
    [
        (WHOLE, "sends files whole, not in parts", 1),
        (part(BODY[:9], 0, 8), "bytes 0 to 8 came instead of 100 to 199", 3),
        (part(BODY[100:150], 100, 149), "only 50 of 100 bytes came", 3),
        (part(BODY[100:150], 100, 199), "came instead of", 3),
        (answer(BODY[100:200], "206 Partial Content"), "came without its place", 3),
        (part(BODY[100:300], 100, 299), "more than the 100 expected", 1),
        (part(BODY[100:200], 100, 199, Content_Encoding="br"), "compressed", 1),
        (answer(b"", "416 Range Not Satisfiable"), "HTTP status 416", 1),
    ],
)
def test_a_part_that_is_not_the_one_asked_for(serve, wrong, words, tries):
    server = serve(lambda request: wrong)
    with pytest.raises(APIError, match=words):
        get(server.url, byte_range=(100, 200))
    assert len(server.requests) == tries


def test_an_endless_part_is_left(serve):
    def endless(request):
        yield b"HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 0-9/10\r\n\r\n"
        while True:
            yield bytes(2**16)

    server = serve(endless)
    with pytest.raises(APIError, match="more than the 10 bytes expected"):
        get(server.url, byte_range=(0, 10))


@pytest.mark.parametrize("proxy", ["://", "http://", "notaproxy::", "http://:99999", "http://[::1"])
def test_a_proxy_that_is_none_is_one_error(monkeypatch, proxy):
    monkeypatch.setenv("http_proxy", proxy)
    with set_options(retries=0, timeout=5), pytest.raises(APIError):
        get("http://api.example/x")
