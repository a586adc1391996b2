"""The server as a whole: where it listens, what it leaves behind, its log, other processes."""

from __future__ import annotations

import ast
import contextlib
import http.client
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

import atldld.testing
from atldld.testing import (
    AllenServer,
    Doubts,
    Fault,
    load_recorded,
    phantom_dataset,
)

DATASET = phantom_dataset(1001, sections=3, resolution=32.0, tier_count=3)
IMAGE = "/section_image_download/1001001?downsample=1"


def test_it_listens_on_loopback_only() -> None:
    for host in ("0.0.0.0", "192.0.2.1", "::", "example.org", ""):
        with pytest.raises(ValueError, match="loopback"):
            AllenServer(DATASET, host=host)
    for host in ("localhost", "127.0.0.1"):
        with AllenServer(DATASET, host=host) as server:
            assert urlsplit(server.url).hostname == "127.0.0.1"
            assert server.url.endswith("/api/v2")


def test_it_leaves_no_thread_and_no_connection_behind() -> None:
    before = set(threading.enumerate())
    with AllenServer(DATASET) as server:
        place = urlsplit(server.url)
        idle = http.client.HTTPConnection(place.netloc, timeout=20)
        for _ in range(2):
            idle.request("GET", "/api/v2/data/Gene/query.json")
            assert idle.getresponse().read()
        silent = socket.create_connection((place.hostname, place.port), timeout=20)
        half = socket.create_connection((place.hostname, place.port), timeout=20)
        half.sendall(b"GET /api/v2/da")
    assert set(threading.enumerate()) == before
    for connection in (silent, half):
        with connection, contextlib.suppress(ConnectionResetError):
            assert connection.recv(10) == b""
    idle.close()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((place.hostname, place.port), timeout=20)


def test_clients_that_leave_early_print_nothing(capfd: Any) -> None:
    dataset = phantom_dataset(5, sections=1, resolution=4.0)
    with AllenServer(dataset, redirects=False) as server:
        server.prepare(tiers=0)
        place = urlsplit(server.url)
        for _ in range(3):
            with socket.create_connection((place.hostname, place.port), timeout=20) as leaver:
                leaver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
                leaver.sendall(b"GET /api/v2/section_image_download/5000 HTTP/1.1\r\n\r\n")
                assert leaver.recv(10)
        with socket.create_connection((place.hostname, place.port), timeout=20) as rude:
            rude.sendall(b"\x00\x01nonsense\r\n\r\n")
            assert b"400" in rude.recv(1000)
    assert server.errors == []
    captured = capfd.readouterr()
    assert (captured.out, captured.err) == ("", "")


def test_connections_are_kept_for_more_requests() -> None:
    with AllenServer(DATASET) as server:
        connection = http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=20)
        connection.request("GET", "/api/v2/data/Gene/query.json")
        connection.getresponse().read()
        held = connection.sock
        for path in ("/api/v2/data/SectionImage/query.json", f"/api/v2{IMAGE}", "/nothing"):
            connection.request("GET", path)
            connection.getresponse().read()
            assert connection.sock is held
        connection.close()


def test_the_log_has_what_a_client_has_the_answer_of(fetch: Any) -> None:
    with AllenServer(DATASET) as server:
        assert server.requests == []
        body = fetch(server, IMAGE).body
        fetch(server, "/data/Gene/query.json?criteria=%5Bid$gt0%5D")
        redirect, image, metadata = server.requests
        assert [r.kind for r in (redirect, image, metadata)] == ["redirect", "image", "metadata"]
        assert [r.number for r in server.requests] == [0, 1, 2]
        assert image.bytes_sent == len(body)
        assert (image.image_id, image.view, image.tier) == (1001001, "image", 1)
        assert image.window is None
        assert image.fault is None
        assert redirect.status == 302
        assert metadata.path == "/api/v2/data/Gene/query.json?criteria=[id$gt0]"
        assert server.image_requests == [image]
        with pytest.raises(AttributeError):
            image.status = 500
        snapshot = server.requests
        server.reset_log()
        assert server.requests == []
        assert len(snapshot) == 3


def test_the_high_water_counts_requests_in_service(fetch: Any) -> None:
    with AllenServer(DATASET, redirects=False) as server:
        for _ in range(100):
            # Each by a connection of its own, one strictly after the other.
            fetch(server, IMAGE)
        assert server.connections_high_water == 1
        server.add_fault(Fault("hang", times=3))
        place = urlsplit(server.url)
        hanging = []
        for count in range(1, 4):
            connection = socket.create_connection((place.hostname, place.port), timeout=20)
            connection.sendall(f"GET /api/v2{IMAGE} HTTP/1.1\r\n\r\n".encode())
            hanging.append(connection)
            while len(server.requests) < 100 + count:
                threading.Event().wait(0.001)
        assert server.connections_high_water == 3
        fetch(server, IMAGE)
        assert server.connections_high_water == 4
        server.reset_log()
        assert server.connections_high_water == 3
    for connection in hanging:
        connection.close()


