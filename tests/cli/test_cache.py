"""``atldld cache``: what is kept is shown, verified and cleared, and nothing else is touched."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

import atldld
from atldld.cli import main
from atldld.store.inventory import cache_stock, clear_cache, verify_cache
from atldld.testing import AllenServer, SyntheticAtlas, phantom_dataset

PHANTOM = phantom_dataset(dataset_id=621, sections=5, resolution=60, seed=6)


@pytest.fixture
def full(tmp_path):
    """A cache that was filled by two services with five images each."""
    folder = tmp_path / "cache"
    with (
        atldld.set_options(cache_dir=folder),
        AllenServer([PHANTOM]) as one,
        AllenServer([PHANTOM]) as two,
    ):
        for server in (one, two):
            atldld.open_dataarray(621, source=server.url, resolution=500).compute()
        yield folder, [one.url, two.url]


def run(*arguments, status=0, **options):
    done = CliRunner().invoke(main, ["cache", *(str(each) for each in arguments)], **options)
    assert done.exit_code == status, done.output
    return done.output


def images(folder):
    return sorted(folder.glob("*/images/*/*.jpg"))


def test_what_is_there_is_shown(full):
    folder, urls = full
    stock = cache_stock()
    assert {one.url for one in stock} == set(urls)
    for one in stock:
        assert one.files["images"] == 5
        assert one.files["datasets"] == 1
        assert one.bytes["images"] == sum(
            path.stat().st_size for path in images(folder) if path.is_relative_to(one.folder)
        )
        assert 0 < one.oldest <= one.newest <= time.time()
    output = run("show")
    assert output == run()
    for url in urls:
        assert f"{url}: " in output
    assert output.count("5 images, 1 dataset") == 2
    shown = json.loads(run("show", "--json"))
    assert shown["bytes"] == sum(one.total_bytes for one in stock)
    assert [one["url"] for one in shown["services"]] == [one.url for one in stock]


def test_the_limit_and_its_use_are_shown(full):
    assert "limit: " not in run()
    assert json.loads(run("show", "--json"))["limit"] is None
    total = sum(one.total_bytes for one in cache_stock())
    with atldld.set_options(cache_limit=2 * total):
        assert "% in use" in run()
        assert re.search(r"limit: [0-9.]+ \w+, 50% in use", run())
        assert json.loads(run("show", "--json"))["limit"] == 2 * total


def test_trimming_removes_what_was_used_longest_ago(full):
    folder, _ = full
    oldest = images(folder)[4]
    os.utime(oldest, (1, 1))
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    told = json.loads(run("trim", "--limit", f"{size - 10} B", "--json"))
    assert told["files"] >= 1
    assert len(images(folder)) == 10 - told["files"]
    assert not oldest.exists()
    assert verify_cache().damaged == ()
    assert "removed" in run("trim", "--limit", "1")
    assert images(folder) == []
    assert all(one.files["datasets"] == 1 for one in cache_stock())
    assert "there is no limit" in run("trim", status=2)
    assert "must be a number of bytes" in run("trim", "--limit", "much", status=2)


def test_a_folder_that_is_not_there(tmp_path):
    assert "removed 0 files" in run("trim", "--limit", "1", "--cache-dir", tmp_path / "x")
    assert cache_stock(tmp_path / "x") == []
    assert "nothing is kept" in run("show", "--cache-dir", tmp_path / "x")
    assert verify_cache(tmp_path / "x").files == 0
    assert clear_cache(tmp_path / "x") == (0, 0)
    assert not (tmp_path / "x").exists()


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGES = {
    "flipped": (flip, "SHA-256"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "bytes instead of"),
    "emptied": (lambda path: path.write_bytes(b""), "has 0 bytes"),
    "record damaged": (
        lambda path: path.with_name(path.name + ".json").write_text("{"),
        "record is",
    ),
    "record lost": (lambda path: path.with_name(path.name + ".json").unlink(), "no record"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_named(full, damage):
    folder, _ = full
    assert verify_cache().damaged == ()
    assert "files as they came" in run("verify")
    spoil, words = DAMAGES[damage]
    path = images(folder)[3]
    spoil(path)
    (found,) = verify_cache().damaged
    assert found.path == str(path)
    assert words in found.reason
    output = run("verify", status=1)
    assert str(path) in output
    (told,) = json.loads(run("verify", "--json", status=1))["damaged"]
    assert told["path"] == str(path)
    assert "removed" in run("verify", "--remove")
    assert not path.exists()
    assert verify_cache().damaged == ()


def test_what_was_removed_is_fetched_again_and_nothing_else(full):
    folder, urls = full
    flip(images(folder)[0])
    verify_cache(remove=True)
    for url in urls:
        before = len(images(folder))
        atldld.open_dataarray(621, source=url, resolution=500).compute()
        assert len(images(folder)) in (before, before + 1)
    assert len(images(folder)) == 10


def test_clearing_asks_first(full):
    folder, _ = full
    for answer in ("n\n", ""):
        said = CliRunner().invoke(main, ["cache", "clear"], input=answer)
        assert said.exit_code == 1
        assert said.stderr.endswith("Nothing was removed.\n")
        assert "goes on" not in said.stderr
    assert len(images(folder)) == 10
    run("clear", status=0, input="y\n")
    assert images(folder) == []
    assert not list(folder.iterdir())


def test_clearing_one_service(full):
    folder, urls = full
    told = json.loads(run("clear", "--yes", "--json", "--service", urls[0]))
    assert told["files"] >= 6
    assert [one.url for one in cache_stock()] == [urls[1]]
    assert len(images(folder)) == 5
    run("clear", "--yes", "--service", "nonsense", status=2)
    assert len(images(folder)) == 5


def test_what_the_cache_did_not_write_stays(full, tmp_path):
    """Somebody's cache_dir may be their home."""
    folder, _ = full
    service = Path(cache_stock()[0].folder)
    foreign = [folder / "thesis.doc", folder / "images" / "x.jpg", service / "notes.txt"]
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious.jpg").write_bytes(b"x")
    for path in foreign:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (folder / ("host-" + "0" * 12)).symlink_to(outside)
    (service / "images" / "5").mkdir()
    (service / "images" / "5" / "link.jpg").symlink_to(outside / "precious.jpg")
    (service / "images" / "6").symlink_to(outside)
    run("clear", "--yes")
    assert all(path.exists() for path in foreign)
    assert (outside / "precious.jpg").exists()
    assert images(folder) == []


