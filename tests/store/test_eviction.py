"""A limit of size: what was used longest ago goes, and never under a reader."""

from __future__ import annotations

import os
import random
import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

import atldld
from atldld.store.inventory import cache_stock, clear_cache, trim_cache, verify_cache
from atldld.testing import AllenServer, phantom_dataset
from measure_files import zipped_grid
from source.conftest import (
    BODIES,
    PIXELS,
    SMALL_IMAGES,
    numbers_asked,
    quick_options,
    serve,
    small_answer,
    small_image,
)
from source.test_processes import digest, result, start

__all__ = ["quick_options", "serve", "start"]

SIZE = max(map(len, BODIES)) + 512
"""No image takes more than that, with its record."""

ALL = range(len(BODIES))


@pytest.fixture
def cache_dir(tmp_path):
    with atldld.set_options(cache_dir=tmp_path / "cache"):
        yield tmp_path / "cache"


@pytest.fixture
def server(serve):
    return serve(small_answer)


def obtain(server, *numbers: int) -> None:
    for number in numbers:
        np.testing.assert_array_equal(small_image(server.url, number), PIXELS[number])


def path_of(cache_dir: Path, number: int) -> Path:
    """Return where an image is, or would be."""
    (folder,) = {path.parents[1] for path in cache_dir.glob("*/datasets/5.json")}
    return folder / "images" / str(SMALL_IMAGES[number]["id"]) / "image-t0.jpg"


def there(cache_dir: Path) -> set[int]:
    return {number for number in ALL if path_of(cache_dir, number).is_file()}


def used(path: Path, seconds_ago: float) -> None:
    then = time.time() - seconds_ago
    os.utime(path, (then, then))


KEPT = ("images", "datasets", "grids", "service")


def bytes_on_disk(cache_dir: Path, kinds=KEPT) -> int:
    return sum(
        path.stat().st_size
        for path in cache_dir.rglob("*")
        if path.is_file() and path.relative_to(cache_dir).parts[1] in kinds
    )


def room_for(cache_dir: Path, images: int) -> int:
    """Return the limit that leaves room for so many images beside what describes them."""
    return bytes_on_disk(cache_dir) - bytes_on_disk(cache_dir, ["images"]) + images * SIZE


@pytest.mark.parametrize("seed", range(4))
def test_what_was_used_longest_ago_goes_and_no_more_than_must(server, cache_dir, seed):
    obtain(server, *ALL)
    order = list(ALL)
    random.Random(seed).shuffle(order)
    sizes = {}
    for age, number in enumerate(order):
        path = path_of(cache_dir, number)
        sizes[number] = path.stat().st_size + path.with_name(f"{path.name}.json").stat().st_size
        used(path, 1000 + age)
    total = bytes_on_disk(cache_dir)
    limit = total - random.Random(seed).randrange(1, sum(sizes.values()))
    files, size = trim_cache(cache_dir, limit=limit)
    gone = order[len(order) - files :]
    assert there(cache_dir) == set(ALL) - set(gone)
    assert size == sum(sizes[number] for number in gone)
    assert total - size <= limit
    # A tenth of the limit is freed too, and no more: the last to go was needed.
    assert total - size + sizes[gone[0]] > limit - limit // 10
    assert trim_cache(cache_dir, limit=limit) == (0, 0)


def test_the_least_recently_used_goes(server, cache_dir):
    obtain(server, 0)
    with atldld.set_options(cache_limit=room_for(cache_dir, 4)):
        for number in range(4):
            obtain(server, number)
            used(path_of(cache_dir, number), 1000 - number)
        assert there(cache_dir) == {0, 1, 2, 3}
        # Read again, the first is the latest.
        obtain(server, 0, 4)
        assert {0, 3, 4} <= there(cache_dir) <= {0, 2, 3, 4}
        obtain(server, 5)
        assert {0, 4, 5} <= there(cache_dir)
        assert 1 not in there(cache_dir)
    assert len(numbers_asked(server)) == 6
    obtain(server, 1)


def test_after_each_fetch_the_cache_is_within_its_limit(server, cache_dir):
    obtain(server, 0)
    for images in (2, 3, 1):
        clear_cache(cache_dir)
        obtain(server, 0)
        limit = room_for(cache_dir, images)
        with atldld.set_options(cache_limit=limit):
            for number in (1, 2, 3, 4, 5, 0, 3, 1):
                obtain(server, number)
                assert bytes_on_disk(cache_dir) <= limit


