"""Reading for long from a bad service on a failing cluster: ``python -m benchmarks.load``.

Two datasets are read again and again, each time into an empty cache, by the workers of a
dask.distributed cluster. The server lets one request in fifty fail, in each of its ways in turn;
one worker a minute is killed. Every pixel is held against what was read when nothing failed.
Threads, files, connections and memory are counted in this process and in the worker that is
never killed, after the first rounds and at the end.

Returns 1 if a pixel was wrong or something leaked.
"""

from __future__ import annotations

import argparse
import gc
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, get_args

import dask
import numpy as np
import xarray as xr
from distributed import Client, LocalCluster

import atldld
from atldld.testing import AllenServer, Fault, SpawnedServer, phantom_dataset
from atldld.testing.traffic import FaultKind

from .machine import machine

DATASETS: Final = (801, 802)
ONE_IN: Final = 50
WARM_ROUNDS: Final = 3
"""Rounds until all is imported, and memory that is kept for good is taken."""

_PASSED_OVER: Final = ("latency", "body", "rows", "400", "403", "early-hints", "two-answers")
"""Not faults of an image that another try can mend."""

_SURVIVOR: Final = 0


@dataclass(frozen=True)
class Sample:
    """What a process holds at one moment.

    Parameters
    ----------
    threads, files, connections
        How many; `files` are all open descriptors, connections among them.
    mebibytes
        Resident memory.
    """

    threads: int
    files: int
    connections: int
    mebibytes: float


MOST_MORE: Final = Sample(threads=8, files=16, connections=16, mebibytes=64.0)
"""How much more of each the end may have than the beginning: idle connections and threads of the
pool come and go."""


