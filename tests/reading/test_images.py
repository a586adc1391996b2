"""Images as pixels: decoded ahead where that helps, right and complete in either case."""

import threading

import numpy as np
import pytest

from atldld.errors import ImageError
from atldld.model.read import ImageRead
from atldld.reading.images import pixels, pixels_each
from atldld.source import source_from
from atldld.testing import AllenServer, Fault, phantom_dataset

PHANTOM = phantom_dataset(61, sections=9, resolution=40)


@pytest.fixture
def server():
    """Serve nine small images."""
    with AllenServer([PHANTOM]) as running:
        yield running


def reads(count=9):
    rows = [PHANTOM.image(image_id) for image_id in PHANTOM.image_ids[:count]]
    return [ImageRead(row["id"], "image", 0, row["width"], row["height"]) for row in rows]


def decoders():
    return [one for one in threading.enumerate() if one.name.startswith("atldld-decode")]


def in_another_thread(work):
    """Return what some work returns in a thread that is not the main one."""
    found = []
    thread = threading.Thread(target=lambda: found.append(work()))
    thread.start()
    thread.join()
    return found[0]


def test_every_image_comes_once_and_is_its_own(server):
    source = source_from(server.url)
    found = dict(pixels_each(source, reads()))
    assert set(found) == set(reads())
    for read, image in found.items():
        np.testing.assert_array_equal(image, pixels(source, read))
    assert len({image.tobytes() for image in found.values()}) == len(found)
    again = in_another_thread(lambda: dict(pixels_each(source, reads(), reads())))
    for read, image in again.items():
        np.testing.assert_array_equal(image, found[read])


def test_the_main_thread_has_others_decode_and_leaves_none_behind(server):
    source = source_from(server.url)
    coming = pixels_each(source, reads())
    next(coming)
    assert decoders()
    coming.close()
    assert decoders() == []


def test_other_threads_and_few_images_are_decoded_where_they_are(server):
    source = source_from(server.url)

    def seen():
        return [len(decoders()) for _ in pixels_each(source, reads())]

    assert not any(in_another_thread(seen))
    assert not any(decoders() for _ in pixels_each(source, reads(3)))


def test_a_lost_image_costs_no_other(server):
    bad = PHANTOM.image_ids[4]
    server.add_fault(Fault("404", image_ids=(bad,)))
    found = dict(pixels_each(source_from(server.url), reads()))
    lost = [read.image_id for read, image in found.items() if isinstance(image, ImageError)]
    assert lost == [bad]
    assert len(found) == 9


def test_an_image_that_is_damaged_once_is_fetched_again(server):
    bad = PHANTOM.image_ids[2]
    server.add_fault(Fault("damaged", image_ids=(bad,), times=1))
    found = dict(pixels_each(source_from(server.url), reads()))
    assert not any(isinstance(image, ImageError) for image in found.values())
    assert len([each for each in server.image_requests if each.image_id == bad]) == 2
