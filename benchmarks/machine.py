"""Which machine, and which versions, a measurement was made with."""

from __future__ import annotations

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "atldld",
    "numpy",
    "xarray",
    "dask",
    "distributed",
    "zarr",
    "requests",
    "opencv-python-headless",
    "simplejpeg",
)


def machine() -> dict[str, str]:
    """Return a header: names and what they are, in the order in which they should be read."""
    facts = {
        "measured": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if _linux() else os.cpu_count()),
        "memory": f"{_memory() / 1e9:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "load at the start": load(),
        "python": platform.python_version(),
    }
    for name in PACKAGES:
        try:
            facts[name] = version(name)
        except PackageNotFoundError:
            facts[name] = "not installed"
    return facts


def load() -> str:
    """Return how many processes wanted a processor in the last minute, on average."""
    return f"{os.getloadavg()[0]:.1f}"


def _linux() -> bool:
    return platform.system() == "Linux"


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _processor() -> str:
    told = Path("/proc/cpuinfo")
    if told.is_file():
        for line in told.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
