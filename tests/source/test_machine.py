"""The limit on connections holds for all processes of a machine together."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from atldld.source.locks import claim, release
from atldld.source.machine import one_of, places_folder
from atldld.testing import AllenServer, phantom_dataset

PHANTOM = phantom_dataset(41, sections=24, resolution=60)


READ_ALL = """
import sys, threading
from atldld import options
from atldld.model.read import ImageRead
from atldld.source import source_from

url, folder, *images = sys.argv[1:]
source = source_from(url)
sizes = [map(int, image.split(",")) for image in images]
reads = [ImageRead(number, "image", 0, width, height) for number, width, height in sizes]
with options.set_options(cache_dir=folder, max_connections=3):
    threads = [threading.Thread(target=source.image, args=(read,)) for read in reads]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""

HOLD = """
import signal, sys
from pathlib import Path
from atldld.source.machine import one_of

with one_of(Path(sys.argv[1]), 2) as place:
    print(place, flush=True)
    signal.pause()
"""


HOLD_AND_FORK = """
import os, signal, sys
from pathlib import Path
from atldld.source.locks import locked
from atldld.source.machine import one_of

with one_of(Path(sys.argv[1]), 1) as place, locked(Path(sys.argv[1]) / "of a file", 5) as held:
    if not os.fork():
        print(place and held, os.getpid(), flush=True)
    signal.pause()
"""

FORK_WITHIN = """
import os, sys
from pathlib import Path
from atldld.source.locks import locked
from atldld.source.machine import one_of

folder = Path(sys.argv[1])
with one_of(folder, 1) as place, locked(folder / "of a file", 5) as held:
    child = os.fork()
    if child:
        assert place and held
        os.waitpid(child, 0)
        with locked(folder / "of a file", 0) as again:
            assert not again
        print("still held", flush=True)
"""


def run(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


def test_four_processes_together_hold_no_more_connections_than_one_may(tmp_path):
    images = [PHANTOM.image(image_id) for image_id in PHANTOM.image_ids]
    named = [f"{image['id']},{image['width']},{image['height']}" for image in images]
    with AllenServer([PHANTOM], latency=0.05) as server:
        workers = [
            run(READ_ALL, server.url, tmp_path / str(share), *named[share::4]) for share in range(4)
        ]
        for worker in workers:
            worker.communicate()
        assert [worker.returncode for worker in workers] == [0] * 4
        assert len(server.image_requests) == 24
        assert server.connections_high_water <= 3


@pytest.mark.skipif(not hasattr(signal, "pause"), reason="needs POSIX signals")
def test_a_killed_holder_frees_its_place_at_once(tmp_path):
    holders = [run(HOLD, tmp_path) for _ in range(2)]
    assert [holder.stdout.readline().strip() for holder in holders] == ["True", "True"]
    waiting, got = threading.Event(), threading.Event()

    def wait():
        waiting.set()
        with one_of(tmp_path, 2) as place:
            assert place
            got.set()

    thread = threading.Thread(target=wait)
    thread.start()
    assert waiting.wait(10)
    assert not got.wait(0.3)
    holders[0].send_signal(signal.SIGKILL)
    assert got.wait(10)
    thread.join()
    holders[1].kill()
    for holder in holders:
        holder.communicate()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_killed_holder_frees_its_place_though_its_child_lives(tmp_path):
    holder = run(HOLD_AND_FORK, tmp_path)
    held, child = holder.stdout.readline().split()
    try:
        assert held == "True"
        assert claim(tmp_path / "0.lock") is None
        holder.kill()
        holder.wait()
        os.kill(int(child), 0)
        for name in ("0.lock", "of a file"):
            number = claim(tmp_path / name)
            assert number is not None
            release(number)
    finally:
        os.kill(int(child), signal.SIGKILL)
        holder.communicate()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_that_ends_frees_nothing_of_its_parent(tmp_path):
    out, _ = run(FORK_WITHIN, tmp_path).communicate()
    assert out == "still held\n"


def test_without_locks_the_work_goes_on(tmp_path):
    (tmp_path / "file").write_text("not a folder")
    with one_of(tmp_path / "file" / "places", 2) as place:
        assert not place


def test_services_do_not_share_places():
    assert places_folder("http://a/x") == places_folder("http://a/y?z=1")
    assert places_folder("http://a/x") != places_folder("http://b/x")
    assert places_folder("http://a:1/x") != places_folder("http://a:2/x")
