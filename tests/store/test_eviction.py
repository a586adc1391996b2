"""A limit of size: what was used longest ago goes, and never under a reader."""

from __future__ import annotations

import hashlib
import os
import threading
import time
import warnings
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import atldld
from atldld.errors import AtldldWarning
from atldld.options import set_options
from atldld.source.allen import AllenSource
from atldld.store.cache import Cache
from atldld.store.files import Files, Location, locked
from atldld.store.inventory import (
    Kept,
    cache_stock,
    clear_cache,
    enforce_limit,
    mark_used,
    to_evict,
    trim_cache,
)
from atldld.store.manifest import section_of
from atldld.store.names import image_name, lock_name
from atldld.testing import AllenServer, phantom_dataset
from source.conftest import a_read, jpeg, quick_options, serve
from source.test_processes import BODIES, body_of, digest, result, start

__all__ = ["quick_options", "serve", "start"]

SIZE = max(map(len, BODIES.values())) + 512
"""No image takes more than that, with its record."""

SERVICE = Files(Location("/service"))

kept = st.lists(
    st.tuples(st.integers(0, 1000), st.integers(0, 20)), max_size=30, unique_by=lambda each: each[0]
).map(
    lambda drawn: [
        Kept(SERVICE, f"images/{number}/image-t2.jpg", number, used=float(used))
        for number, used in drawn
    ]
)


class TestWhatGoes:
    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(kept, st.integers(0, 20_000), st.integers(0, 3000))
    def test_the_rest_is_within_the_limit_and_nobody_younger_went(self, downloads, limit, rest):
        total = sum(each.bytes for each in downloads) + rest
        gone = to_evict(downloads, total, limit)
        stays = [each for each in downloads if each not in gone]
        assert len(gone) + len(stays) == len(downloads)
        if total <= limit:
            assert gone == []
        elif stays:
            assert sum(each.bytes for each in stays) + rest <= limit
        if gone and stays:
            assert max(each.used for each in gone) <= min(each.used for each in stays)

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(kept, st.integers(0, 20_000))
    def test_no_more_goes_than_a_tenth_of_the_limit_asks_for(self, downloads, limit):
        total = sum(each.bytes for each in downloads)
        gone = to_evict(downloads, total, limit)
        if gone:
            all_but_one = sum(each.bytes for each in gone[:-1])
            assert total - all_but_one > limit - limit // 10

    @settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(kept, st.integers(0, 5000), st.data())
    def test_what_is_spared_stays(self, downloads, limit, data):
        spared = {each for each in downloads if data.draw(st.booleans())}
        gone = to_evict(downloads, sum(each.bytes for each in downloads), limit, spared)
        assert not spared & set(gone)


@pytest.fixture
def cache_dir(tmp_path):
    return tmp_path / "cache"


def used(path: Path, seconds_ago: float) -> None:
    then = time.time() - seconds_ago
    os.utime(path, (then, then))


def bytes_on_disk(cache_dir: Path) -> int:
    return sum(
        path.stat().st_size
        for path in cache_dir.rglob("*")
        if path.is_file()
        and path.relative_to(cache_dir).parts[1] in ("images", "datasets", "grids")
    )


def there(cache: Cache) -> set[int]:
    return {
        number
        for number in BODIES
        if cache.holds(image_name(a_read(number)), section_of(a_read(number)))
    }


def test_the_least_recently_used_goes(serve, cache_dir):
    server = serve(body_of)
    source = AllenSource(server.url)
    cache = Cache.of(cache_dir, source.base)
    with set_options(cache_limit=4 * SIZE):
        for number in range(4):
            source.image(a_read(number))
            used(cache.files.path / image_name(a_read(number)), 1000 - number)
        assert there(cache) == {0, 1, 2, 3}
        # Read again, the first is the latest.
        source.image(a_read(0))
        source.image(a_read(4))
        assert there(cache) == {0, 3, 4} or there(cache) == {0, 2, 3, 4}
        source.image(a_read(5))
        assert {0, 4, 5} <= there(cache)
        assert 1 not in there(cache)
    assert len(server.requests) == 6
    assert source.image(a_read(1)) == BODIES[1]


def test_after_each_fetch_the_cache_is_within_its_limit(serve, cache_dir):
    server = serve(body_of)
    source = AllenSource(server.url)
    for limit in (2 * SIZE, 3 * SIZE, SIZE):
        clear_cache(cache_dir)
        with set_options(cache_limit=limit):
            for number in (0, 1, 2, 3, 4, 5, 0, 3, 1):
                assert source.image(a_read(number)) == BODIES[number]
                assert bytes_on_disk(cache_dir) <= limit


def test_without_a_limit_nothing_goes(serve, cache_dir):
    server = serve(body_of)
    source = AllenSource(server.url)
    for number in BODIES:
        source.image(a_read(number))
    assert there(Cache.of(cache_dir, source.base)) == set(BODIES)
    assert not (cache_dir / "atldld-size").exists()


