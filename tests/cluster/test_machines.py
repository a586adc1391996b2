"""The limit on connections is divided among the machines of a cluster.

Two hosts of one machine stand for two machines: their workers have addresses of their own on
loopback, and a folder of their own where the locks of connections are.
"""

import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest

import atldld
from atldld.source.limit import machines, share_of
from atldld.testing import AllenServer, phantom_dataset

pytestmark = pytest.mark.exhaustive

distributed = pytest.importorskip("distributed")

PHANTOM = phantom_dataset(51, sections=32, resolution=100, seed=5)


@pytest.fixture
def cluster(tmp_path):
    """Return a function that starts a scheduler and, on each host, two workers."""
    started = []
    clients = []

    def start(hosts):
        scheduler = distributed.LocalCluster(
            n_workers=0, processes=False, protocol="tcp://", dashboard_address=":0"
        )
        started.append(scheduler)
        for number, host in enumerate(hosts):
            folder = tmp_path / f"machine{number}"
            folder.mkdir()
            started.extend(worker(scheduler.scheduler_address, host, folder) for _ in range(2))
        clients.append(distributed.Client(scheduler))
        clients[-1].wait_for_workers(2 * len(hosts), timeout=60)
        return clients[-1]

    yield start
    for each in clients:
        each.close()
    for each in reversed(started):
        if isinstance(each, subprocess.Popen):
            each.terminate()
            each.wait()
        else:
            each.close()


def worker(scheduler, host, folder):
    command = [sys.executable, "-m", "distributed.cli.dask_worker", scheduler]
    command += ["--host", host, "--nthreads", "2", "--no-nanny", "--no-dashboard"]
    command += ["--local-directory", str(folder)]
    environment = os.environ | {
        "XDG_RUNTIME_DIR": str(folder),
        "ATLDLD_CACHE_DIR": str(folder / "cache"),
        "ATLDLD_MAX_CONNECTIONS": "6",
    }
    return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)


@pytest.mark.parametrize(
    ("hosts", "most"), [(["127.0.0.1"], 6), (["127.0.0.1", "127.0.0.2", "127.0.0.3"], 6)]
)
def test_no_more_connections_than_the_limit(cluster, hosts, most):
    with AllenServer([PHANTOM], latency=0.5) as server:
        array = atldld.open_dataarray(51, source=server.url, resolution=200, chunks={"section": 1})
        client = cluster(hosts)
        assert client.submit(machines).result() == len(hosts)
        server.reset_log()
        result = array.compute()
        assert server.connections_high_water <= most
        # The share is used, not merely kept to: more than one host's or one process's part.
        assert server.connections_high_water > 2
    with AllenServer([PHANTOM]) as server:
        alone = atldld.open_dataarray(51, source=server.url, resolution=200, chunks=None)
        np.testing.assert_array_equal(result.values, alone.values)


def test_the_share():
    assert [share_of(8, number) for number in (0, 1, 2, 3, 8, 9, 100)] == [8, 8, 4, 2, 1, 1, 1]


def test_without_a_cluster_there_is_one_machine():
    assert machines() == 1


def test_a_scheduler_that_does_not_answer_leaves_the_limit_as_it_is(cluster):
    client = cluster(["127.0.0.1", "127.0.0.2"])

    def on_a_dead_scheduler():
        from distributed import get_worker

        from atldld.source.limit import _asked

        async def gone():
            raise OSError("gone")

        scheduler = SimpleNamespace(ncores=gone)
        return _asked(SimpleNamespace(loop=get_worker().loop, scheduler=scheduler)), machines()

    assert client.submit(on_a_dead_scheduler).result() == (None, 2)


def test_an_asynchronous_task_does_not_wait_for_its_own_loop(cluster):
    client = cluster(["127.0.0.1", "127.0.0.2"])

    async def in_the_loop():
        from atldld.source import limit

        limit._PATIENCE = 3600.0
        return limit.machines()

    assert client.submit(in_the_loop).result(timeout=60) == 1
