"""Images as pixels: decoded ahead where that helps, right and complete in either case."""

import threading

import numpy as np
import pytest

import atldld
from atldld.testing import AllenServer, Fault, phantom_dataset

PHANTOM = phantom_dataset(61, sections=9, resolution=40)


@pytest.fixture
def server():
    """Serve nine small images."""
    with AllenServer([PHANTOM]) as running:
        yield running


def opened(server, **options):
    return atldld.open_dataarray(61, resolution=200, source=server.url, **options)


def threads_named(name):
    return {thread for thread in threading.enumerate() if thread.name.startswith(name)}


def in_another_thread(work):
    """Return what some work returns in a thread that is not the main one."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def test_every_image_comes_once_and_is_its_own(server):
    found = opened(server, chunks=None).load()
    assert sorted(each.image_id for each in server.image_requests) == PHANTOM.image_ids
    for number in range(9):
        alone = opened(server, chunks={"section": 1}).isel(section=number)
        np.testing.assert_array_equal(found[number], alone.compute(scheduler="synchronous"))
    assert len({section.values.tobytes() for section in found}) == 9
    again = in_another_thread(lambda: opened(server, chunks=None).load())
    np.testing.assert_array_equal(again, found)


@pytest.mark.parametrize("fault", [None, "404"])
def test_no_thread_is_left_behind(server, fault):
    before = threads_named("atldld-decode")
    array = opened(server, chunks=None, tier=0)
    if fault is None:
        array.load()
    else:
        server.add_fault(Fault(fault, image_ids=PHANTOM.image_ids[2:3]))
        with pytest.raises(atldld.ImageError):
            array.load()
    # Those of downloads are kept for the next ones.
    begun = threads_named("atldld-decode") - before
    for thread in begun:
        thread.join(120)
    assert not any(thread.is_alive() for thread in begun)


def test_one_image_takes_no_thread_for_downloads(server):
    with atldld.set_options(max_connections=5):
        sections = opened(server)
        before = threads_named("atldld-download")
        sections.isel(section=0).compute()
        assert threads_named("atldld-download") <= before
        sections.isel(section=slice(1, 4)).compute()
        assert not threads_named("atldld-download") <= before
