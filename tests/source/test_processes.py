"""Processes that share a cache, and processes that die in the middle of their work."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import atldld
from usual import usual

from .conftest import (
    PIXELS,
    SMALL,
    SMALL_IMAGES,
    answer,
    number_asked,
    numbers_asked,
    small_answer,
    small_image,
)

exhaustive = pytest.mark.exhaustive

READER = Path(__file__).parent / "reader.py"


def halves(gate: threading.Event, *slow: int):
    """Send half of each body, or of these, and the rest once the gate is open."""

    def handler(request):
        body = small_answer(request)
        number = number_asked(request)
        if number is None or (slow and number not in slow):
            yield body
            return
        yield body[: len(body) // 2]
        yield gate
        yield body[len(body) // 2 :]

    return handler


@pytest.fixture
def start():
    """Return a function that starts a reader, and end those who still run."""
    running = []

    def begin(url: str, cache_dir: Path, numbers=(0,), **job):
        images = [SMALL_IMAGES[number]["id"] for number in numbers]
        whole = {"url": url, "cache_dir": str(cache_dir), "dataset_id": SMALL.id, **job}
        running.append(
            subprocess.Popen(
                [sys.executable, str(READER), json.dumps({**whole, "image_ids": images})],
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
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err
    assert err == ""
    return json.loads(out.splitlines()[-1])


def digest(number: int) -> str:
    return hashlib.sha256(PIXELS[number].tobytes()).hexdigest()


def described(url: str, cache_dir: Path) -> Path:
    """Have the dataset described in a cache, and return the folder of its service."""
    with atldld.set_options(cache_dir=cache_dir):
        atldld.open_image(SMALL_IMAGES[0]["id"], dataset_id=SMALL.id, source=url)
    return next(path for path in cache_dir.iterdir() if (path / "datasets").is_dir())


@exhaustive
@pytest.mark.parametrize("break_locks", [False, True], ids=["locks", "no locks"])
def test_64_readers_of_one_slow_download(serve, start, tmp_path, break_locks):
    gate = threading.Event()
    server = serve(halves(gate))
    if break_locks:
        # Where locks would be there is something else.
        folder = described(server.url, tmp_path)
        shutil.rmtree(folder / "locks", ignore_errors=True)
        (folder / "locks").write_bytes(b"")
    job = {"numbers": [0, 1], "threads": 8}
    early = [start(server.url, tmp_path, **job) for _ in range(4)]
    for process in early:
        assert process.stdout.readline() == "started\n"
    # The download is in its middle when the others come.
    wait_for(lambda: numbers_asked(server))
    late = [start(server.url, tmp_path, **job) for _ in range(4)]
    for process in late:
        assert process.stdout.readline() == "started\n"
    if break_locks:
        wait_for(lambda: len(numbers_asked(server)) > 1)
    gate.set()
    found = [result(process) for process in (*early, *late)]
    assert all(sorted(each) == sorted([digest(0), digest(1)] * 8) for each in found)
    if break_locks:
        assert len(numbers_asked(server)) > 2
    else:
        assert sorted(numbers_asked(server)) == [0, 1]


def wait_for(condition) -> None:
    deadline = time.monotonic() + 300
    while not condition():
        assert time.monotonic() < deadline
        threading.Event().wait(0.01)


@exhaustive
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT], ids=["kill", "Ctrl-C"])
def test_a_reader_dies_in_the_middle_of_a_download(serve, start, tmp_path, number):
    gate = threading.Event()
    server = serve(halves(gate, 1))
    process = start(server.url, tmp_path, [0, 1, 2])
    wait_for(lambda: len(numbers_asked(server)) == 2)
    if number == signal.SIGINT:
        # The reader's main thread waits for the thread that reads; let that one go on after.
        process.send_signal(number)
        gate.set()
    else:
        process.kill()
    process.communicate(timeout=300)
    gate.set()
    assert process.returncode != 0
    before = len(numbers_asked(server))
    again = start(server.url, tmp_path, [0, 1, 2])
    assert result(again) == [digest(0), digest(1), digest(2)]
    if number == signal.SIGKILL:
        assert numbers_asked(server)[before:] == [1, 2]


@pytest.mark.parametrize("point", usual([1, 0, 2, 3]))
def test_a_reader_dies_while_it_writes(serve, start, tmp_path, point):
    """Killed before a file, or its record, is moved into place; the lock dies with it."""
    server = serve(small_answer)
    process = start(server.url, tmp_path, [0, 1], stop_at=point)
    assert process.stdout.readline() == "started\n"
    assert process.stdout.readline() == "stopped\n"
    process.kill()
    process.communicate()
    done = point // 2
    assert numbers_asked(server) == [0, 1][: done + 1]
    with atldld.set_options(cache_dir=tmp_path):
        for number in (0, 1):
            np.testing.assert_array_equal(small_image(server.url, number), PIXELS[number])
    # What was there whole is not asked for again; what was not, is.
    assert sorted(numbers_asked(server)) == sorted([*[0, 1][: done + 1], *[0, 1][done:]])
    assert len(list(tmp_path.glob("*/partial/*"))) == 1


READ_ONE = """
import signal, sys, atldld
signal.signal(signal.SIGINT, signal.default_int_handler)
atldld.set_options(cache_dir=sys.argv[2], timeout=3600, retries=4)
atldld.open_image(int(sys.argv[3]), dataset_id=5, source=sys.argv[1]).load()
"""


@exhaustive
def test_ctrl_c_in_a_pause_ends_at_once_and_leaves_nothing(serve, tmp_path):
    def busy(request):
        there = number_asked(request) is None
        return small_answer(request) if there else answer(b"", "503 Busy", Retry_After="600")

    server = serve(busy)
    process = subprocess.Popen(
        [sys.executable, "-c", READ_ONE, server.url, str(tmp_path), str(SMALL_IMAGES[0]["id"])],
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_for(lambda: numbers_asked(server))
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=300)
    assert "KeyboardInterrupt" in err
    assert not list(tmp_path.rglob("*.jpg*"))
    assert numbers_asked(server) == [0]


@exhaustive
def test_a_holder_that_hangs_costs_time_but_no_result(serve, start, tmp_path):
    """After the time that a download may take, another goes on."""
    server = serve(small_answer)
    process = start(server.url, tmp_path, [0], stop_at=0)
    assert process.stdout.readline() == "started\n"
    assert process.stdout.readline() == "stopped\n"
    # It holds the lock of its image until it is killed.
    with atldld.set_options(cache_dir=tmp_path, timeout=1, retries=0):
        np.testing.assert_array_equal(small_image(server.url, 0), PIXELS[0])
    assert process.poll() is None
    assert numbers_asked(server) == [0, 0]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_has_connections_and_threads_of_its_own(serve, tmp_path):
    gate = threading.Event()
    server = serve(halves(gate, 5))
    with atldld.set_options(cache_dir=tmp_path, max_connections=2):
        small_image(server.url, 0)
        # A thread of the parent holds one of two places, a lock and a flight while it forks.
        thread = threading.Thread(target=small_image, args=(server.url, 5))
        thread.start()
        wait_for(lambda: numbers_asked(server) == [0, 5])
        child = os.fork()
        if child == 0:
            try:
                # Several at once, on threads: all of these sections.
                ids = [SMALL_IMAGES[number]["id"] for number in (1, 2, 3)]
                array = atldld.open_dataarray(5, resolution=400, chunks=None, source=server.url)
                array.isel(section=np.isin(array.image_id, ids)).load()
                right = all(
                    np.array_equal(small_image(server.url, number), PIXELS[number])
                    for number in (1, 2, 3)
                )
                os._exit(0 if right else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        gate.set()
        thread.join()
        assert os.waitstatus_to_exitcode(status) == 0
        np.testing.assert_array_equal(small_image(server.url, 4), PIXELS[4])
    assert sorted(numbers_asked(server)) == [0, 1, 2, 3, 4, 5]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_does_not_write_to_the_connections_of_its_parent(serve, tmp_path):
    server = serve(small_answer)
    with atldld.set_options(cache_dir=tmp_path):
        small_image(server.url, 0)
        child = os.fork()
        if child == 0:
            try:
                os._exit(0 if np.array_equal(small_image(server.url, 1), PIXELS[1]) else 1)
            finally:
                os._exit(2)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) == 0
        np.testing.assert_array_equal(small_image(server.url, 2), PIXELS[2])
