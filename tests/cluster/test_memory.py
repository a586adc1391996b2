"""What a task holds in memory is bounded, so that a worker with 1 GiB survives full resolution."""

import os
import subprocess
import sys

import dask
import numpy as np
import pytest

import atldld
from atldld.testing import AllenServer, phantom_dataset

pytestmark = pytest.mark.exhaustive

AUTO_BYTES = 16 * 2**20
"""As many bytes of pixels has a chunk at most."""

WIDTH, HEIGHT = 10_000, 7600
MOST_CHUNKS = 20
"""How many times the bytes of a full chunk a task may hold, as the page of promises says."""

WORK = {
    # Each piece reads a window of the image.
    "at its full resolution": {"resolution": 1.05},
    # Each piece reads three whole images, 228 MB each.
    "from whole images": {"resolution": 10, "tier": 0},
    "as floats": {"resolution": 10, "tier": 0, "masked": True},
}

PEAK = """
import ast, sys
import dask
import atldld
from pathlib import Path

url, options = sys.argv[1], ast.literal_eval(sys.argv[2])


def most():
    # The kernel's mark of this program; getrusage also counts what its parent held.
    lines = Path("/proc/self/status").read_text().splitlines()
    (mark,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(mark.split()[1]) * 1024


with dask.config.set(scheduler="synchronous"):
    # All that is imported and kept for good.
    for interpolation in ("linear", "area"):
        atldld.open_dataarray(72, source=url, resolution=50, interpolation=interpolation).compute()
    data = atldld.open_dataarray(71, source=url, **options).data
    before = most()
    block = data.blocks[0, data.numblocks[1] // 2, data.numblocks[2] // 2].compute()
    print(most() - before, block.nbytes)
"""


@pytest.fixture(scope="module")
def server():
    """Serve three large sections, from a process of its own: they are large there too."""
    large = phantom_dataset(
        71, sections=3, resolution=1.05, image_size=(WIDTH, HEIGHT), tier_count=6, seed=2
    )
    small = phantom_dataset(72, sections=2, resolution=60, seed=2)
    with AllenServer.spawn([large, small]) as running:
        running.prepare(tiers=0)
        yield running


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc/self/status")
@pytest.mark.parametrize("options", WORK.values(), ids=WORK)
def test_no_task_holds_more_than_twenty_full_chunks(server, options):
    done = subprocess.run(
        [sys.executable, "-c", PEAK, server.url, repr(options)],
        capture_output=True,
        text=True,
        check=True,
    )
    held, chunk = map(int, done.stdout.split())
    assert AUTO_BYTES // 3 < chunk <= AUTO_BYTES
    assert chunk < held <= MOST_CHUNKS * AUTO_BYTES


def test_a_worker_of_one_gibibyte_survives_full_resolution(server):
    distributed = pytest.importorskip("distributed")
    arrays = [atldld.open_dataarray(71, source=server.url, **options) for options in WORK.values()]
    arrays[0] = arrays[0].isel(section=[1], y=slice(2048, 6144), x=slice(2560, 7680))
    whole = [array.sum(["y", "x"]) for array in arrays]
    with (
        distributed.LocalCluster(
            n_workers=1,
            threads_per_worker=2,
            memory_limit="1GiB",
            processes=True,
            dashboard_address=":0",
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        began = client.run(os.getpid)
        found = [each.values for each in client.compute(whole, sync=True)]
        assert client.run(os.getpid) == began
        logs = client.get_worker_logs() | client.get_worker_logs(nanny=True)
        told = [text for lines in logs.values() for _, text in lines]
        # Where a worker nears its limit it says so, and is paused; beyond, it is restarted.
        assert not [text for text in told if "memory" in text.lower()]
    with dask.config.set(scheduler="synchronous"):
        for each, expected in zip(found, whole, strict=True):
            np.testing.assert_array_equal(each, expected.values)
