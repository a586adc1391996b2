"""Each fault behaves as it is named, seen from the socket, and hits what it is meant to hit."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np
import pytest
import simplejpeg

from atldld.testing import AllenServer, Fault, PhantomBrain, PhantomDataset, phantom_dataset

IMAGE = "/api/v2/section_image_download/1001001?downsample=1"
ROW = "/api/v2/data/SectionDataSet/1001.json?include=section_images(alignment2d)"


class Wire(NamedTuple):
    """All that came over a socket until it ended, and how it ended."""

    head: str
    body: bytes
    ending: str

    @property
    def status(self) -> int:
        return int(self.head.split()[1])

    @property
    def length(self) -> int:
        (line,) = (x for x in self.head.splitlines() if x.lower().startswith("content-length"))
        return int(line.partition(":")[2])


def listen(server: AllenServer, path: str) -> Wire:
    host, _, port = server.origin.removeprefix("http://").partition(":")
    received = b""
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        ending = "end"
        try:
            while piece := connection.recv(65536):
                received += piece
        except ConnectionResetError:
            ending = "reset"
    head, _, body = received.partition(b"\r\n\r\n")
    return Wire(head.decode("latin-1"), body, ending)


@pytest.fixture(scope="module")
def dataset() -> PhantomDataset:
    return phantom_dataset(1001, sections=4, brain=PhantomBrain(), resolution=12.0, tier_count=3)


@pytest.fixture(scope="module")
def sound(dataset: PhantomDataset) -> Any:
    """The body of `IMAGE`, when nothing is wrong."""
    with AllenServer(dataset, redirects=False) as server:
        wire = listen(server, IMAGE)
        assert (wire.status, wire.ending, wire.length) == (200, "end", len(wire.body))
        return wire.body


@pytest.fixture
def server(dataset: PhantomDataset) -> Any:
    with AllenServer(dataset, redirects=False) as running:
        yield running
        assert running.errors == []


@pytest.mark.parametrize("status", ["400", "403", "404", "429", "500", "502", "503", "504"])
def test_statuses(server: AllenServer, status: Any) -> None:
    server.add_fault(Fault(status, retry_after=7 if status in ("429", "503") else None))
    wire = listen(server, IMAGE)
    assert wire.status == int(status)
    assert ("Retry-After: 7" in wire.head) == (status in ("429", "503"))
    assert b"<html>" in wire.body
    assert wire.length == len(wire.body)
    (record,) = server.image_requests
    assert (record.status, record.fault) == (int(status), status)


def test_retry_after_may_be_a_date(server: AllenServer) -> None:
    server.add_fault(Fault("503", retry_after="Wed, 21 Oct 2026 07:28:00 GMT"))
    assert "Retry-After: Wed, 21 Oct 2026 07:28:00 GMT" in listen(server, IMAGE).head


def test_html_with_200(server: AllenServer) -> None:
    server.add_fault(Fault("html"))
    wire = listen(server, IMAGE)
    assert wire.status == 200
    assert wire.body.startswith(b"<!DOCTYPE html>")
    assert "text/html" in wire.head


def test_empty(server: AllenServer) -> None:
    server.add_fault(Fault("empty"))
    wire = listen(server, IMAGE)
    assert (wire.status, wire.length, wire.body) == (200, 0, b"")
    assert "image/jpeg" in wire.head


def test_reset(server: AllenServer, sound: bytes) -> None:
    server.add_fault(Fault("reset"))
    wire = listen(server, IMAGE)
    assert wire.ending == "reset"
    assert wire.length == len(sound)
    assert len(wire.body) < len(sound)
    assert server.image_requests[0].bytes_sent == len(sound) // 2


def test_short(server: AllenServer, sound: bytes) -> None:
    server.add_fault(Fault("short"))
    wire = listen(server, IMAGE)
    assert (wire.status, wire.ending) == (200, "end")
    assert 0 < len(wire.body) < wire.length
    assert sound.startswith(wire.body)
    assert server.image_requests[0].bytes_sent == len(wire.body)


def test_early_end_is_well_formed(server: AllenServer, sound: bytes) -> None:
    server.add_fault(Fault("early-end"))
    assert "Transfer-Encoding: chunked" in listen(server, IMAGE).head
    connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
    connection.request("GET", IMAGE)
    body = connection.getresponse().read()
    assert 0 < len(body) < len(sound)
    assert sound.startswith(body)
    connection.close()


def test_slow_drips_all_of_it(server: AllenServer, sound: bytes) -> None:
    server.add_fault(Fault("slow", seconds=0.001, piece=len(sound) // 5))
    wire = listen(server, IMAGE)
    assert wire.body == sound
    assert server.image_requests[0].bytes_sent == len(sound)


def test_truncated_is_cut_within_its_length(server: AllenServer, sound: bytes) -> None:
    server.add_fault(Fault("truncated"))
    wire = listen(server, IMAGE)
    assert wire.length == len(wire.body) < len(sound)
    assert sound.startswith(wire.body)
    with pytest.raises(ValueError, match="JPEG"):
        simplejpeg.decode_jpeg(wire.body, strict=True)


@pytest.mark.parametrize("texture", ["tissue", "smooth", "fine"])
@pytest.mark.parametrize("tier", [0, 2, 4])
def test_damaged_has_head_and_end_and_is_refused(texture: Any, tier: int) -> None:
    dataset = phantom_dataset(1001, sections=3, brain=PhantomBrain(texture), resolution=12.0)
    path = f"/api/v2/section_image_download/1001001?downsample={tier}"
    with AllenServer(dataset, redirects=False) as server:
        sound = listen(server, path).body
        server.add_fault(Fault("damaged"))
        wire = listen(server, path)
    assert wire.length == len(wire.body) == len(sound)
    assert wire.body[:300] == sound[:300]
    assert wire.body[-2:] == b"\xff\xd9"
    header = simplejpeg.decode_jpeg_header(wire.body)
    assert header == simplejpeg.decode_jpeg_header(sound)
    with pytest.raises(ValueError, match="JPEG"):
        simplejpeg.decode_jpeg(wire.body, strict=True)


def test_wrong_size_is_a_sound_jpeg(server: AllenServer, sound: bytes) -> None:
    server.add_fault(Fault("wrong-size"))
    body = listen(server, IMAGE).body
    right = simplejpeg.decode_jpeg(sound)
    wrong = simplejpeg.decode_jpeg(body, strict=True)
    assert wrong.shape == (right.shape[0] + 1, (right.shape[1] + 1) // 2, 3)


def test_wrong_format_is_a_png_of_the_same_picture(server: AllenServer, sound: bytes) -> None:
    import cv2

    server.add_fault(Fault("wrong-format"))
    wire = listen(server, IMAGE)
    assert wire.body.startswith(b"\x89PNG")
    assert "image/png" in wire.head
    picture = cv2.imdecode(np.frombuffer(wire.body, np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(picture[..., ::-1], simplejpeg.decode_jpeg(sound))


def test_a_body_of_one_s_own(server: AllenServer) -> None:
    server.add_fault(Fault("body", body=b'{"x": 1', status=206, content_type="text/x"))
    wire = listen(server, IMAGE)
    assert (wire.status, wire.body) == (206, b'{"x": 1')
    assert "text/x" in wire.head


def test_drop_answers_nothing(server: AllenServer) -> None:
    server.add_fault(Fault("drop"))
    wire = listen(server, IMAGE)
    assert (wire.head, wire.body) == ("", b"")
    (record,) = server.image_requests
    assert (record.status, record.bytes_sent, record.fault) == (0, 0, "drop")


def test_hang_ends_after_its_time_or_with_the_server(dataset: PhantomDataset) -> None:
    with AllenServer(dataset, redirects=False) as server:
        server.add_fault(Fault("hang", seconds=0.05, times=1))
        assert listen(server, IMAGE).head == ""
        server.add_fault(Fault("hang", times=1))
        host, _, port = server.origin.removeprefix("http://").partition(":")
        connection = socket.create_connection((host, int(port)), timeout=20)
        connection.sendall(f"GET {IMAGE} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    with connection, contextlib.suppress(ConnectionResetError):
        assert connection.recv(100) == b""


def test_latency_delays_and_lets_the_rest_happen(server: AllenServer, sound: bytes) -> None:
    server.add_fault(Fault("latency", seconds=0.01))
    assert listen(server, IMAGE).body == sound
    server.add_fault(Fault("404"))
    assert listen(server, IMAGE).status == 404
    assert [record.fault for record in server.image_requests] == ["latency", "404"]


@pytest.mark.parametrize("kind", ["500", "html", "empty", "reset", "short", "early-end", "drop"])
def test_metadata_goes_wrong_too(server: AllenServer, kind: Any) -> None:
    server.add_fault(Fault(kind, request="metadata"))
    assert listen(server, IMAGE).status == 200
    wire = listen(server, ROW)
    if kind in ("500", "html", "empty"):
        assert wire.status == (500 if kind == "500" else 200)
        with pytest.raises(ValueError, match="Expecting value"):
            json.loads(wire.body)
    else:
        assert not wire.body.endswith(b"]}")
    assert server.requests[-1].fault == kind


def test_truncated_metadata_is_half_a_json(server: AllenServer) -> None:
    server.add_fault(Fault("truncated", request="metadata"))
    wire = listen(server, ROW)
    assert wire.body.startswith(b'{"success": true')
    with pytest.raises(ValueError, match=r"\w"):
        json.loads(wire.body)


def test_faults_hit_what_they_are_for(dataset: PhantomDataset) -> None:
    def statuses(fault: Fault) -> list[int]:
        with AllenServer(dataset, faults=[fault], redirects=False) as server:
            paths = [
                f"/api/v2/section_image_download/{image_id}?downsample={tier}{view}"
                for image_id in (1001000, 1001001)
                for tier in (1, 2)
                for view in ("", "&view=expression")
            ]
            return [listen(server, path).status for path in [*paths, ROW]]

    ok = [200] * 9
    cases: list[tuple[Fault, list[int]]] = [
        (Fault("500", image_ids=1001001), [4, 5, 6, 7]),
        (Fault("500", image_ids=[1001001, 5]), [4, 5, 6, 7]),
        (Fault("500", tiers=1), [0, 1, 4, 5]),
        (Fault("500", views="expression"), [1, 3, 5, 7]),
        (Fault("500", views=("expression",), tiers=(2,), image_ids=(1001000,)), [3]),
        (Fault("500", times=2), [0, 1]),
        (Fault("500", skip=3, times=2), [3, 4]),
        (Fault("500", every=3), [0, 3, 6]),
        (Fault("500", skip=1, every=3, times=2), [1, 4]),
        (Fault("500", request="metadata"), [8]),
        (Fault("500", request="any"), list(range(9))),
        (Fault("500", request="any", path="downsample=2&view"), [3, 7]),
        (Fault("500", image_ids=[]), []),
    ]
    for fault, hit in cases:
        expected = [500 if place in hit else status for place, status in enumerate(ok)]
        assert statuses(fault) == expected, fault


def test_behind_a_redirect_the_body_is_hit(dataset: PhantomDataset, fetch: Any) -> None:
    path = IMAGE.removeprefix("/api/v2")
    with AllenServer(dataset, faults=[Fault("404", times=1)]) as server:
        assert fetch(server, path, follow=False).status == 302
        assert fetch(server, path).status == 404
        assert fetch(server, path).status == 200
        server.add_fault(Fault("503", request="redirect"))
        assert fetch(server, path).status == 503
        server.clear_faults()
        assert fetch(server, path).status == 200


def test_faults_at_once_are_counted_apart(server: AllenServer) -> None:
    server.add_fault(Fault("500", times=1))
    server.add_fault(Fault("404", times=1))
    assert [listen(server, IMAGE).status for _ in range(3)] == [500, 404, 200]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kind": "explode"}, "must be one of"),
        ({"kind": "damaged", "request": "metadata"}, "a fault of images"),
        ({"kind": "rows", "request": "image"}, "a fault of metadatas"),
        ({"kind": "404", "every": 0}, "out of range"),
    ],
)
def test_bad_faults_say_what_would_be_right(options: dict, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        Fault(**options)


def test_early_hints_come_first(server: AllenServer, sound: bytes) -> None:
    server.add_fault(Fault("early-hints", seconds=0.001))
    wire = listen(server, IMAGE)
    assert wire.status == 103
    head, _, body = wire.body.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\n")
    assert body == sound


def test_two_answers_are_the_same_twice(server: AllenServer, sound: bytes) -> None:
    server.add_fault(Fault("two-answers"))
    wire = listen(server, IMAGE)
    assert (wire.status, wire.length) == (200, len(sound))
    assert wire.body == sound + wire.head.encode() + b"\r\n\r\n" + sound
