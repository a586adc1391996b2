from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref

import pytest

from atldld.errors import ImageError
from atldld.options import Carried, current, set_options, using
from atldld.source.allen import AllenSource
from atldld.source.prefetch import Begun, fetch_ahead, fetch_each

from .conftest import a_read, answer, jpeg

BODIES = {image_id: jpeg(seed=image_id) for image_id in range(40)}

PATIENCE = 120
"""Seconds to wait for what comes at once on an idle machine."""


def body_of(request) -> bytes:
    image_id = int(request.path.partition("?")[0].rpartition("/")[2])
    return answer(BODIES[image_id]) if image_id in BODIES else answer(b"", "404 Not Found")


class Slow:
    """A source that counts what is under way, and waits to be told to go on."""

    name = "slow"

    def __init__(self):
        self.lock = threading.Condition()
        self.started, self.ended, self.threads, self.retries = [], [], set(), []
        self.allowed = 0

    def image(self, read):
        with self.lock:
            self.started.append(read.image_id)
            self.threads.add(threading.current_thread())
            self.retries.append(current().retries)
            self.lock.notify_all()
            self.lock.wait_for(lambda: self.allowed > len(self.ended), timeout=PATIENCE)
            self.ended.append(read.image_id)
            self.lock.notify_all()
        return b"%d" % read.image_id

    def allow(self, number):
        with self.lock:
            self.allowed = number
            self.lock.notify_all()

    def wait_for_started(self, number):
        with self.lock:
            assert self.lock.wait_for(lambda: len(self.started) >= number, timeout=PATIENCE)


def reads(*ids):
    return [a_read(image_id) for image_id in ids]


def download_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name.startswith("atldld-download")}


@pytest.fixture
def no_threads_left():
    """Return a function that says whether all threads that began meanwhile come to an end."""
    gc.collect()
    before = download_threads()

    def no_threads_left() -> bool:
        meanwhile = download_threads() - before
        for thread in meanwhile:
            thread.join(PATIENCE)
        return not any(thread.is_alive() for thread in meanwhile)

    return no_threads_left


@pytest.mark.parametrize("count", [0, 1, 2, 40])
@pytest.mark.parametrize("fetch", [fetch_ahead, fetch_each])
def test_every_read_comes_once(serve, fetch, count):
    server = serve(body_of)
    found = list(fetch(AllenSource(server.url), reads(*range(count)), ahead=5))
    if fetch is fetch_each:
        found.sort(key=lambda pair: pair[0].image_id)
    assert found == [(a_read(image_id), BODIES[image_id]) for image_id in range(count)]
    assert len(server.requests) == count


def test_downloads_run_at_the_same_time(serve):
    together = threading.Barrier(8)

    def handler(request):
        together.wait(PATIENCE)
        yield body_of(request)

    server = serve(handler)
    assert len(list(fetch_ahead(AllenSource(server.url), reads(*range(16))))) == 16
    assert server.most_at_once == 8


def test_no_more_than_asked_for_is_under_way_or_waiting():
    source = Slow()
    source.allow(1)
    with set_options(max_connections=8):
        coming = fetch_ahead(source, reads(*range(10)), ahead=3)
        assert next(coming)[1] == b"0"
        # One was handed out, and its place is free only when the next one is asked for.
        assert len(source.started) <= 3
        source.allow(10)
        assert [content for _, content in coming] == [b"%d" % n for n in range(1, 10)]


def test_reads_are_taken_from_their_iterable_as_needed():
    taken = []

    def endless():
        while True:
            taken.append(None)
            yield a_read(len(taken))

    source = Slow()
    source.allow(10**6)
    coming = fetch_ahead(source, endless(), ahead=4)
    for _ in range(10):
        next(coming)
    coming.close()
    assert len(taken) <= 14


def test_threads_are_of_a_name_and_serve_the_next_reads():
    """Threads that end all the time can bring a worker to a standstill."""
    source = Slow()
    source.allow(100)
    for _ in range(3):
        assert len(list(fetch_ahead(source, reads(*range(20))))) == 20
    assert all(thread.name.startswith("atldld-download") for thread in source.threads)
    assert len(source.threads) <= 8


@pytest.mark.parametrize("fetch", [fetch_ahead, fetch_each])
def test_what_was_yielded_is_not_kept(fetch):
    """Whole images of a dataset would fill the memory."""

    class Body:
        pass

    class Source:
        name = "bodies"

        def image(self, read):
            body = Body()
            bodies.append(weakref.ref(body))
            return body

    bodies = []
    for _, body in fetch(Source(), reads(*range(200)), ahead=4):
        del body
        assert sum(each() is not None for each in bodies) <= 4 + 8
    assert len(bodies) == 200


def test_exchanges_share_threads(serve):
    before = {each for each in threading.enumerate() if each.name == "atldld-http"}
    source = AllenSource(serve(body_of).url)
    for number in range(20):
        source.image(a_read(number))
    threads = {each for each in threading.enumerate() if each.name == "atldld-http"}
    assert len(threads - before) <= 1


def test_an_error_comes_in_its_place(serve):
    server = serve(body_of)
    coming = fetch_ahead(AllenSource(server.url), reads(0, 1, 999, 3))
    assert [next(coming)[1], next(coming)[1]] == [BODIES[0], BODIES[1]]
    with pytest.raises(ImageError, match="image 999"):
        next(coming)
    with pytest.raises(StopIteration):
        next(coming)


