"""A process that packs a dataset, for the tests that kill it. Arguments as JSON."""

from __future__ import annotations

import json
import os
import sys
import threading
from pathlib import Path

import atldld


def stop_at(point: int, start: str, end: str) -> None:
    """Say so and wait for ever when the n-th file of such a path is to be moved into place."""
    moved = 0
    move = os.replace

    def stopping(source, target, **options):
        nonlocal moved
        name = os.fspath(target)
        # A move into a folder that is not there yet is tried again.
        ready = Path(name).parent.is_dir()
        if ready and name.startswith(start) and name.endswith(end):
            if moved == point:
                print("stopped", flush=True)
                threading.Event().wait()
            moved += 1
        return move(source, target, **options)

    os.replace = stopping


def main() -> None:
    job = json.loads(sys.argv[1])
    atldld.set_options(cache_dir=job["cache_dir"], timeout=60, retries=1)
    if "stop_at" in job:
        stop_at(*job["stop_at"])
    packed = atldld.pack(job["dataset_id"], job["target"], source=job["url"], **job["options"])
    print(json.dumps([packed.fetched, packed.kept]), flush=True)


if __name__ == "__main__":
    main()
