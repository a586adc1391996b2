"""The cache's own folder of a service, opened as a source with the network gone."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import numpy as np
import pytest
import simplejpeg

import atldld
from atldld.errors import BundleError, DatasetNotFoundError, ImageError
from atldld.testing import AllenServer, phantom_dataset

PHANTOMS = [
    phantom_dataset(51, sections=3, resolution=32, tier_count=2),
    phantom_dataset(52, plane="sagittal", sections=3, resolution=32, tier_count=2),
]


@pytest.fixture(scope="module")
def filled(tmp_path_factory):
    """Return the folder of a service that is gone, and what its arrays were."""
    cache = tmp_path_factory.mktemp("filled")
    with AllenServer(PHANTOMS) as server, atldld.set_options(cache_dir=cache):
        arrays = {
            phantom.id: atldld.open_dataset(phantom.id, resolution=200, source=server.url).compute()
            for phantom in PHANTOMS
        }
        url = server.url
    (folder,) = cache.iterdir()
    return folder, arrays, url


@pytest.fixture
def folder(filled, tmp_path) -> Path:
    """Return a copy that a test may damage."""
    return Path(shutil.copytree(filled[0], tmp_path / "service"))


def first_image(folder: Path, **options):
    """Open an image of the first dataset as the folder holds it, lazily; and its file."""
    image_id = PHANTOMS[0].image_ids[0]
    (path,) = (folder / "images" / str(image_id)).glob("image-t?.jpg")
    options = {"tier": int(path.stem[-1]), "chunks": None, "dataset_id": 51, **options}
    return atldld.open_image(image_id, source=folder, **options), path


def test_all_datasets_open_as_they_were(filled):
    folder, arrays, _ = filled
    with atldld.set_options(api_url="http://127.0.0.1:9", retries=0):
        for dataset_id, array in arrays.items():
            again = atldld.open_dataset(dataset_id, resolution=200, source=folder)
            np.testing.assert_array_equal(again.image, array.image)


def test_it_is_only_read(folder):
    before = {path: path.stat().st_size for path in folder.rglob("*")}
    opened = atldld.open_dataarray(51, resolution=200, source=str(folder))
    assert opened.attrs["source"] == str(folder)
    opened.compute()
    array, path = first_image(folder)
    (url,) = array.atlas.plan().url
    assert url == str(path)
    again = pickle.loads(pickle.dumps(array))
    np.testing.assert_array_equal(again, simplejpeg.decode_jpeg(path.read_bytes()))
    assert {path: path.stat().st_size for path in folder.rglob("*")} == before


def test_what_is_not_there_is_named(folder):
    with pytest.raises(DatasetNotFoundError, match="it holds dataset 51, 52"):
        atldld.open_dataarray(53, source=folder)
    _, path = first_image(folder)
    array, _ = first_image(folder, tier=1 - int(path.stem[-1]))
    with pytest.raises(ImageError, match="is not in the cache folder"):
        array.load()


def test_damage_is_an_error(folder):
    array, path = first_image(folder)
    whole = path.read_bytes()
    for damaged in (whole[:-5], whole + b"x", whole[:-9] + b"y" + whole[-8:]):
        path.write_bytes(damaged)
        with pytest.raises(ImageError, match=r"instead of|SHA-256 differs"):
            array.compute()
    path.write_bytes(whole)
    record = path.with_name(f"{path.name}.json")
    record.write_text("{}")
    with pytest.raises(ImageError, match="its record is damaged"):
        array.compute()
    rows = folder / "datasets" / "51.json"
    rows.write_bytes(rows.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"datasets/51.json is of no use"):
        atldld.open_dataarray(51, source=folder)


def test_links_are_not_followed(folder, tmp_path):
    array, path = first_image(folder)
    path.rename(tmp_path / "outside.jpg")
    path.symlink_to(tmp_path / "outside.jpg")
    with pytest.raises(ImageError, match="cannot be read: it is a link"):
        array.load()


def test_an_image_of_another_size_is_refused(folder):
    """Where the rows were changed since: the image is not that of the section any more."""
    rows = folder / "datasets" / "51.json"
    told = json.loads(rows.read_text())
    for image in told["row"]["section_images"]:
        image["width"] += 100
    text = json.dumps(told).encode()
    rows.write_bytes(text)
    record = rows.with_name("51.json.json")
    fields = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    record.write_text(json.dumps(json.loads(record.read_text()) | fields))
    array, _ = first_image(folder)
    with pytest.raises(ImageError, match="cut from another place"):
        array.load()


def test_the_folder_above_says_which_one_to_name(filled):
    folder, _, _ = filled
    with pytest.raises(BundleError, match=f"holds the caches of 1 services.* {folder}"):
        atldld.open_dataarray(51, source=folder.parent)


def test_a_bundle_is_packed_from_it(filled, tmp_path):
    folder, arrays, url = filled
    packed = atldld.pack(51, tmp_path / "x.zip", resolution=200, source=folder)
    with zipfile.ZipFile(tmp_path / "x.zip") as archive:
        assert json.loads(archive.read("manifest.json"))["service"] == url
    again = atldld.open_dataarray(51, resolution=200, source=packed.source)
    np.testing.assert_array_equal(again, arrays[51].image)
