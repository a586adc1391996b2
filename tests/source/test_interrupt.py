"""Ctrl-C ends at once what waits for a silent service, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time

import pytest

from atldld.testing import AllenServer, Fault, phantom_dataset

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs POSIX signals")

PHANTOM = phantom_dataset(81, sections=6, resolution=100)
LONG_BEFORE_THE_TIME_LIMIT = 150
"""Seconds; the options leave a request five minutes. On an idle machine it takes one or two."""

WAYS = {
    "compute": "atldld.open_dataarray(81, source=url).compute()",
    "two threads": "atldld.open_dataarray(81, source=url).compute(num_workers=2)",
    "no dask": "atldld.open_dataarray(81, source=url, chunks=None).load()",
    "window": "atldld.open_dataarray(81, source=url, tier=0)[2:5, ::40, ::40].compute()",
    "prefetch": "atldld.open_dataarray(81, source=url).atlas.prefetch()",
    "volume": "atldld.open_volume(81, source=url, resolution=200).image.compute()",
    "zarr": "atldld.open_dataset(81, source=url).to_zarr(folder + '/x.zarr')",
    "opening": "atldld.open_dataarray(82, source=url)",
    "cluster": (
        "from distributed import Client\n"
        "array = atldld.open_dataarray(81, source=url)\n"
        "with Client(processes=False, dashboard_address=None):\n"
        "    array.compute()"
    ),
    "cluster that is not closed": (
        "from distributed import Client\n"
        "client = Client(processes=False, dashboard_address=None)\n"
        "atldld.open_dataarray(81, source=url).compute()"
    ),
}

SCRIPT = """
import signal, sys, threading
import atldld
url, folder = sys.argv[1:]

def press():
    # To the main thread: where a signal goes that is sent to a process is not the same everywhere.
    sys.stdin.readline()
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

if __name__ == "__main__":
    threading.Thread(target=press, daemon=True).start()
{way}
"""

TWICE = """
import os
os.environ["DASK_NUM_WORKERS"] = "1"
try:
    atldld.open_dataarray(81, source=url).compute()
except KeyboardInterrupt:
    print("interrupted", flush=True)
assert sys.stdin.readline() == "go on\\n"
print(int(atldld.open_dataarray(81, source=url).mean().compute()) > 0, flush=True)
"""


@pytest.fixture
def server():
    with AllenServer([PHANTOM], redirects=False) as running:
        running.add_fault(Fault("hang", request="image"))
        running.add_fault(Fault("hang", request="metadata", path="SectionDataSet/82"))
        yield running


@pytest.fixture
def interrupted(server, tmp_path):
    """Return a function that starts a script, and presses Ctrl-C once it waits for the service."""
    running = []

    def start(way):
        script = tmp_path / "script.py"
        script.write_text(SCRIPT.format(way=textwrap.indent(way, "    ")))
        process = subprocess.Popen(
            [sys.executable, script, server.url, tmp_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"ATLDLD_CACHE_DIR": str(tmp_path / "cache")},
        )
        running.append(process)
        until = time.monotonic() + 300
        while not any(each.fault == "hang" for each in server.requests):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < until
            time.sleep(0.02)
        process.stdin.write("press\n")
        process.stdin.flush()
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


MOST_USUAL = ("compute",)


@pytest.mark.parametrize(
    "way",
    [
        each if each in MOST_USUAL else pytest.param(each, marks=pytest.mark.exhaustive)
        for each in WAYS
    ],
)
def test_ctrl_c_ends_a_script(interrupted, way):
    process = interrupted(WAYS[way])
    _, said = process.communicate(timeout=LONG_BEFORE_THE_TIME_LIMIT)
    assert process.returncode != 0
    assert "KeyboardInterrupt" in said


def test_after_ctrl_c_a_kernel_computes_as_before(interrupted, server):
    """Else the threads of dask would wait for the silent service still."""
    process = interrupted(TWICE)
    assert process.stdout.readline() == "interrupted\n"
    server.clear_faults()
    out, _ = process.communicate("go on\n", timeout=LONG_BEFORE_THE_TIME_LIMIT)
    assert (out, process.returncode) == ("True\n", 0)