def test_each_read_has_its_error(serve):
    server = serve(body_of)
    found = dict(fetch_each(AllenSource(server.url), reads(0, 999, 1, 998)))
    assert {read.image_id for read, got in found.items() if isinstance(got, ImageError)} == {
        998,
        999,
    }
    assert found[a_read(1)] == BODIES[1]


@pytest.mark.parametrize("fetch", [fetch_ahead, fetch_each])
def test_leaving_gives_up_what_has_not_begun(fetch):
    source = Slow()
    with set_options(max_connections=2):
        coming = fetch(source, reads(*range(20)), ahead=10)
        source.allow(1)
        next(coming)
        coming.close()
        source.allow(10**6)
        # Whatever comes now comes after all that was given up.
        assert len(list(fetch(source, reads(100, 101)))) == 2
    assert len(source.started) <= 6
    assert {100, 101} <= set(source.started)


def test_leaving_ends_what_pauses(serve, no_threads_left):
    """A download that waits for another try is not tried again once nobody wants it."""
    server = serve(lambda r: body_of(r) if "/0?" in r.path else answer(b"", "500 Oh"))
    with set_options(timeout=1000, retries=4):
        coming = fetch_ahead(AllenSource(server.url), reads(0, 1, 2, 3))
        next(coming)
        coming.close()
        assert no_threads_left()
    assert len(server.requests) <= 7


def test_a_download_that_is_given_up_is_taken_over_by_another_who_wants_it(serve):
    failing = threading.Event()

    def handler(request):
        if "/0?" in request.path:
            return body_of(request)
        if failing.is_set():
            return body_of(request)
        asked.set()
        return answer(b"", "500 Oh")

    asked = threading.Event()
    server = serve(handler)
    source = AllenSource(server.url)
    with set_options(timeout=600, retries=4):
        coming = fetch_ahead(source, reads(0, 1))
        next(coming)
        assert asked.wait(PATIENCE)
        failing.set()
        coming.close()
        assert source.image(a_read(1)) == BODIES[1]


def test_the_pool_follows_the_option():
    for most in (1, 3, 2):
        source = Slow()
        with set_options(max_connections=most):
            coming = fetch_ahead(source, reads(*range(6)), ahead=6)
            thread = threading.Thread(target=lambda coming=coming: list(coming))
            thread.start()
            source.wait_for_started(most)
            source.allow(6)
            thread.join()
        assert len(source.ended) == 6


def test_carried_options_reach_the_threads():
    source = Slow()
    source.allow(100)
    carried = Carried("another process", (("retries", 77),))
    with set_options(retries=None), using(carried):
        list(fetch_ahead(source, reads(*range(5))))
    assert source.retries == [77] * 5


def test_fetches_within_fetches_do_not_wait_for_each_other():
    class Nested(Slow):
        def image(self, read):
            if read.image_id >= 100:
                return b"leaf"
            inner = fetch_ahead(self, reads(100, 101, 102))
            return b"".join(content for _, content in inner)

    with set_options(max_connections=1):
        found = [content for _, content in fetch_ahead(Nested(), reads(0, 1, 2))]
        assert found == [b"leafleafleaf"] * 3
        each = dict(fetch_each(Nested(), reads(0, 1, 2)))
        assert set(each.values()) == {b"leafleafleaf"}


def test_other_errors_are_passed_on():
    class Broken(Slow):
        def image(self, read):
            raise ZeroDivisionError

    for fetch in (fetch_ahead, fetch_each):
        with pytest.raises(ZeroDivisionError):
            list(fetch(Broken(), reads(0, 1)))


LEAVE = """
import sys, threading
from atldld.model.read import ImageRead
from atldld.source.allen import AllenSource
from atldld.source.prefetch import fetch_ahead
coming = fetch_ahead(AllenSource(sys.argv[1]), [ImageRead(i, "image", 2, 64, 48) for i in range(9)])
next(coming)
print(threading.active_count() > 1)
"""


def test_the_interpreter_does_not_wait_for_downloads(serve, tmp_path):
    stopped = threading.Event()

    def handler(request):
        if "/0?" not in request.path:
            yield stopped
        yield body_of(request)

    server = serve(handler)
    done = subprocess.run(
        [sys.executable, "-c", LEAVE, server.url],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        env=os.environ | {"ATLDLD_CACHE_DIR": str(tmp_path)},
    )
    stopped.set()
    assert (done.stdout.strip(), done.returncode) == ("True", 0), done.stderr


def test_what_has_begun_is_not_fetched_again():
    slow = Slow()
    slow.allow(10)
    with Begun() as begun:
        for read in reads(3, 4, 3):
            begun.begin(slow, read)
        slow.wait_for_started(2)
        found = dict(fetch_each(slow, reads(3, 4, 5), begun=begun))
    assert {read.image_id: content for read, content in found.items()} == {
        3: b"3",
        4: b"4",
        5: b"5",
    }
    assert sorted(slow.started) == [3, 4, 5]


def test_what_has_begun_and_is_not_wanted_is_given_up():
    slow = Slow()
    with set_options(max_connections=1), Begun() as begun:
        for read in reads(1, 2, 3):
            begun.begin(slow, read)
        slow.wait_for_started(1)
    slow.allow(10)
    assert slow.started == [1]