def test_a_file_on_its_way_is_left_alone(full):
    partial = Path(cache_stock()[0].folder) / "partial"
    new, old = partial / "1-new", partial / "1-old"
    for path in (new, old):
        path.write_bytes(b"x")
    os.utime(old, (0, 0))
    clear_cache()
    assert new.exists()
    assert not old.exists()


def test_the_work_goes_on_after_clearing(full):
    folder, urls = full
    sections = atldld.open_dataarray(621, source=urls[0], resolution=500)
    before = sections.compute()
    clear_cache()
    assert sections.compute().identical(before)
    assert len(images(folder)) == 5


@pytest.fixture
def with_catalogue(tmp_path):
    """A cache that holds nothing but the catalogue of a service."""
    folder = tmp_path / "cache"
    with (
        atldld.set_options(cache_dir=folder, metadata_max_age=0),
        AllenServer(SyntheticAtlas(7)) as server,
    ):
        atldld.catalogue(server.url, images=True)
        yield folder, server


def test_a_catalogue_is_shown_verified_and_cleared(with_catalogue):
    folder, server = with_catalogue
    tables = [path for path in folder.rglob("catalogue/**/*") if path.is_file()]
    size = sum(path.stat().st_size for path in tables)
    (stock,) = cache_stock()
    assert stock.files["catalogue"] == len(tables) > 2
    assert stock.bytes["catalogue"] == size
    assert re.search(r"a catalogue of [0-9.]+ \w+", run("show"))
    assert json.loads(run("verify", "--json"))["files"] == 2
    beside = next(folder.rglob("catalogue")) / "notes.txt"
    beside.write_text("not ours")
    table = next(folder.rglob("datasets.parquet"))
    flip(table)
    assert str(table) in run("verify", status=1)
    assert "removed" in run("verify", "--remove")
    server.reset_log()
    assert len(atldld.catalogue(server.url, images=True)) == 7
    assert server.requests != []
    files = json.loads(run("clear", "--yes", "--json"))
    assert files["files"] >= 3
    assert [path for path in folder.rglob("*") if path.is_file()] == [beside]
    assert cache_stock() == [] or cache_stock()[0].total_bytes == 0


def test_a_catalogue_counts_towards_the_limit_and_stays(with_catalogue):
    folder, _ = with_catalogue
    before = sorted(path for path in folder.rglob("catalogue/**/*") if path.is_file())
    run("trim", "--limit", "1")
    assert before == sorted(path for path in folder.rglob("catalogue/**/*") if path.is_file())
