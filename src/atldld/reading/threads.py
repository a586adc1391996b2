"""OpenCV's own threads, kept out of the way of the threads that compute chunks."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from ..process import PerProcess


class OpenCVThreads:
    """How many threads OpenCV divides a call among: one, while chunks are computed beside others.

    OpenCV has one number for the whole process. It is set back when the last chunk is done.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._before = 1

    @contextmanager
    def one_each(self) -> Iterator[None]:
        """Let each thread do its own calls for the time of the block, unless it is the main one.

        The tasks of dask run in other threads than the main one, as many as there are cores.
        OpenCV's threads can only take turns with these; and after each call that was divided they
        spin, waiting for the next one, at the cost of a third of all that a small section costs.
        """
        if threading.current_thread() is threading.main_thread():
            yield
            return
        import cv2

        with self._lock:
            if self._users == 0:
                self._before = cv2.getNumThreads()
                cv2.setNumThreads(1)
            self._users += 1
        try:
            yield
        finally:
            with self._lock:
                self._users -= 1
                # Whoever has set another number meanwhile knows better.
                if self._users == 0 and cv2.getNumThreads() == 1:
                    cv2.setNumThreads(self._before)


opencv_threads = PerProcess(OpenCVThreads)
"""Those of this process."""
