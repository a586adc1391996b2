"""Names of the files of a cache or a bundle, below the folder of a service."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Final

from ..model.read import VIEWS, ImageRead, Window
from ..urls import host_and_port, without_credentials

SERVICE_FOLDER: Final = re.compile(r"[a-z0-9._-]+-[0-9a-f]{12}")
IMAGE_FILE: Final = re.compile(
    r"(?P<view>[a-z_]+)-t(?P<tier>\d{1,3})(-w(?P<window>\d{1,9}-\d{1,9}-\d{1,9}-\d{1,9}))?\.jpg"
)
GRID_FILE: Final = re.compile(r"\d{1,19}-[a-z0-9-]{1,40}\.(zip|nrrd)")


@lru_cache
def service_folder(base_url: str) -> str:
    """Return the name of the folder that belongs to one service.

    Examples
    --------
    >>> service_folder("http://127.0.0.1:8000/api/v2")
    '127.0.0.1_8000-1928845ff228'
    """
    address = without_credentials(base_url)
    readable = re.sub(r"[^a-z0-9.-]", "_", host_and_port(address).lower())
    return f"{readable}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"


def image_name(read: ImageRead) -> str:
    """Return the name of the file of a read, below the folder of its service.

    Examples
    --------
    >>> image_name(ImageRead(7, "image", 2, 100, 80))
    'images/7/image-t2.jpg'
    """
    # Whole numbers and known words only: no name can lead out of the folder.
    view = VIEWS[VIEWS.index(read.view)]
    window = ""
    if read.window is not None:
        w = read.window
        window = f"-w{w.left:d}-{w.top:d}-{w.width:d}-{w.height:d}"
    return f"images/{read.image_id:d}/{view}-t{read.tier:d}{window}.jpg"


def held_windows(read: ImageRead, names: Iterable[str]) -> frozenset[Window | None]:
    """Return which windows of an image's view and tier are among file names; None is the whole.

    Examples
    --------
    >>> read = ImageRead(7, "image", 2, 100, 80)
    >>> sorted(map(str, held_windows(read, ["image-t2.jpg", "image-t3.jpg", "image-t2.jpg.json"])))
    ['None']
    """
    windows: set[Window | None] = set()
    for name in names:
        found = IMAGE_FILE.fullmatch(name)
        if found is None or found["view"] != read.view or int(found["tier"]) != read.tier:
            continue
        numbers = found["window"]
        window = None if numbers is None else Window(*map(int, numbers.split("-")))
        if window is None or (window.area and Window(0, 0, read.width, read.height).holds(window)):
            windows.add(window)
    return frozenset(windows)


def dataset_name(dataset_id: int) -> str:
    """Return the name of the file of a dataset's metadata."""
    return f"datasets/{dataset_id:d}.json"


def service_name(key: str) -> str:
    """Return the name of the file of something found out about the service itself."""
    if not re.fullmatch(r"[a-z_]{1,40}", key):
        raise ValueError(f"the key is {key!r}; it must be a word of small letters")
    return f"service/{key}.json"


def lock_name(name: str) -> str:
    """Return the name of the lock of a file.

    Names share a few thousand locks: lock files stay behind, and two names that wait for each
    other now and then cost less than one more file each.

    Examples
    --------
    >>> lock_name("images/7/image-t2.jpg")
    'locks/7e0.lock'
    """
    return f"locks/{hashlib.sha256(name.encode()).hexdigest()[:3]}.lock"


def record_path(path: Path) -> Path:
    """Return where the record of a file is."""
    return path.with_name(path.name + ".json")
