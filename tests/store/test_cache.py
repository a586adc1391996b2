from __future__ import annotations

import hashlib
import json
import os
import subprocess
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atldld.errors import AtldldWarning
from atldld.model.read import VIEWS, ImageRead, Window
from atldld.store import cache as cache_module
from atldld.store.cache import Cache
from atldld.store.files import Files, Location
from atldld.store.names import dataset_name, image_name, service_folder
from source.conftest import a_read

NAME = "images/7/image-t2.jpg"
BODY = bytes(range(256)) * 10


def a_cache(folder: Path) -> Cache:
    return Cache(Files(Location(str(folder))), "http://h")


@pytest.fixture
def cache(tmp_path):
    return a_cache(tmp_path / "service")


def files(cache: Cache) -> set[str]:
    return {
        str(path.relative_to(cache.files.path))
        for path in cache.files.path.rglob("*")
        if path.is_file()
    } - {str(path.relative_to(cache.files.path)) for path in cache.files.path.glob("locks/*")}


# Names


def test_names_tell_all_that_makes_a_file():
    assert image_name(a_read(69177654)) == "images/69177654/image-t2.jpg"
    assert image_name(a_read(7, view="expression_mask", tier=0)) == (
        "images/7/expression_mask-t0.jpg"
    )
    assert image_name(a_read(7, window=Window(128, 0, 1024, 768))) == (
        "images/7/image-t2-w128-0-1024-768.jpg"
    )
    assert dataset_name(5) == "datasets/5.json"