def test_many_at_once_get_the_same_body(fetch: Any) -> None:
    with AllenServer(DATASET) as server:
        bodies: list[bytes] = []
        threads = [
            threading.Thread(target=lambda: bodies.append(fetch(server, IMAGE).body))
            for _ in range(24)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(bodies) == 24
        assert len(set(bodies)) == 1
        assert len(server.image_requests) == 24


def test_latency_is_added_to_every_request(fetch: Any) -> None:
    with AllenServer(DATASET, latency=0.02) as server:
        fetch(server, IMAGE)
        first, second = server.requests
        assert first.at >= 0.02
        assert second.at - first.at >= 0.02


def test_recorded_data_are_served_byte_for_byte(fetch: Any, real_data: Path) -> None:
    import json

    folder = real_data / "69289763"
    recorded = load_recorded(folder)
    with AllenServer([DATASET, recorded]) as server:
        stored = (folder / "section_image_69177654_downsample_2.jpg").read_bytes()
        for _ in range(2):
            reply = fetch(server, "/section_image_download/69177654?downsample=2")
            assert reply.body == stored
        include = (
            "genes,products,specimen(donor(age)),treatments,alignment3d,section_images(alignment2d)"
        )
        reply = fetch(server, f"/data/SectionDataSet/69289763.json?include={include}")
        (expected,) = json.loads((folder / "query.json").read_text())["msg"]
        (row,) = reply.json["msg"]
        assert row.pop("treatments") == []
        assert row["specimen"]["donor"].pop("age")["name"] == "P56"
        assert row == expected
        for path in ("69177654?downsample=3", "69177656?downsample=2", "69177654?view=expression"):
            assert fetch(server, f"/section_image_download/{path}").status == 404
        assert server.errors == []


def test_windows_of_recorded_images_are_cut(fetch: Any, real_data: Path) -> None:
    import numpy as np
    import simplejpeg

    recorded = load_recorded(real_data / "69289763")
    whole = simplejpeg.decode_jpeg(recorded.encoded(69177654, "image", 2))
    assert whole.shape == (1888, 2980, 3)
    with AllenServer(recorded) as server:
        path = "/section_image_download/69177654?downsample=2&left=4000&top=2000&width=300"
        reply = fetch(server, f"{path}&height=200&downsample_dimensions=false")
        part = simplejpeg.decode_jpeg(reply.body).astype(int)
        assert np.mean(np.abs(part - whole[500:700, 1000:1300])) < 2
        past = fetch(server, f"{path.replace('4000', '11800')}&height=200").body
        assert simplejpeg.decode_jpeg(past)[:, 50:].min() > 250


def test_a_folder_that_holds_nothing_recorded(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"query\.json"):
        load_recorded(tmp_path)
    (tmp_path / "query.json").write_text('{"success": false, "msg": "no"}')
    with pytest.raises(ValueError, match="envelope"):
        load_recorded(tmp_path)


def test_a_server_in_another_process(fetch: Any) -> None:
    doubts = Doubts(max_rows=2)
    with AllenServer.spawn([DATASET], doubts=doubts, redirects=False, latency=0.001) as server:
        assert server.pid != os.getpid()
        total = server.prepare(tiers=[1])
        bodies = [fetch(server, f"/section_image_download/{i}?downsample=1").body
                  for i in DATASET.image_ids]  # fmt: skip
        assert total == sum(len(body) for body in bodies)
        with AllenServer(DATASET) as here:
            assert fetch(here, IMAGE).body == bodies[1]
        assert [request.image_id for request in server.image_requests] == DATASET.image_ids
        assert server.image_requests[0].bytes_sent == len(bodies[0])
        assert server.connections_high_water == 1
        assert len(fetch(server, "/data/SectionImage/query.json").json["msg"]) == 2
        server.reset_log()
        server.add_fault(Fault("body", body=b"\xff\x00", times=1, image_ids=[1001001]))
        assert fetch(server, IMAGE).body == b"\xff\x00"
        assert fetch(server, IMAGE).body == bodies[1]
        server.add_fault(Fault("404"))
        server.clear_faults()
        assert fetch(server, IMAGE).status == 200
        assert [request.fault for request in server.requests] == ["body", None, None]
        with pytest.raises(ValueError, match="refused: SectionImage 9 was not found"):
            server.prepare(image_ids=[9])
        assert server.errors == []
        place = urlsplit(server.url)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((place.hostname, place.port), timeout=20)
    with pytest.raises(RuntimeError, match="not running"):
        AllenServer.spawn([DATASET]).reset_log()


def test_bad_doubts_say_what_would_be_right() -> None:
    with pytest.raises(ValueError, match="'tier', 'full'"):
        Doubts(window_sizes="half")


def test_it_shares_nothing_with_the_rest_of_the_package() -> None:
    folder = Path(atldld.testing.__file__).parent
    for path in folder.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom):
                assert node.level <= 1, path
                assert not (node.module or "").startswith("atldld"), path
            elif isinstance(node, ast.Import):
                assert not any(name.name.startswith("atldld") for name in node.names), path


def test_importing_it_is_cheap() -> None:
    code = "import sys, atldld.testing; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    heavy = {"cv2", "simplejpeg", "xarray", "pandas", "dask", "urllib3", "requests", "fsspec"}
    assert not loaded & (heavy | {"click", "matplotlib", "distributed"})
