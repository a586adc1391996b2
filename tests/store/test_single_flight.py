from __future__ import annotations

import sys
import threading
import time
from concurrent.futures import CancelledError

import pytest

from atldld.errors import ImageError
from atldld.store.cache import single_flight


def until_all_wait(threads):
    """Return once each thread waits for the result of another."""
    deadline = time.monotonic() + 120
    for thread in threads:
        while sys._current_frames()[thread.ident].f_code.co_name != "wait":
            assert time.monotonic() < deadline
            threading.Event().wait(0.001)


class Crowd:
    """Eight threads that want the same thing while the first of them is at work on it."""

    def __init__(self, work):
        self.calls, self.found, self.errors = [], [], []
        self.began, self.gate = threading.Event(), threading.Event()
        self.work = work
        self.threads = [threading.Thread(target=self.run) for _ in range(8)]
        self.threads[0].start()
        assert self.began.wait(120)
        for thread in self.threads[1:]:
            thread.start()
        until_all_wait(self.threads)
        self.gate.set()
        for thread in self.threads:
            thread.join()

    def run(self):
        try:
            self.found.append(single_flight("key", self.at_work))
        except BaseException as error:
            self.errors.append(error)

    def at_work(self):
        self.calls.append(None)
        self.began.set()
        self.gate.wait(120)
        return self.work(len(self.calls))


def test_a_crowd_shares_one_result():
    crowd = Crowd(lambda call: object())
    assert len(crowd.calls) == 1
    assert len(crowd.found) == 8
    assert len(set(crowd.found)) == 1


def test_a_crowd_shares_copies_of_one_error():
    def fail(call):
        raise ImageError("it is lost", image_id=7)

    crowd = Crowd(fail)
    assert len(crowd.calls) == 1
    assert [str(error) for error in crowd.errors] == ["image 7: it is lost"] * 8
    assert len({id(error) for error in crowd.errors}) == 8


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, CancelledError, SystemExit])
def test_another_takes_over_from_one_who_is_interrupted(interruption):
    def interrupted_once(call):
        if call == 1:
            raise interruption
        return call

    crowd = Crowd(interrupted_once)
    assert [type(error) for error in crowd.errors] == [interruption]
    assert len(crowd.found) == 7
    assert 2 in crowd.found


def test_nothing_is_kept():
    assert single_flight("key", lambda: 1) == 1
    assert single_flight("key", lambda: 2) == 2
    with pytest.raises(ZeroDivisionError):
        single_flight("key", lambda: 1 / 0)
    assert single_flight("key", lambda: 3) == 3


def test_keys_do_not_wait_for_each_other():
    assert single_flight("one", lambda: single_flight("other", lambda: 5)) == 5
