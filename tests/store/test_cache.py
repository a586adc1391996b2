"""What is downloaded is kept, believed only while it is whole, and never in the way."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import subprocess
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import atldld
from atldld.testing import AllenServer, Fault, phantom_dataset

PHANTOM = phantom_dataset(1001, sections=2, resolution=60, tier_count=2, seed=5)
TIER = 1


@pytest.fixture(scope="module")
def shared_server():
    with AllenServer(PHANTOM) as running:
        yield running


@pytest.fixture
def server(shared_server):
    shared_server.clear_faults()
    shared_server.reset_log()
    return shared_server


@pytest.fixture(scope="module")
def truth(shared_server, tmp_path_factory):
    with atldld.set_options(cache_dir=tmp_path_factory.mktemp("truth")):
        return opened(shared_server).values


@pytest.fixture
def cache_dir(tmp_path):
    with atldld.set_options(cache_dir=tmp_path / "cache", retries=0):
        yield tmp_path / "cache"


def opened(server, **options):
    options = {"resolution": 400, "tier": TIER, "chunks": None, **options}
    return atldld.open_dataarray(PHANTOM.id, source=server.url, **options)


def asked(server, truth) -> list[int]:
    """Hold the pixels against the truth, and return the images that they were asked for."""
    server.reset_log()
    np.testing.assert_array_equal(opened(server).values, truth)
    return sorted(request.image_id for request in server.image_requests)


def files(cache_dir: Path) -> set[str]:
    """Return the files within the folder of the service, but its locks."""
    (service,) = cache_dir.iterdir()
    found = (path.relative_to(service).as_posix() for path in service.rglob("*") if path.is_file())
    return {name for name in found if not name.startswith("locks/")}


def images(cache_dir: Path) -> list[Path]:
    return sorted(cache_dir.glob("*/images/*/*.jpg"))


def test_what_was_downloaded_is_read_from_the_disk(server, truth, cache_dir):
    assert asked(server, truth) == PHANTOM.image_ids
    assert asked(server, truth) == []
    names = {f"images/{image_id}/image-t{TIER}.jpg" for image_id in PHANTOM.image_ids}
    names |= {"datasets/1001.json"}
    there = {name for name in files(cache_dir) if not name.startswith("service/")}
    assert there == {*names, *(f"{name}.json" for name in names)}


def test_a_window_has_a_name_of_its_own(server, cache_dir):
    large = phantom_dataset(1002, sections=1, resolution=8, image_size=(1800, 1500))
    (image_id,) = large.image_ids
    with AllenServer(large) as other:
        corner = atldld.open_image(
            image_id, region={"x": (300, 500), "y": (300, 400)}, source=other.url
        )
        corner.values  # noqa: B018
        plan = corner.atlas.plan().iloc[0]
    numbers = "-".join(str(plan[name]) for name in ("left", "top", "width", "height"))
    assert f"images/{image_id}/image-t0-w{numbers}.jpg" in files(cache_dir)


def test_a_record_is_small_and_readable(server, truth, cache_dir):
    asked(server, truth)
    path = images(cache_dir)[0]
    fields = json.loads(path.with_name(f"{path.name}.json").read_text())
    assert set(fields) == {"size", "sha256", "url", "time", "name", "service", "section"}
    assert fields["size"] == path.stat().st_size
    assert fields["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert fields["url"].startswith(server.url)
    assert abs(fields["time"] - time.time()) < 1000


@pytest.mark.skipif(os.name == "nt", reason="no modes of files here")
def test_files_are_open_to_those_whom_the_user_lets(server, truth, cache_dir):
    old = os.umask(0o002)
    try:
        asked(server, truth)
    finally:
        os.umask(old)
    assert {path.stat().st_mode & 0o777 for path in images(cache_dir)} == {0o664}


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "bit flipped": flip,
    "truncated": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "zeroed": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"\0"),
    "gone": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_fetched_again_once(server, truth, cache_dir, damage):
    asked(server, truth)
    DAMAGES[damage](images(cache_dir)[0])
    assert asked(server, truth) == PHANTOM.image_ids[:1]
    assert asked(server, truth) == []


def test_a_folder_in_the_place_of_a_file_is_a_miss(server, truth, cache_dir):
    asked(server, truth)
    path = images(cache_dir)[0]
    path.unlink()
    path.mkdir()
    with pytest.warns(atldld.AtldldWarning, match="cannot be written to"):
        assert asked(server, truth) == PHANTOM.image_ids[:1]


RECORDS = [
    b"", b"{", b"null", b"[]", b"{}", b"\xff", b"[" * 60_000, bytes(100),
    b'{"size": "2560", "sha256": "x", "url": "", "time": 0}',
    b'{"size": 2560, "sha256": null, "url": "", "time": 0}',
    b'{"size": 2560, "sha256": "0", "url": "", "time": 0}',
    b'{"size": 2560, "sha256": "0", "url": "", "time": "x"}',
    b'{"size": 1e400, "sha256": "0", "url": "", "time": 0}',
]  # fmt: skip


def test_a_damaged_record_is_a_miss(server, truth, cache_dir):
    asked(server, truth)
    path = images(cache_dir)[0]
    record = path.with_name(f"{path.name}.json")
    for text in RECORDS:
        record.write_bytes(text)
        assert asked(server, truth) == PHANTOM.image_ids[:1], text
    record.unlink()
    assert asked(server, truth) == PHANTOM.image_ids[:1]
    assert asked(server, truth) == []


@settings(deadline=None, max_examples=25, derandomize=True, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200))
def test_no_bytes_are_a_record(shared_server, truth, cache_dir, content):
    asked(shared_server, truth)
    path = images(cache_dir)[0]
    path.with_name(f"{path.name}.json").write_bytes(content)
    assert asked(shared_server, truth) == PHANTOM.image_ids[:1]


def test_a_failed_download_leaves_nothing(server, truth, cache_dir):
    server.add_fault(Fault("500", request="image"))
    with pytest.raises(atldld.ImageError):
        opened(server).load()
    assert not any(name.startswith(("images/", "partial/")) for name in files(cache_dir))


def test_a_damaged_file_is_thrown_away_even_if_no_other_comes(server, truth, cache_dir):
    asked(server, truth)
    path = images(cache_dir)[0]
    flip(path)
    server.add_fault(Fault("500", request="image"))
    with pytest.raises(atldld.ImageError):
        opened(server).load()
    assert path not in images(cache_dir)


def test_readers_see_what_is_whole_or_ask_again(server, truth, cache_dir):
    """While somebody tears the files: right pixels, whatever a reader finds on the disk."""
    asked(server, truth)
    places = {path: path.read_bytes() for path in images(cache_dir)}
    stop = threading.Event()
    right = []

    def read():
        while not stop.is_set():
            right.append(np.array_equal(opened(server).values, truth))

    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in readers:
        thread.start()
    for length in range(40):
        for path, content in places.items():
            with contextlib.suppress(OSError):
                path.write_bytes(content[: length * 7])
                path.write_bytes(content)
    stop.set()
    for thread in readers:
        thread.join()
    assert right
    assert all(right)


def test_files_on_their_way_are_ignored_and_swept_when_old(server, truth, tmp_path):
    with atldld.set_options(cache_dir=tmp_path / "once"):
        asked(server, truth)
        (service,) = (path.name for path in (tmp_path / "once").iterdir())
    # A cache that no reader of this process has written to yet.
    cache_dir = tmp_path / "cache"
    partial = cache_dir / service / "partial"
    partial.mkdir(parents=True)
    for name, age in (("old", 90_000), ("new", 10)):
        (partial / name).write_bytes(b"half")
        os.utime(partial / name, (time.time() - age, time.time() - age))
    with atldld.set_options(cache_dir=cache_dir):
        assert asked(server, truth) == PHANTOM.image_ids
    assert {name for name in files(cache_dir) if name.startswith("partial/")} == {"partial/new"}


# Folders that cannot be written to


@contextlib.contextmanager
def one_warning(match: str):
    with pytest.warns(atldld.AtldldWarning, match=match) as caught:
        yield
    assert len(caught) == 1


def uncached(server, truth, folder: Path, match: str) -> None:
    """Hold that pixels come right, are not kept, and that one warning says so."""
    with atldld.set_options(cache_dir=folder), one_warning(match):
        assert asked(server, truth) == PHANTOM.image_ids
        assert asked(server, truth) == PHANTOM.image_ids


def test_a_folder_below_a_file(server, truth, tmp_path):
    (tmp_path / "file").write_text("in the way")
    uncached(server, truth, tmp_path / "file" / "a", "cannot be written to .*set_options")
    # Each folder has its warning.
    uncached(server, truth, tmp_path / "file" / "b", "file/b")


@pytest.fixture
def mounted(tmp_path):
    """Return a function that mounts an empty file system at a folder."""
    places = []

    def mount(*options: str) -> Path:
        place = tmp_path / f"mounted{len(places)}"
        place.mkdir()
        command = ["mount", "-t", "tmpfs", "-o", ",".join(options), "none", str(place)]
        try:
            done = subprocess.run(command, capture_output=True, text=True)
        except FileNotFoundError:
            pytest.skip("no mount command")
        if done.returncode:
            pytest.skip(f"may not mount: {done.stderr.strip()}")
        places.append(place)
        return place

    yield mount
    for place in places:
        subprocess.run(["umount", str(place)], check=True)


def test_a_read_only_folder(server, truth, mounted):
    uncached(server, truth, mounted("ro"), "Read-only file system")


def test_a_read_only_folder_that_is_full_of_files_serves(server, truth, mounted):
    place = mounted("size=10m")
    with atldld.set_options(cache_dir=place):
        assert asked(server, truth) == PHANTOM.image_ids
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert asked(server, truth) == []
        # A damaged file cannot be thrown away there, and still is not served.
        subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
        flip(images(place)[0])
        subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
        with one_warning("Read-only"):
            assert asked(server, truth) == PHANTOM.image_ids[:1]


def test_a_full_disk(server, truth, mounted):
    place = mounted("size=160k")
    (place / "filled").write_bytes(bytes(2**16))
    with atldld.set_options(cache_dir=place):
        opened(server)  # What describes the dataset still fits.
        with contextlib.suppress(OSError), (place / "more").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(2**12))
        with one_warning("No space left"):
            assert asked(server, truth) == PHANTOM.image_ids
            assert asked(server, truth) == PHANTOM.image_ids
        assert not any("partial" in str(path) for path in place.rglob("*") if path.is_file())
        # Where there is room again, files are kept.
        (place / "more").unlink()
        assert asked(server, truth) == PHANTOM.image_ids
        assert asked(server, truth) == []