reads = st.builds(
    ImageRead,
    image_id=st.integers(0),
    view=st.sampled_from(VIEWS),
    tier=st.integers(0, 12),
    width=st.just(10),
    height=st.just(10),
    window=st.none()
    | st.builds(Window, st.integers(), st.integers(), st.integers(1), st.integers(1)),
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(reads, reads)
def test_two_reads_share_a_name_only_if_they_are_one(one, two):
    assert (image_name(one) == image_name(two)) == (one == two)


@pytest.mark.parametrize(
    "changes",
    [{"image_id": "../../etc/passwd"}, {"image_id": 7.0}, {"view": "../image"}, {"tier": "2"},
     {"window": Window("/etc", 0, 1, 1)}],
)  # fmt: skip
def test_no_name_leads_out_of_the_folder(changes):
    with pytest.raises((ValueError, TypeError)):
        image_name(a_read(**{"image_id": 7, **changes}))


def test_services_have_folders_of_their_own():
    urls = ["http://h/api/v2", "https://h/api/v2", "http://h:8000/api/v2", "http://h/api/v3",
            "http://h.evil/api/v2", "http://[::1]:80/x", "http://../api"]  # fmt: skip
    names = [service_folder(url) for url in urls]
    assert len(set(names)) == len(urls)
    assert all(Path(name).name == name and not name.startswith(".") for name in names[:-1])


def test_a_password_is_neither_shown_nor_hashed():
    assert service_folder("http://me:secret@h/x") == service_folder("http://h/x")


# One file


def test_what_was_stored_is_loaded(cache):
    assert cache.load(NAME) is None
    assert not cache.holds(NAME)
    assert cache.store(NAME, BODY, "http://h/7")
    assert cache.load(NAME) == BODY
    assert cache.holds(NAME)
    record = cache.record(NAME)
    assert (record.size, record.url) == (len(BODY), "http://h/7")
    assert record.sha256 == hashlib.sha256(BODY).hexdigest()
    assert abs(record.time - time.time()) < 100
    assert files(cache) == {NAME, NAME + ".json"}


def test_files_are_open_to_those_whom_the_user_lets(cache):
    old = os.umask(0o002)
    try:
        cache.store(NAME, BODY, "")
    finally:
        os.umask(old)
    assert (cache.files.path / NAME).stat().st_mode & 0o777 == 0o664


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "bit flipped": flip,
    "truncated": lambda path: path.write_bytes(BODY[:-1]),
    "emptied": lambda path: path.write_bytes(b""),
    "zeroed": lambda path: path.write_bytes(bytes(len(BODY))),
    "longer": lambda path: path.write_bytes(BODY + b"\0"),
    "gone": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_file_is_a_miss(cache, damage):
    cache.store(NAME, BODY, "")
    DAMAGES[damage](cache.files.path / NAME)
    assert cache.load(NAME) is None


RECORDS = [
    b"", b"{", b"null", b"[]", b"{}", b"\xff", b"[" * 60_000, bytes(100),
    b'{"size": "2560", "sha256": "x", "url": "", "time": 0}',
    b'{"size": 2560, "sha256": null, "url": "", "time": 0}',
    b'{"size": 2560, "sha256": "0", "url": "", "time": 0}',
    b'{"size": 2560, "sha256": "0", "url": "", "time": "x"}',
    b'{"size": 1e400, "sha256": "0", "url": "", "time": 0}',
]  # fmt: skip


@pytest.mark.parametrize("text", RECORDS)
def test_a_damaged_record_is_a_miss(cache, text):
    cache.store(NAME, BODY, "")
    (cache.files.path / (NAME + ".json")).write_bytes(text)
    assert cache.load(NAME) is None


def test_a_file_without_record_is_a_miss(cache):
    cache.store(NAME, BODY, "")
    (cache.files.path / (NAME + ".json")).unlink()
    assert cache.load(NAME) is None
    assert not cache.holds(NAME)


@settings(deadline=None, suppress_health_check=list(HealthCheck))
@given(st.binary(max_size=200))
def test_any_bytes_are_kept_and_no_record(cache, content):
    section = (0, 0, 3, 4)
    cache.store(NAME, content, "http://h/7", section)
    assert cache.load(NAME, section) == content
    (cache.files.path / (NAME + ".json")).write_bytes(content)
    assert cache.load(NAME, section) is None


def test_discarding(cache):
    cache.discard(NAME)
    cache.store(NAME, BODY, "")
    cache.discard(NAME)
    assert files(cache) == set()


# Fetching what is missing


def fetches(cache: Cache, *bodies: bytes, fits=lambda content: True, name: str = NAME) -> int:
    """Obtain a file, and return how many times it was fetched."""
    calls = []

    def fetch():
        calls.append(None)
        return bodies[0]

    assert cache.obtain(name, fetch, fits, "http://h") == bodies[-1]
    return len(calls)


def test_a_file_is_fetched_once(cache):
    assert fetches(cache, BODY) == 1
    assert fetches(cache, b"another", BODY) == 0


@pytest.mark.parametrize("damage", [name for name in DAMAGES if name != "a folder"])
def test_a_damaged_file_is_fetched_again_once(cache, damage):
    fetches(cache, BODY)
    DAMAGES[damage](cache.files.path / NAME)
    assert fetches(cache, BODY) == 1
    assert fetches(cache, BODY) == 0


def test_a_file_that_does_not_fit_any_more_is_fetched_again(cache):
    fetches(cache, BODY)
    assert fetches(cache, b"new", fits=lambda content: content == b"new") == 1
    assert fetches(cache, b"new") == 0


def test_a_failed_fetch_leaves_nothing(cache):
    def fail():
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        cache.obtain(NAME, fail, lambda content: True, "")
    assert files(cache) == set()


def test_a_damaged_file_is_thrown_away_even_if_no_other_comes(cache):
    fetches(cache, BODY)
    flip(cache.files.path / NAME)
    with pytest.raises(ZeroDivisionError):
        cache.obtain(NAME, lambda: 1 / 0, lambda content: True, "")
    assert files(cache) == set()


def test_names_that_share_a_lock_do_not_block_one_another_for_good(cache, monkeypatch):
    monkeypatch.setattr(cache_module, "lock_name", lambda name: "locks/000.lock")
    assert fetches(cache, BODY) + fetches(cache, BODY, name="images/8/image-t2.jpg") == 2


def test_readers_see_one_whole_content_or_none(cache):
    """Two writers that differ, no locks: what is read is one or the other, never a mixture."""
    bodies = [bytes([letter]) * 20_000 for letter in b"ab"]
    stop = threading.Event()
    seen = set()

    def write(body):
        for _ in range(150):
            cache.store(NAME, body, "")

    def read():
        while not stop.is_set():
            seen.add(cache.load(NAME))

    readers = [threading.Thread(target=read) for _ in range(3)]
    writers = [threading.Thread(target=write, args=(body,)) for body in bodies]
    for thread in (*readers, *writers):
        thread.start()
    for thread in writers:
        thread.join()
    stop.set()
    for thread in readers:
        thread.join()
    assert seen <= {None, *bodies}
    assert seen & set(bodies)


# Files on their way


def test_files_on_their_way_are_ignored_and_swept_when_old(cache):
    cache.store(NAME, BODY, "")
    partial = cache.files.path / "partial"
    for name, age in (("old", 90_000), ("new", 10)):
        (partial / name).write_bytes(b"half")
        os.utime(partial / name, (time.time() - age, time.time() - age))
    cache.files.sweep(time.time() - 86_400)
    assert files(cache) == {NAME, NAME + ".json", "partial/new"}


def test_the_first_storing_of_a_process_sweeps(cache):
    partial = cache.files.path / "partial"
    partial.mkdir(parents=True)
    (partial / "old").write_bytes(b"half")
    os.utime(partial / "old", (0, 0))
    cache.store(NAME, BODY, "")
    assert files(cache) == {NAME, NAME + ".json"}


# Folders that cannot be written to


@contextmanager
def one_warning(match: str):
    with pytest.warns(AtldldWarning, match=match) as caught:
        yield
    assert len(caught) == 1


def uncached(cache: Cache, match: str) -> None:
    """Hold that files come right, are not kept, and that one warning says so."""
    with one_warning(match):
        assert fetches(cache, BODY) == 1
        assert fetches(cache, BODY) == 1
        assert fetches(cache, BODY, name="images/8/image-t2.jpg") == 1


def test_a_folder_below_a_file(tmp_path):
    (tmp_path / "file").write_text("in the way")
    uncached(a_cache(tmp_path / "file" / "service"), "cannot be written to .*set_options")


def test_each_folder_has_its_warning(tmp_path):
    (tmp_path / "file").write_text("in the way")
    for name in "ab":
        with one_warning(f"file/{name}"):
            fetches(a_cache(tmp_path / "file" / name), BODY)


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


def test_a_read_only_folder(mounted):
    uncached(a_cache(mounted("ro") / "service"), "Read-only file system")


def test_a_read_only_folder_that_is_full_of_files_serves(mounted):
    place = mounted("size=10m")
    cache = a_cache(place / "service")
    assert fetches(cache, BODY) == 1
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert fetches(cache, BODY) == 0
    # A damaged file cannot be thrown away there, and still is not served.
    subprocess.run(["mount", "-o", "remount,rw", str(place)], check=True)
    flip(cache.files.path / NAME)
    subprocess.run(["mount", "-o", "remount,ro", str(place)], check=True)
    with one_warning("Read-only"):
        assert fetches(cache, BODY) == 1


def test_a_full_disk(mounted):
    cache = a_cache(mounted("size=64k") / "service")
    body = os.urandom(200_000)
    with one_warning("No space left"):
        assert fetches(cache, body) == 1
        assert fetches(cache, body) == 1
    assert not any("partial" in name for name in files(cache))
    # Small files still find their place.
    assert fetches(cache, b"small", name="images/8/image-t2.jpg") == 1
    assert fetches(cache, b"small", name="images/8/image-t2.jpg") == 0


def test_a_record_is_small_and_readable(cache):
    cache.store(NAME, BODY, "http://h/7")
    fields = json.loads((cache.files.path / (NAME + ".json")).read_text())
    assert set(fields) == {"size", "sha256", "url", "time", "name", "service", "section"}
