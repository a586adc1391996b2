from __future__ import annotations

import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from atldld.store.files import locked

HOLD = """
import sys, pathlib
from atldld.store.files import locked
with locked(pathlib.Path(sys.argv[1]), 5) as held:
    print(held, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def path(tmp_path):
    return tmp_path / "folder" / "a.lock"


@pytest.fixture
def holder(path):
    """Run a process that holds the lock until it is killed or its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "True\n"
    with process:
        yield process
        process.kill()


def test_one_holder_at_a_time(path):
    inside, most = [], []

    def work(_):
        with locked(path, 30) as held:
            assert held
            inside.append(None)
            most.append(len(inside))
            threading.Event().wait(0.001)
            inside.pop()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(40)))
    assert set(most) == {1}


def test_another_process_excludes_us(path, holder):
    with locked(path, 0.05) as held:
        assert held is False
    holder.stdin.close()  # The holder reads to the end of its input, and ends.
    with locked(path, 30) as held:
        assert held


def test_a_killed_holder_frees_it(path, holder):
    holder.kill()
    with locked(path, 30) as held:
        assert held


def test_it_is_given_back_after_an_error(path):
    with pytest.raises(ZeroDivisionError), locked(path, 0):
        raise ZeroDivisionError
    with locked(path, 0) as held:
        assert held


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_child_forked_meanwhile_does_not_keep_it(path):
    with locked(path, 0) as held:
        assert held
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(writer)
            os.read(reader, 1)
            os._exit(0)
    with locked(path, 0) as held:
        assert held
    os.close(writer)
    os.close(reader)
    os.waitpid(child, 0)


def test_where_there_can_be_none_work_goes_on(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with locked(tmp_path / "file" / "a.lock", 5) as held:
        assert not held
