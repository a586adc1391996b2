"""The limit on connections holds for all processes of a machine together."""

import math
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import pytest

import atldld
from atldld.source.limit import NoPlaceError, connection
from atldld.testing import AllenServer, phantom_dataset

PHANTOM = phantom_dataset(41, sections=24, resolution=60)


READ_SHARE = """
import sys, atldld

url, folder, share = sys.argv[1:]
with atldld.set_options(cache_dir=folder, max_connections=3):
    array = atldld.open_dataarray(41, tier=0, resolution=200, chunks={"section": 1}, source=url)
    array.isel(section=slice(int(share), None, 4)).compute(num_workers=6)
"""

HOLD = """
import math, signal, sys, time
from atldld.source.limit import connection

most, seconds = int(sys.argv[1]), float(sys.argv[2])
with connection("http://service", most, seconds, math.inf):
    print("held", flush=True)
    signal.pause()
"""

HOLD_AND_FORK = """
import math, os, signal
from atldld.source.limit import connection

with connection("http://service", 1, 60.0, math.inf):
    if not os.fork():
        print(os.getpid(), flush=True)
    signal.pause()
"""

FORK_WITHIN = """
import math, os, time
from atldld.source.limit import NoPlaceError, connection

with connection("http://service", 1, 60.0, math.inf):
    child = os.fork()
    if child:
        os.waitpid(child, 0)
        again = os.fork()
        if not again:
            try:
                with connection("http://service", 1, 60.0, time.monotonic() + 0.2):
                    os._exit(1)
            except NoPlaceError:
                os._exit(0)
        print(os.waitpid(again, 0)[1], flush=True)
"""

ASK = """
import sys, atldld
from atldld.source.http import fetch

with atldld.set_options(max_connections=1, timeout=float(sys.argv[2]), retries=0):
    try:
        print(len(fetch(sys.argv[1], limit_bytes=2**20).content))
    except atldld.AtldldError as error:
        print(error)
"""


def run(code, *arguments):
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)], stdout=subprocess.PIPE, text=True
    )


@pytest.mark.exhaustive
def test_four_processes_together_hold_no_more_connections_than_one_may(tmp_path):
    with AllenServer([PHANTOM], latency=0.05) as server:
        workers = [run(READ_SHARE, server.url, tmp_path / str(share), share) for share in range(4)]
        for worker in workers:
            worker.communicate()
        assert [worker.returncode for worker in workers] == [0] * 4
        assert len(server.image_requests) == 24
        assert server.connections_high_water <= 3


needs_signals = pytest.mark.skipif(not hasattr(signal, "pause"), reason="needs POSIX signals")
needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


def is_free(most=1, url="http://service"):
    try:
        with connection(url, most, 60.0, time.monotonic()):
            return True
    except NoPlaceError:
        return False


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """Keep to locks of the test's own."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    return tmp_path / "atldld" / "connections"


@needs_signals
def test_a_killed_holder_frees_its_place_at_once():
    holders = [run(HOLD, 2, 60) for _ in range(2)]
    assert [holder.stdout.readline().strip() for holder in holders] == ["held", "held"]
    assert not is_free(2)
    holders[0].kill()
    holders[0].wait()
    assert is_free(2)
    holders[1].kill()
    for holder in holders:
        holder.communicate()


@needs_signals
def test_who_waits_gets_the_place_of_one_who_is_killed():
    holder = run(HOLD, 1, 60)
    assert holder.stdout.readline().strip() == "held"
    got = threading.Event()

    def wait():
        with connection("http://service", 1, 60.0, time.monotonic() + 300.0):
            got.set()

    thread = threading.Thread(target=wait)
    thread.start()
    holder.kill()
    assert got.wait(300)
    thread.join()
    holder.communicate()


@needs_fork
def test_a_killed_holder_frees_its_place_though_its_child_lives():
    holder = run(HOLD_AND_FORK)
    child = int(holder.stdout.readline())
    try:
        assert not is_free()
        holder.kill()
        holder.wait()
        os.kill(child, 0)
        assert is_free()
    finally:
        os.kill(child, signal.SIGKILL)
        holder.communicate()


@needs_fork
def test_a_child_that_ends_frees_nothing_of_its_parent():
    out, _ = run(FORK_WITHIN).communicate()
    assert out == "0\n"


@needs_signals
def test_a_holder_that_is_stopped_hangs_nobody():
    """As by Ctrl-Z: it keeps its lock, but only for the time that a try may take."""
    holder = run(HOLD, 1, -60)
    assert holder.stdout.readline().strip() == "held"
    holder.send_signal(signal.SIGSTOP)
    try:
        with connection("http://service", 1, 60.0, time.monotonic() + 300.0):
            # One stopped holder lends one place, not any number.
            out, _ = run(ASK, "http://service/x", 0.3).communicate()
            assert out.startswith("there was no connection free")
    finally:
        holder.kill()
        holder.communicate()


@needs_signals
def test_waiting_counts_against_the_time_of_a_request():
    holder = run(HOLD, 1, 60)
    assert holder.stdout.readline().strip() == "held"
    out, _ = run(ASK, "http://service/x", 0.3).communicate()
    assert out == (
        "there was no connection free: other processes of this machine had all 1 connections "
        "(option max_connections) (http://service/x)\n"
    )
    holder.kill()
    holder.communicate()


def test_without_locks_the_work_goes_on(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("not a folder")
    for name in ("XDG_RUNTIME_DIR", "XDG_CACHE_HOME", "HOME"):
        monkeypatch.setenv(name, str(tmp_path / "file"))
    with AllenServer([PHANTOM]) as server, warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert len(atldld.open_dataarray(41, source=server.url).section) == 24
    assert [str(each.message)[:31] for each in said] == ["the limit of connections holds "]


IS_FREE = """
import sys, time
from atldld.source.limit import NoPlaceError, connection
try:
    with connection(sys.argv[1], 1, 60.0, time.monotonic()):
        print(True)
except NoPlaceError:
    print(False)
"""


def test_services_do_not_share_places():
    def is_free_elsewhere(url):
        return run(IS_FREE, url).communicate()[0].strip()

    with connection("http://a/x", 1, 60.0, math.inf):
        assert is_free_elsewhere("http://a/y?z=1") == "False"
        assert is_free_elsewhere("http://b/x") == "True"
        assert is_free_elsewhere("http://a:1/x") == "True"


def test_nothing_is_left_behind(folder):
    assert is_free()
    assert [path for path in folder.rglob("*") if not path.is_dir()] == []
    assert all(path.stat().st_mode & 0o022 == 0 for path in (folder, *folder.iterdir()))


@pytest.mark.skipif(not hasattr(os, "getuid"), reason="needs POSIX owners")
@pytest.mark.parametrize("trap", ["everybody's", "a link", "another's"])
def test_a_folder_that_is_not_the_users_own_is_not_used(trap, tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    mine = tmp_path / "mine"
    monkeypatch.setenv("XDG_CACHE_HOME", str(mine))
    root = tmp_path / "atldld"
    if trap == "a link":
        root.symlink_to(elsewhere)
    else:
        root.mkdir()
        if trap == "everybody's":
            root.chmod(0o777)
        elif os.getuid() == 0:
            os.chown(root, 12345, 12345)
        else:
            pytest.skip("only root can make a folder of another")
    with connection("http://service", 1, 60.0, math.inf):
        (lock,) = tmp_path.rglob("*.lock")
        assert lock.is_relative_to(mine / "atldld" / "connections")
