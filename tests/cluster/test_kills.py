"""A worker that is killed costs time, and nothing else."""

import os
import signal
import time
from collections import Counter

import numpy as np
import pytest

import atldld
from atldld.testing import AllenServer, Fault, phantom_dataset

distributed = pytest.importorskip("distributed")

pytestmark = pytest.mark.exhaustive

PHANTOM = phantom_dataset(61, sections=24, resolution=60, seed=6)


@pytest.fixture(scope="module")
def expected():
    """Return what one process reads, without dask."""
    with AllenServer([PHANTOM]) as server:
        return opened(server, chunks=None).values


@pytest.fixture
def cluster():
    """Return a client of two workers with two threads each, which come back when killed."""
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=2, processes=True, dashboard_address=":0"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def opened(server, chunks, **options):
    return atldld.open_dataarray(
        61, source=server.url, resolution=100, masked=True, chunks=chunks, **options
    )


def wait_for(condition):
    until = time.monotonic() + 300
    while not (found := condition()):
        assert time.monotonic() < until
        time.sleep(0.01)
    return found


def asked(server):
    """Return how often each image, tier and window was asked for."""
    return Counter((each.image_id, each.tier, each.window) for each in server.image_requests)


def requests_of_workers(client):
    """Return how many requests each worker has under way, by its process id."""

    def mine():
        from atldld.source.limit import under_way

        return os.getpid(), under_way()

    return dict(client.run(mine, on_error="ignore").values())


@pytest.mark.parametrize("in_flight", [1, 3])
def test_a_killed_worker_changes_nothing(cluster, expected, in_flight):
    with AllenServer([PHANTOM]) as server, atldld.set_options(max_connections=4):
        array = opened(server, chunks={"section": 4})
        hung = [int(image_id) for image_id in array.image_id[8 : 8 + in_flight]]
        for image_id in hung:
            server.add_fault(Fault("hang", image_ids=(image_id,), times=1))
        running = cluster.compute(array)
        # All others are there; these are in the middle of their download.
        wait_for(lambda: len({each.image_id for each in server.image_requests}) == 24)
        wait_for(lambda: sum(requests_of_workers(cluster).values()) == in_flight)
        before = asked(server)
        assert set(before.values()) == {1}
        (worker,) = [pid for pid, count in requests_of_workers(cluster).items() if count]
        os.kill(worker, signal.SIGKILL)
        np.testing.assert_array_equal(running.result().values, expected)
        after = asked(server)
        again = {key: count for key, count in after.items() if count > 1}
        assert {image_id for image_id, _, _ in again} == set(hung)
        assert set(again.values()) == {2}
        assert len(server.image_requests) == sum(before.values()) + in_flight
        # The server still holds the connections of the dead.
        assert server.connections_high_water <= 4 + in_flight


@pytest.mark.exhaustive
def test_workers_killed_again_and_again(cluster, expected):
    with AllenServer([PHANTOM], latency=0.02) as server, atldld.set_options(max_connections=4):
        array = opened(server, chunks={"section": 1})
        killed = 0
        running = cluster.compute(array, retries=10)
        for count in (5, 11, 17):
            wait_for(lambda count=count: len(server.image_requests) >= count or running.done())
            # Both may be on their way back.
            workers = wait_for(lambda: list(requests_of_workers(cluster)))
            os.kill(workers[killed % len(workers)], signal.SIGKILL)
            killed += 1
        np.testing.assert_array_equal(running.result().values, expected)
        wanted = len(asked(server))
        # What was under way when its worker was killed, at most four images each time.
        assert len(server.image_requests) <= wanted + 4 * killed
        server.reset_log()
        np.testing.assert_array_equal(opened(server, chunks=None).values, expected)
        assert server.image_requests == []
