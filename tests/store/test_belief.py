"""What lies at a name in the cache is believed only if it is what was wanted."""

import copy
import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

import atldld
from atldld.options import current
from atldld.testing import AllenServer, PhantomBrain, phantom_dataset


def phantom(texture):
    # Images of one size and tier: nothing but their records tells one file from another.
    return phantom_dataset(
        1001,
        plane="coronal",
        sections=10,
        brain=PhantomBrain(texture=texture),
        resolution=30,
        image_size=(384, 320),
    )


PHANTOM = phantom("smooth")
OPTIONS = {"resolution": 400, "tier": 1, "chunks": None}


def moved(dataset, pixels):
    """Return the dataset with each section cut from another place of its slide, as large."""
    row = copy.deepcopy(dataset.row)
    for image in row["section_images"]:
        placing = image["alignment2d"]
        image["x"] += pixels
        placing["tsv_04"] += placing["tsv_00"] * pixels
        placing["tsv_05"] += placing["tsv_02"] * pixels
        placing["tvs_04"] -= pixels
    return replace(dataset, row=row)


@pytest.fixture
def server():
    with AllenServer(PHANTOM) as running:
        yield running


@pytest.fixture
def opened(server):
    """Return the opened dataset, with all that it reads in the cache."""
    array = atldld.open_dataarray(1001, source=server.url, **OPTIONS)
    array.values  # noqa: B018
    return array


def cached(pattern="*.jpg"):
    """Return the images in the cache, by ascending image id."""
    return sorted(current().cache_dir.glob(f"*/images/*/{pattern}"))


def anew(server):
    """Return the pixels as another opening reads them, and which images it asked for."""
    server.reset_log()
    values = atldld.open_dataarray(1001, source=server.url, **OPTIONS).values
    return values, [request.image_id for request in server.image_requests]


def test_a_dataset_registered_anew_does_not_show_its_old_pixels(tmp_path):
    with AllenServer(PHANTOM) as server:
        port = int(server.origin.rpartition(":")[2])
        atldld.open_dataarray(1001, source=server.url, **OPTIONS).load()
    after = moved(PHANTOM, 16)
    # The service is asked each time how the dataset is registered.
    with AllenServer(after, port=port) as server, atldld.set_options(metadata_max_age=0):
        with atldld.set_options(cache_dir=tmp_path / "empty"):
            truth = atldld.open_dataarray(1001, source=server.url, **OPTIONS).values
        values, asked = anew(server)
        np.testing.assert_array_equal(values, truth)
        assert sorted(asked) == after.image_ids
        # What came then is kept, and serves.
        values, asked = anew(server)
        np.testing.assert_array_equal(values, truth)
        assert asked == []


def test_a_folder_copied_over_another_s_is_a_miss(server, opened):
    first, second = [path.parent for path in cached()[:2]]
    shutil.copytree(first, second, dirs_exist_ok=True)
    values, asked = anew(server)
    np.testing.assert_array_equal(values, opened)
    assert asked == [int(second.name)]


def test_a_cache_copied_over_another_service_s_is_a_miss(server, opened):
    with AllenServer(phantom("linear")) as elsewhere:
        array = atldld.open_dataarray(1001, source=elsewhere.url, **OPTIONS)
        truth = array.values
        here, there = (
            next(current().cache_dir.glob(f"*_{each.origin.rpartition(':')[2]}-*"))
            for each in (server, elsewhere)
        )
        shutil.copytree(here / "images", there / "images", dirs_exist_ok=True)
        values, asked = anew(elsewhere)
        np.testing.assert_array_equal(values, truth)
        assert len(asked) == 10


def test_a_view_copied_over_another_is_a_miss(server, opened):
    path = cached()[0]
    for suffix in ("", ".json"):
        shutil.copy(f"{path}{suffix}", f"{path.parent}/projection-{path.name[6:]}{suffix}")
    options = {**OPTIONS, "view": "projection", "source": server.url}
    server.reset_log()
    atldld.open_dataarray(1001, **options).load()
    assert len(server.image_requests) == 10


@pytest.mark.parametrize("side", [1600, 10**6, 999_999_999])
def test_a_stray_window_is_not_believed(side):
    large = phantom_dataset(7, sections=1, resolution=8, image_size=(1600, 1200))
    part = {"region": {"i": (3000, 3200), "r": (5000, 5200)}, "tier": 0, "chunks": None}
    with AllenServer(large) as server:

        def pixels():
            return atldld.open_dataarray(7, source=server.url, **part).values

        truth = pixels()
        (path,) = cached("image-t0-*.jpg")
        name = f"image-t0-w0-0-{side}-{side}.jpg"
        record = json.loads(path.with_name(f"{path.name}.json").read_text())
        record["name"] = f"images/{path.parent.name}/{name}"
        path.rename(path.with_name(name))
        path.with_name(f"{name}.json").write_text(json.dumps(record))
        server.reset_log()
        np.testing.assert_array_equal(pixels(), truth)
        assert len(server.image_requests) == 1


ODD = {
    "pipe": os.mkfifo,
    "link to endless zeros": lambda path: path.symlink_to("/dev/zero"),
    "link to a pipe": lambda path: (
        os.mkfifo(path.with_name("pipe")),
        path.symlink_to(path.with_name("pipe")),
    ),
    "link to itself": lambda path: path.symlink_to(path),
    "link to another's": lambda path: path.symlink_to(f"../{PHANTOM.image_ids[-1]}/{path.name}"),
}

READING = f"""
import sys, atldld
array = atldld.open_dataarray(1001, source=sys.argv[1], **{OPTIONS!r})
print(array.values.tobytes().hex())
"""


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_what_is_no_plain_file_is_a_miss(server, opened):
    paths = iter(cached())
    for suffix in ("", ".json"):
        for make in ODD.values():
            path = next(paths)
            odd = path.with_name(path.name + suffix)
            odd.unlink()
            make(odd)
    server.reset_log()
    # In a process of its own: a read that hangs is ended here.
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", READING, server.url],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.stdout.strip() == opened.values.tobytes().hex(), done.stderr[-2000:]
    assert sorted(request.image_id for request in server.image_requests) == PHANTOM.image_ids


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_the_cache_is_verified_past_what_is_no_plain_file(opened):
    one, two, *_ = cached()
    one.unlink()
    os.mkfifo(one)
    record = two.with_name(f"{two.name}.json")
    record.unlink()
    record.symlink_to("/dev/zero")
    done = subprocess.run(
        [sys.executable, "-m", "atldld.cli", "cache", "verify", "--json"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    verdict = json.loads(done.stdout)
    assert {each["path"] for each in verdict["damaged"]} == {str(one), str(two)}


def test_a_copied_folder_is_found_by_verifying(opened):
    first, second = [path.parent for path in cached()[:2]]
    shutil.copytree(first, second, dirs_exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "atldld.cli", "cache", "verify", "--json"],
        capture_output=True,
        text=True,
    )
    (damage,) = json.loads(done.stdout)["damaged"]
    assert damage["path"].startswith(str(second))
    assert "copied" in damage["reason"]