def test_without_a_limit_nothing_goes(server, cache_dir):
    obtain(server, *ALL)
    assert there(cache_dir) == set(ALL)
    obtain(server, *ALL)
    assert len(numbers_asked(server)) == len(ALL)


def test_what_was_there_before_the_limit_counts(server, cache_dir):
    obtain(server, *range(5))
    limit = room_for(cache_dir, 3)
    with atldld.set_options(cache_limit=limit):
        obtain(server, 5)
    assert bytes_on_disk(cache_dir) <= limit
    assert 5 in there(cache_dir)


def test_all_services_share_one_limit(serve, cache_dir):
    one, two = (serve(small_answer) for _ in range(2))
    obtain(one, 0)
    obtain(two, 0)
    limit = room_for(cache_dir, 3)
    with atldld.set_options(cache_limit=limit):
        for server in (one, two):
            obtain(server, 0, 1, 2)
    assert bytes_on_disk(cache_dir) <= limit
    before = len(numbers_asked(two))
    obtain(two, 1, 2)
    assert len(numbers_asked(two)) == before


@pytest.mark.exhaustive
@pytest.mark.parametrize("break_locks", [False, True], ids=["locks", "no locks"])
def test_readers_in_four_processes_over_a_tiny_limit(server, start, cache_dir, break_locks):
    obtain(server, 0)
    limit = room_for(cache_dir, 2)
    if break_locks:
        (locks,) = cache_dir.glob("*/locks")
        for path in locks.iterdir():
            path.unlink()
        locks.rmdir()
        locks.write_bytes(b"")
    job = {"numbers": list(ALL), "threads": 2, "rounds": 10, "cache_limit": limit}
    readers = [start(server.url, cache_dir, seed=seed, **job) for seed in range(4)]
    found = [name for reader in readers for name in result(reader)]
    wanted = sorted(digest(number) for number in ALL) * 2 * 10 * 4
    assert sorted(found) == sorted(wanted)
    if not break_locks:
        assert bytes_on_disk(cache_dir) <= limit
    # Some were read from the cache, and some had to be fetched again.
    assert len(ALL) < len(numbers_asked(server)) < len(wanted)
    obtain(server, *ALL)


@pytest.mark.skipif(os.name == "nt", reason="an open file cannot be removed here")
def test_an_open_file_can_be_read_to_its_end(server, cache_dir):
    obtain(server, 0)
    path = path_of(cache_dir, 0)
    with path.open("rb") as file:
        start = file.read(10)
        trim_cache(cache_dir, limit=1)
        assert not path.exists()
        assert start + file.read() == BODIES[0]


def test_what_another_is_fetching_stays(server, start, cache_dir):
    """A process is in the middle of writing: the image is there, its record is not yet."""
    obtain(server, 0, 1, 3)
    other = start(server.url, cache_dir, [2], stop_at=1)
    assert other.stdout.readline() == "started\n"
    assert other.stdout.readline() == "stopped\n"
    assert there(cache_dir) == {0, 1, 2, 3}
    used(path_of(cache_dir, 2), 10**6)
    trim_cache(cache_dir, limit=1)
    assert there(cache_dir) == {2}


def test_files_that_are_not_ours_stay(server, cache_dir, tmp_path):
    obtain(server, 0)
    service = path_of(cache_dir, 0).parents[2]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "image-t2.jpg").write_bytes(b"x" * 1000)
    (service / "images" / "99").symlink_to(outside)
    (service / "images" / "8").mkdir()
    (service / "images" / "8" / "image-t2.jpg").symlink_to(outside / "image-t2.jpg")
    foreign = [
        cache_dir / "image-t2.jpg",
        cache_dir / "photos" / "images" / "7" / "image-t2.jpg",
        service / "images" / "image-t2.jpg",
        service / "images" / "7" / "cat.jpg",
        service / "images" / "cats" / "image-t2.jpg",
        service / "grids" / "thesis.zip",
    ]
    for path in foreign:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x" * 1000)
    trim_cache(cache_dir, limit=1)
    assert there(cache_dir) == set()
    assert (service / "datasets" / "5.json").is_file()
    assert all(path.is_file() for path in foreign)
    assert (outside / "image-t2.jpg").is_file()
    assert (service / "images" / "8" / "image-t2.jpg").is_symlink()