def test_what_was_there_before_the_limit_counts(serve, cache_dir):
    server = serve(body_of)
    source = AllenSource(server.url)
    for number in range(5):
        source.image(a_read(number))
    with set_options(cache_limit=3 * SIZE):
        source.image(a_read(5))
    assert bytes_on_disk(cache_dir) <= 3 * SIZE
    assert 5 in there(Cache.of(cache_dir, source.base))


def test_all_services_share_one_limit(serve, cache_dir):
    one, two = (AllenSource(serve(body_of).url) for _ in range(2))
    with set_options(cache_limit=3 * SIZE):
        for source in (one, two):
            for number in range(3):
                source.image(a_read(number))
    assert bytes_on_disk(cache_dir) <= 3 * SIZE
    assert len(there(Cache.of(cache_dir, two.base))) >= 2


@pytest.mark.exhaustive
@pytest.mark.parametrize("break_locks", [False, True], ids=["locks", "no locks"])
def test_readers_in_four_processes_over_a_tiny_limit(serve, start, tmp_path, break_locks):
    server = serve(body_of)
    job = {"image_ids": list(BODIES), "threads": 2, "rounds": 10, "break_locks": break_locks}
    readers = [
        start(server.url, tmp_path / "x", cache_limit=2 * SIZE, seed=seed, **job)
        for seed in range(4)
    ]
    found = [name for reader in readers for name in result(reader)]
    wanted = sorted(digest(number) for number in BODIES) * 2 * 10 * 4
    assert sorted(found) == sorted(wanted)
    assert bytes_on_disk(tmp_path / "x") <= 2 * SIZE
    # Some were read from the cache, and some had to be fetched again.
    assert len(BODIES) < len(server.requests) < len(wanted)
    with set_options(cache_dir=tmp_path / "x"):
        source = AllenSource(server.url)
        assert {hashlib.sha256(source.image(a_read(n))).hexdigest() for n in BODIES} == set(found)


def test_an_open_file_can_be_read_to_its_end(cache_dir):
    cache = Cache.of(cache_dir, "http://127.0.0.1:9")
    name = image_name(a_read(0))
    cache.store(name, BODIES[0], "http://x")
    with (cache.files.path / name).open("rb") as file:
        start = file.read(10)
        enforce_limit(cache_dir, 1)
        assert not (cache.files.path / name).exists()
        assert start + file.read() == BODIES[0]


def test_what_another_is_fetching_stays(cache_dir):
    cache = Cache.of(cache_dir, "http://127.0.0.1:9")
    names = [image_name(a_read(number)) for number in BODIES]
    for name in names:
        cache.store(name, BODIES[0], "http://x")
    with locked(cache.files.path / lock_name(names[2]), 0) as held:
        assert held
        enforce_limit(cache_dir, 1)
    assert [name for name in names if cache.holds(name)] == [names[2]]


def test_what_was_used_since_it_was_chosen_stays(cache_dir, monkeypatch):
    cache = Cache.of(cache_dir, "http://127.0.0.1:9")
    names = [image_name(a_read(number)) for number in range(3)]
    for age, name in enumerate(names):
        cache.store(name, BODIES[0], "http://x")
        used(cache.files.path / name, 1000 - age)
    # Somebody reads the oldest between the look and the removal: as its lock is asked for.
    from atldld.store import inventory

    def reading(path, patience):
        if path.parent.name == "locks":
            assert cache.load(names[0]) == BODIES[0]
        return locked(path, patience)

    monkeypatch.setattr(inventory, "locked", reading)
    enforce_limit(cache_dir, 1)
    assert [name for name in names if cache.holds(name)] == [names[0]]


def test_files_that_are_not_ours_stay(cache_dir, tmp_path):
    cache = Cache.of(cache_dir, "http://127.0.0.1:9")
    cache.store(image_name(a_read(0)), BODIES[0], "http://x")
    cache.store("datasets/5.json", b"{}", "http://x")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "image-t2.jpg").write_bytes(b"x" * 1000)
    (cache.files.path / "images" / "99").symlink_to(outside)
    (cache.files.path / "images" / "8").mkdir()
    (cache.files.path / "images" / "8" / "image-t2.jpg").symlink_to(outside / "image-t2.jpg")
    foreign = [
        cache_dir / "image-t2.jpg",
        cache_dir / "photos" / "images" / "7" / "image-t2.jpg",
        cache.files.path / "images" / "image-t2.jpg",
        cache.files.path / "images" / "7" / "cat.jpg",
        cache.files.path / "images" / "cats" / "image-t2.jpg",
        cache.files.path / "grids" / "thesis.zip",
    ]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    enforce_limit(cache_dir, 1)
    assert not cache.holds(image_name(a_read(0)))
    assert cache.holds("datasets/5.json")
    assert all(path.is_file() for path in foreign)
    assert (outside / "image-t2.jpg").is_file()
    assert (cache.files.path / "images" / "8" / "image-t2.jpg").is_symlink()


