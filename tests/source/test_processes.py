"""Processes that share a cache, and processes that die in the middle of their work."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from atldld.options import set_options
from atldld.source.allen import AllenSource
from atldld.source.prefetch import fetch_ahead
from atldld.store.files import locked
from atldld.store.names import image_name

from .conftest import a_read, answer, jpeg

pytestmark = pytest.mark.exhaustive

BODIES = {image_id: jpeg(seed=image_id) for image_id in range(6)}
READER = Path(__file__).parent / "reader.py"


def body_of(request) -> bytes:
    return answer(BODIES[int(request.path.partition("?")[0].rpartition("/")[2])])


def halves(gate: threading.Event):
    """Send half of each body, and the rest once the gate is open."""

    def handler(request):
        body = body_of(request)
        yield body[: len(body) // 2]
        yield gate
        yield body[len(body) // 2 :]

    return handler


@pytest.fixture
def start():
    """Return a function that starts a reader, and end those who still run."""
    running = []

    def begin(url: str, cache_dir: Path, image_ids=(0,), **job):
        whole = {"url": url, "cache_dir": str(cache_dir), "image_ids": list(image_ids), **job}
        running.append(
            subprocess.Popen(
                [sys.executable, str(READER), json.dumps(whole)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
        )
        return running[-1]

    yield begin
    for process in running:
        process.kill()
        process.communicate()


def result(process: subprocess.Popen[str]) -> list[str]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    assert err == ""
    return json.loads(out.splitlines()[-1])


def digest(image_id: int) -> str:
    return hashlib.sha256(BODIES[image_id]).hexdigest()


@pytest.mark.parametrize("break_locks", [False, True], ids=["locks", "no locks"])
def test_64_readers_of_one_slow_download(serve, start, tmp_path, break_locks):
    gate = threading.Event()
    server = serve(halves(gate))
    job = {"image_ids": [0, 1], "threads": 8, "break_locks": break_locks}
    early = [start(server.url, tmp_path, **job) for _ in range(4)]
    for process in early:
        assert process.stdout.readline() == "started\n"
    # The download is in its middle when the others come.
    while not server.requests:
        threading.Event().wait(0.01)
    late = [start(server.url, tmp_path, **job) for _ in range(4)]
    for process in late:
        assert process.stdout.readline() == "started\n"
    gate.set()
    found = [result(process) for process in (*early, *late)]
    assert all(sorted(each) == sorted([digest(0), digest(1)] * 8) for each in found)
    if break_locks:
        assert len(server.requests) > 2
    else:
        assert len(server.requests) == 2


def wait_for(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "Ctrl-C"])
def test_a_reader_dies_in_the_middle_of_a_download(serve, start, tmp_path, number):
    gate = threading.Event()
    server = serve(lambda r: halves(gate)(r) if "/1?" in r.path else body_of(r))
    process = start(server.url, tmp_path, image_ids=[0, 1, 2])
    wait_for(lambda: len(server.requests) == 2)
    if number == signal.SIGINT:
        # The reader's main thread waits for the thread that reads; let that one go on after.
        process.send_signal(number)
        gate.set()
    else:
        process.kill()
    process.communicate(timeout=60)
    gate.set()
    assert process.returncode != 0
    before = len(server.requests)
    again = start(server.url, tmp_path, image_ids=[0, 1, 2])
    assert result(again) == [digest(0), digest(1), digest(2)]
    if number == signal.SIGKILL:
        assert [r.path.partition("?")[0][-1] for r in server.requests[before:]] == ["1", "2"]


@pytest.mark.parametrize("point", [0, 1, 2, 3])
def test_a_reader_dies_while_it_writes(serve, start, tmp_path, point):
    """Killed before a file, or its record, is moved into place; the lock dies with it."""
    server = serve(body_of)
    process = start(server.url, tmp_path, image_ids=[0, 1], stop_at=point)
    assert process.stdout.readline() == "started\n"
    assert process.stdout.readline() == "stopped\n"
    process.kill()
    process.communicate()
    done = point // 2
    assert len(server.requests) == done + 1
    source = AllenSource(server.url)
    with set_options(cache_dir=tmp_path):
        assert [source.cached(a_read(i)) for i in (0, 1)] == [done > 0, False]
        found = [content for _, content in fetch_ahead(source, [a_read(0), a_read(1)])]
    assert found == [BODIES[0], BODIES[1]]
    assert len(server.requests) == 3
    assert len(list(tmp_path.glob("*/partial/*"))) == 1


READ_ONE = """
import signal, sys
from atldld import set_options
from atldld.model.read import ImageRead
from atldld.source.allen import AllenSource
signal.signal(signal.SIGINT, signal.default_int_handler)
set_options(cache_dir=sys.argv[2], timeout=3600, retries=4)
AllenSource(sys.argv[1]).image(ImageRead(0, "image", 2, 64, 48))
"""


def test_ctrl_c_in_a_pause_ends_at_once_and_leaves_nothing(serve, tmp_path):
    server = serve(lambda request: answer(b"", "503 Busy", Retry_After="600"))
    process = subprocess.Popen(
        [sys.executable, "-c", READ_ONE, server.url, str(tmp_path)],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: server.requests)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert "KeyboardInterrupt" in err
    assert not list(tmp_path.rglob("*.jpg*"))
    assert len(server.requests) == 1


def test_a_lock_that_nobody_frees_costs_time_but_no_result(serve, tmp_path):
    """A holder that hangs: after the time that a download may take, another goes on."""
    server = serve(body_of)
    source = AllenSource(server.url)
    with set_options(cache_dir=tmp_path, timeout=0.2, retries=0):
        source.image(a_read(0))
        source.discard(a_read(0))
        (lock,) = tmp_path.glob("*/locks/*.lock")
        with locked(lock, patience=0) as held:
            assert held
            assert source.image(a_read(0)) == BODIES[0]
        assert source.cached(a_read(0))


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_has_connections_and_threads_of_its_own(serve, tmp_path):
    gate = threading.Event()
    server = serve(lambda r: halves(gate)(r) if "/5?" in r.path else body_of(r))
    source = AllenSource(server.url)
    with set_options(cache_dir=tmp_path, max_connections=2):
        source.image(a_read(0))
        # A thread of the parent holds one of two places, a lock and a flight while it forks.
        thread = threading.Thread(target=source.image, args=(a_read(5),))
        thread.start()
        wait_for(lambda: len(server.requests) == 2)
        child = os.fork()
        if child == 0:
            try:
                found = [c for _, c in fetch_ahead(source, [a_read(1), a_read(2), a_read(3)])]
                os._exit(0 if found == [BODIES[1], BODIES[2], BODIES[3]] else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        gate.set()
        thread.join()
        assert os.waitstatus_to_exitcode(status) == 0
        assert source.image(a_read(4)) == BODIES[4]
    assert image_name(a_read(4)) == "images/4/image-t2.jpg"
    assert len(server.requests) == 6


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_does_not_write_to_the_connections_of_its_parent(serve, tmp_path):
    server = serve(body_of)
    source = AllenSource(server.url)
    with set_options(cache_dir=tmp_path):
        source.image(a_read(0))
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if source.image(a_read(1)) == BODIES[1] else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert source.image(a_read(2)) == BODIES[2]