@dataclass
class Tally:
    """What a run came to.

    Parameters
    ----------
    reads
        Sections read.
    wrong
        Sections of which a pixel was wrong.
    requests
        Requests for images.
    faults
        How many of them failed, by kind.
    killed
        Workers.
    left
        Files of killed writers, left half-written in caches.
    seconds
        For the reading.
    """

    reads: int = 0
    wrong: int = 0
    requests: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    killed: int = 0
    left: int = 0
    seconds: float = 0.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, print a table, write the numbers."""
    asked = _parser().parse_args(arguments)
    warnings.simplefilter("ignore", atldld.AtldldWarning)
    phantoms = [
        phantom_dataset(dataset, sections=asked.sections // 2, resolution=90, seed=dataset)
        for dataset in DATASETS
    ]
    folder = Path(tempfile.mkdtemp(prefix="atldld-load-"))
    try:
        with AllenServer.spawn(phantoms) as server:
            _say("preparing the server")
            server.prepare(tiers=0)
            tally, samples = _run(asked, server, folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    leaks = _leaks(samples)
    values = {
        "machine": machine(),
        **{name: getattr(tally, name) for name in Tally.__dataclass_fields__},
        "samples": {name: [asdict(one) for one in two] for name, two in samples.items()},
        "leaks": leaks,
    }
    asked.output.parent.mkdir(parents=True, exist_ok=True)
    asked.output.write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")
    print(_table(tally, samples))
    for leak in leaks:
        print(f"leaked: {leak}")
    return 1 if tally.wrong or leaks else 0


def _run(
    asked: argparse.Namespace, server: SpawnedServer, folder: Path
) -> tuple[Tally, dict[str, list[Sample]]]:
    tally = Tally()
    samples: dict[str, list[Sample]] = {"client": [], "worker": []}
    options: dict[str, Any] = {"timeout": 5, "retries": 6, "max_connections": 8, "progress": False}
    with atldld.set_options(cache_dir=folder / "right", **options):
        expected = [array.compute(scheduler="threads") for array in _opened(server)]
    for fault in faults():
        server.add_fault(fault)
    stop = threading.Event()
    # A task may be on more workers that are killed than dask thinks likely.
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 100}),
        LocalCluster(
            n_workers=asked.workers,
            threads_per_worker=2,
            processes=True,
            dashboard_address=":0",
            silence_logs=logging.CRITICAL,
        ) as cluster,
        Client(cluster) as client,
    ):
        killer = threading.Thread(target=_kill, args=(client, asked.kill_every, stop, tally))
        killer.start()
        began = time.monotonic()
        try:
            number = 0
            while tally.reads < asked.reads:
                server.reset_log()
                cache = folder / f"round{number}"
                with atldld.set_options(cache_dir=cache, **options):
                    found = client.gather(client.compute(list(_opened(server)), retries=20))
                _count(tally, server, found, expected, cache)
                del found
                shutil.rmtree(cache, ignore_errors=True)
                number += 1
                if number == WARM_ROUNDS:
                    _sample(client, samples)
                _say(f"{tally.reads} reads, {tally.wrong} wrong, {tally.killed} workers killed")
        finally:
            tally.seconds = time.monotonic() - began
            stop.set()
            killer.join()
        # The idle threads and connections of pools are given back after a while.
        time.sleep(5)
        _sample(client, samples)
    return tally, samples


def faults() -> list[Fault]:
    """Return faults that together hit one request in fifty, each kind as often as the others."""
    kinds = [kind for kind in get_args(FaultKind) if kind not in _PASSED_OVER]
    every = ONE_IN * len(kinds)
    return [
        Fault(
            kind,
            skip=ONE_IN * place,
            every=every,
            retry_after=0.5 if kind in ("429", "503") else None,
        )
        for place, kind in enumerate(kinds)
    ]


def _opened(server: SpawnedServer) -> list[xr.DataArray]:
    return [
        atldld.open_dataarray(
            dataset, source=server.url, resolution=100, tier=0, chunks={"section": 10}
        )
        for dataset in DATASETS
    ]


def _count(
    tally: Tally,
    server: SpawnedServer,
    found: Sequence[xr.DataArray],
    expected: Sequence[xr.DataArray],
    cache: Path,
) -> None:
    for one, right in zip(found, expected, strict=True):
        same = (one.values == right.values).reshape(len(right), -1).all(axis=1)
        tally.reads += len(same)
        tally.wrong += int(np.count_nonzero(~same))
    requests = server.image_requests
    tally.requests += len(requests)
    tally.faults.update(request.fault for request in requests if request.fault is not None)
    tally.left += sum(1 for _ in cache.glob("*/partial/*"))


def _kill(client: Client, every: float, stop: threading.Event, tally: Tally) -> None:
    while not stop.wait(every):
        pids = [pid for pid, name in _workers(client) if name != _SURVIVOR]
        if pids:
            with suppress(ProcessLookupError):
                os.kill(pids[tally.killed % len(pids)], signal.SIGKILL)
                tally.killed += 1


def _workers(client: Client) -> list[tuple[int, Any]]:
    def who(dask_worker: Any) -> tuple[int, Any]:
        return os.getpid(), dask_worker.name

    return sorted(client.run(who, on_error="ignore").values())


def _sample(client: Client, samples: dict[str, list[Sample]]) -> None:
    def of_worker(dask_worker: Any) -> tuple[Any, Sample]:
        return dask_worker.name, sample()

    samples["client"].append(sample())
    samples["worker"].append(dict(client.run(of_worker).values())[_SURVIVOR])


def sample() -> Sample:
    """Return what this process holds, as Linux counts it."""
    gc.collect()
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    files = []
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):
            files.append(str(link.readlink()))
    return Sample(
        threads=int(status["Threads"]),
        files=len(files),
        connections=sum(name.startswith("socket:") for name in files),
        mebibytes=round(int(status["VmRSS"].split()[0]) / 1024, 1),
    )


def _leaks(samples: dict[str, list[Sample]]) -> list[str]:
    found = []
    for name, (first, last) in samples.items():
        for what, most in asdict(MOST_MORE).items():
            more = asdict(last)[what] - asdict(first)[what]
            if more > most:
                found.append(f"{name}: {more} more {what}")
    return found


def _table(tally: Tally, samples: dict[str, list[Sample]]) -> str:
    rows = [
        ("section reads", f"{tally.reads:,}"),
        ("sections with a wrong pixel", f"{tally.wrong:,}"),
        ("requests for images", f"{tally.requests:,}"),
        (
            "requests that failed",
            f"{tally.faults.total():,}: "
            + ", ".join(f"{count} {kind}" for kind, count in sorted(tally.faults.items())),
        ),
        ("workers killed", f"{tally.killed:,}"),
        ("half-written files left by them", f"{tally.left:,}"),
        ("minutes", f"{tally.seconds / 60:.1f}"),
    ]
    for name, (first, last) in samples.items():
        rows += [
            (f"{what} of the {name}, begin and end", f"{asdict(first)[what]}, {asdict(last)[what]}")
            for what in asdict(first)
        ]
    return "\n".join(f"| {name} | {value} |" for name, value in [("what", "how much"), *rows])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--reads", type=int, default=20_000, help="sections to read, at least")
    parser.add_argument("--sections", type=int, default=1000, help="sections there are")
    parser.add_argument("--workers", type=int, default=3, help="processes; the first survives")
    parser.add_argument("--kill-every", type=float, default=60.0, help="seconds between kills")
    parser.add_argument("--output", type=Path, default=Path("build/load.json"))
    return parser


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
