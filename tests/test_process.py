from __future__ import annotations

import multiprocessing
import os
import threading

import pytest

from atldld.process import PerProcess

lock = PerProcess(threading.Lock)
token = PerProcess(lambda: os.urandom(8))


def take(connection):
    with lock.value:
        connection.send(token.value)


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")
@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_child_takes_a_lock_that_its_parent_holds():
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    with lock.value:
        child = context.Process(target=take, args=(there,))
        child.start()
        assert here.poll(20)
        child.join()
    assert here.recv() != token.value