def test_a_record_without_its_file_counts_and_goes(server, cache_dir):
    obtain(server, 0)
    path = path_of(cache_dir, 0)
    path.unlink()
    record = path.with_name(f"{path.name}.json")
    trim_cache(cache_dir, limit=2 * bytes_on_disk(cache_dir))
    assert record.exists()
    trim_cache(cache_dir, limit=bytes_on_disk(cache_dir) - 1)
    assert not record.exists()


def test_grids_go_too_and_are_shown_and_cleared(server, cache_dir):
    zips = {7: zipped_grid({"energy": np.zeros((67, 41, 58))})}

    def there():
        return [path for path in cache_dir.rglob("*.zip") if path.is_file()]

    with AllenServer(grids=zips) as grids:
        atldld.open_grid(7, volumes=["energy"], source=grids.url)
        assert len(there()) == 1
        (stock,) = cache_stock(cache_dir)
        assert stock.files["grids"] == 1
        files, size = trim_cache(cache_dir, limit=1)
        assert files == 1
        assert size >= stock.bytes["grids"] > 0
        assert there() == []
        atldld.open_grid(7, volumes=["energy"], source=grids.url)
        assert len(there()) == 1
    assert clear_cache(cache_dir)[0] == 1
    assert not list(cache_dir.iterdir())


def test_a_download_larger_than_the_limit_costs_the_others_nothing(server, cache_dir):
    obtain(server, 0)
    giant = phantom_dataset(6, sections=1, resolution=8, image_size=(1200, 900))
    with AllenServer(giant) as other:
        array = atldld.open_image(giant.image_ids[0], chunks=None, dataset_id=6, source=other.url)
        limit = room_for(cache_dir, 1)
        with atldld.set_options(cache_limit=limit):
            with pytest.warns(atldld.AtldldWarning, match=r"bytes is not kept.*cache_limit"):
                first = array.values
            with warnings.catch_warnings():
                warnings.simplefilter("error")
                again = array.copy(deep=True)
                np.testing.assert_array_equal(again, first)
    assert there(cache_dir) == {0}
    assert verify_cache(cache_dir).damaged == ()


@pytest.mark.parametrize(
    "damage",
    [b"x" * 20]
    + [
        pytest.param(damage, marks=pytest.mark.exhaustive)
        for damage in (b"", b"12", b"-1".zfill(20), b"0" * 20)
    ],
)
def test_a_damaged_count_is_made_anew_in_the_next_process(server, start, cache_dir, damage):
    obtain(server, 0)
    limit = room_for(cache_dir, 3)
    job = {"numbers": list(ALL), "cache_limit": limit}
    result(start(server.url, cache_dir, **job))
    (cache_dir / "atldld-size" / "bytes").write_bytes(damage)
    assert result(start(server.url, cache_dir, **job)) == [digest(number) for number in ALL]
    assert bytes_on_disk(cache_dir) <= limit


def test_use_is_noted_once_a_minute(server, cache_dir):
    obtain(server, 0)
    path = path_of(cache_dir, 0)
    for age, noted in ((1000, True), (30, False), (-1000, True)):
        used(path, age)
        before = path.stat().st_mtime
        obtain(server, 0)
        assert (path.stat().st_mtime != before) == noted


def test_threads_that_fetch_at_once_leave_no_more_than_the_limit(server, cache_dir):
    obtain(server, 0)
    limit = room_for(cache_dir, 2)
    with atldld.set_options(cache_limit=limit):
        threads = [threading.Thread(target=obtain, args=(server, number)) for number in ALL]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert bytes_on_disk(cache_dir) <= limit


def test_a_prefetch_that_does_not_fit_says_so_once(cache_dir):
    phantom = phantom_dataset(dataset_id=63, sections=6, resolution=60, seed=3)
    with AllenServer([phantom]) as server:
        array = atldld.open_dataarray(63, source=server.url, resolution=200)
        whole = array.atlas.prefetch()
        clear_cache(cache_dir)
        limit = int(whole["bytes"].sum() // 2)
        server.reset_log()
        with (
            atldld.set_options(cache_limit=limit),
            warnings.catch_warnings(record=True) as caught,
        ):
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
        with atldld.set_options(cache_limit=2 * limit + 2**20), warnings.catch_warnings():
            warnings.simplefilter("error")
            array.atlas.prefetch()
