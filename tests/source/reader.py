"""A process that reads images, for the tests of many processes. Arguments as JSON."""

from __future__ import annotations

import hashlib
import json
import random
import signal
import sys
import threading
from contextlib import nullcontext
from pathlib import Path

from atldld.model.read import ImageRead
from atldld.options import set_options
from atldld.source.allen import AllenSource
from atldld.store import cache


def break_locks() -> None:
    cache.locked = lambda *args: nullcontext()
    cache.single_flight = lambda key, work: work()


def stop_at(point: int) -> None:
    """Say so and wait for ever when a file is about to be moved into place for the n-th time."""
    moved = []
    move = Path.replace

    def stopping(self, target):
        if len(moved) == point:
            print("stopped", flush=True)
            threading.Event().wait()
        there = move(self, target)
        moved.append(there)
        return there

    Path.replace = stopping


def main() -> None:
    # A test run in the background may have left its children deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    job = json.loads(sys.argv[1])
    limit = job.get("cache_limit")
    set_options(cache_dir=job["cache_dir"], cache_limit=limit, timeout=30, retries=2)
    if job.get("break_locks"):
        break_locks()
    if "stop_at" in job:
        stop_at(job["stop_at"])
    source = AllenSource(job["url"])
    reads = [ImageRead(image_id, "image", 2, 64, 48) for image_id in job["image_ids"]]
    order = random.Random(job.get("seed", 0))
    found: list[str] = []
    started = threading.Barrier(job.get("threads", 1) + 1)

    def read_all() -> None:
        started.wait()
        for _ in range(job.get("rounds", 1)):
            if "seed" in job:
                order.shuffle(reads)
            found.extend(hashlib.sha256(source.image(read)).hexdigest() for read in [*reads])

    threads = [threading.Thread(target=read_all) for _ in range(job.get("threads", 1))]
    for thread in threads:
        thread.start()
    started.wait()
    print("started", flush=True)
    for thread in threads:
        thread.join()
    print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
