"""A process that reads images, for the tests of many processes. Arguments as JSON."""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import sys
import threading

import atldld


def stop_at(point: int) -> None:
    """Say so and wait for ever when an image, or its record, is moved into place: the n-th time."""
    moved = []
    move = os.replace

    def stopping(source, target, **options):
        if f"{os.sep}images{os.sep}" not in os.fspath(target):
            return move(source, target, **options)
        if len(moved) == point:
            print("stopped", flush=True)
            threading.Event().wait()
        there = move(source, target, **options)
        moved.append(target)
        return there

    os.replace = stopping


def digest(url: str, dataset_id: int, image_id: int) -> str:
    image = atldld.open_image(image_id, dataset_id=dataset_id, chunks=None, source=url)
    return hashlib.sha256(image.values.tobytes()).hexdigest()


def main() -> None:
    # A test run in the background may have left its children deaf to Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    job = json.loads(sys.argv[1])
    limit = job.get("cache_limit")
    atldld.set_options(
        cache_dir=job["cache_dir"], cache_limit=limit, timeout=job.get("timeout", 60), retries=2
    )
    if "stop_at" in job:
        stop_at(job["stop_at"])
    images = job["image_ids"]
    order = random.Random(job.get("seed", 0))
    found: list[str] = []
    started = threading.Barrier(job.get("threads", 1) + 1)

    def read_all() -> None:
        started.wait()
        for _ in range(job.get("rounds", 1)):
            if "seed" in job:
                order.shuffle(images)
            found.extend(digest(job["url"], job["dataset_id"], each) for each in [*images])

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