def test_a_record_without_its_file_counts_and_goes(cache_dir):
    cache = Cache.of(cache_dir, "http://127.0.0.1:9")
    name = image_name(a_read(0))
    cache.store(name, BODIES[0], "http://x")
    (cache.files.path / name).unlink()
    enforce_limit(cache_dir, bytes_on_disk(cache_dir))
    assert cache.record(name)
    enforce_limit(cache_dir, bytes_on_disk(cache_dir) - 1, added=1)
    assert bytes_on_disk(cache_dir) == 0


def test_grids_go_too_and_are_shown_and_cleared(cache_dir):
    cache = Cache.of(cache_dir, "http://127.0.0.1:9")
    for number in range(2):
        cache.store(f"grids/{number}-energy.zip", b"PK" + bytes(1000), "http://x/grid_data/1")
        used(cache.files.path / f"grids/{number}-energy.zip", 1000 - number)
    (stock,) = cache_stock(cache_dir)
    assert (stock.files["grids"], stock.bytes["grids"]) == (2, 2004)
    assert trim_cache(cache_dir, limit=1500)[0] == 1
    assert cache.holds("grids/1-energy.zip")
    assert clear_cache(cache_dir)[0] == 1
    assert not list(cache_dir.iterdir())


def test_a_download_larger_than_the_limit_costs_the_others_nothing(cache_dir):
    cache = Cache.of(cache_dir, "http://127.0.0.1:9", limit=SIZE)
    small, large = image_name(a_read(0)), image_name(a_read(1))

    def obtain(name, body):
        return cache.obtain(name, lambda: body, lambda _: True, "http://x")

    assert obtain(small, BODIES[0]) == BODIES[0]
    giant = jpeg(640, 480)
    assert len(giant) > SIZE
    with pytest.warns(AtldldWarning, match=f"{len(giant)} bytes is not kept.*cache_limit"):
        assert obtain(large, giant) == giant
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert obtain(large, giant) == giant
    assert cache.holds(small)
    assert not cache.holds(large)


@pytest.mark.parametrize("damage", [b"", b"12", b"-1".zfill(20), b"x" * 20, b"0" * 20])
def test_a_damaged_count_is_made_anew_in_the_next_process(serve, start, tmp_path, damage):
    server = serve(body_of)
    folder = tmp_path / "x"
    job = {"image_ids": list(BODIES), "cache_limit": 3 * SIZE}
    result(start(server.url, folder, **job))
    (folder / "atldld-size" / "bytes").write_bytes(damage)
    assert result(start(server.url, folder, **job)) == [digest(number) for number in BODIES]
    assert bytes_on_disk(folder) <= 3 * SIZE


def test_use_is_noted_once_a_minute(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"x")
    for age, noted in ((1000, True), (30, False), (-1000, True)):
        used(path, age)
        before = path.stat().st_mtime
        mark_used(path)
        assert (path.stat().st_mtime != before) == noted
        assert not noted or abs(path.stat().st_mtime - time.time()) < 10
    mark_used(tmp_path / "not there")


def test_threads_that_fetch_at_once_leave_no_more_than_the_limit(serve, cache_dir):
    server = serve(body_of)
    source = AllenSource(server.url)
    with set_options(cache_limit=2 * SIZE):
        threads = [
            threading.Thread(target=source.image, args=(a_read(number),)) for number in BODIES
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert bytes_on_disk(cache_dir) <= 2 * SIZE


def test_a_prefetch_that_does_not_fit_says_so_once(cache_dir):
    phantom = phantom_dataset(dataset_id=63, sections=6, resolution=60, seed=3)
    with AllenServer([phantom]) as server:
        array = atldld.open_dataarray(63, source=server.url, resolution=200)
        whole = array.atlas.prefetch()
        clear_cache(cache_dir)
        limit = int(whole["bytes"].sum() // 2)
        server.reset_log()
        with set_options(cache_limit=limit), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            table = array.atlas.prefetch()
            assert bytes_on_disk(cache_dir) <= limit
            expected = array.compute()
        assert [str(each.message).split(":")[0] for each in caught] == [
            f"what is prefetched has more than the {limit} bytes that the cache may keep"
        ]
        assert list(table["bytes"]) == list(whole["bytes"])
        assert list(table["error"]) == [""] * len(table)
        assert array.compute().identical(expected)
        with set_options(cache_limit=2 * limit + 2**20), warnings.catch_warnings():
            warnings.simplefilter("error")
            array.atlas.prefetch()
