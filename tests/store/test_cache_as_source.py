"""The cache's own folder of a service, opened as a source with the network gone."""

from __future__ import annotations

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import atldld
from atldld.errors import BundleError, DatasetNotFoundError, ImageError
from atldld.model.read import ImageRead
from atldld.source import source_from
from atldld.source.protocol import KeepingSource
from atldld.source.stored import StoredSource
from atldld.store.cache import Cache
from atldld.store.files import Files
from atldld.store.names import image_name
from atldld.testing import AllenServer, phantom_dataset

PHANTOMS = [
    phantom_dataset(51, sections=3, resolution=32),
    phantom_dataset(52, plane="sagittal", sections=3, resolution=32),
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


def a_read(source: StoredSource) -> ImageRead:
    image = source.dataset(51).images[0]
    (path,) = (source.location.path / "images" / str(image.id)).glob("image-t?.jpg")
    tier = int(path.stem[-1])
    return ImageRead(image.id, "image", tier, image.width >> tier, image.height >> tier)


def test_all_datasets_open_as_they_were(filled):
    folder, arrays, url = filled
    with atldld.set_options(api_url="http://127.0.0.1:9", retries=0):
        for dataset_id, array in arrays.items():
            again = atldld.open_dataset(dataset_id, resolution=200, source=folder)
            np.testing.assert_array_equal(again.image, array.image)
    source = source_from(str(folder))
    assert isinstance(source, StoredSource)
    assert source.rows(51).service == url


def test_it_is_a_small_value_that_keeps(folder):
    source = source_from(folder)
    assert isinstance(source, KeepingSource)
    assert pickle.loads(pickle.dumps(source)) == source
    assert source.name == str(folder)
    assert repr(source) == f"StoredSource({str(folder)!r})"
    read = a_read(source)
    assert source.held(read) == {None}
    assert source.url(read) == f"{folder}/{image_name(read)}"
    before = sorted(folder.rglob("*"))
    source.discard(read)
    source.remember("conventions", "{}")
    assert sorted(folder.rglob("*")) == before
    assert source.image(read)


def test_what_was_found_out_about_the_service_is_recalled(folder):
    source = source_from(folder)
    assert source.recall("nothing_like_that") is None
    Cache(Files(source.location), "http://h").store(
        "service/conventions.json", b'{"windows": true}', "http://h"
    )
    assert json.loads(source.recall("conventions")) == {"windows": True}


def test_what_is_not_there_is_named(folder):
    source = source_from(folder)
    with pytest.raises(DatasetNotFoundError, match="it holds dataset 51, 52"):
        source.dataset(53)
    read = replace(a_read(source), tier=7, width=3, height=3)
    with pytest.raises(ImageError, match="is not in the cache folder"):
        source.image(read)


def test_damage_is_an_error(folder):
    source = source_from(folder)
    read = a_read(source)
    path = folder / image_name(read)
    whole = path.read_bytes()
    for damaged in (whole[:-5], whole + b"x", whole[:-9] + b"y" + whole[-8:]):
        path.write_bytes(damaged)
        with pytest.raises(ImageError, match=r"instead of|SHA-256 differs"):
            source.image(read)
    path.write_bytes(whole)
    record = path.with_name(f"{path.name}.json")
    record.write_text("{}")
    with pytest.raises(ImageError, match="its record is damaged"):
        source.image(read)
    rows = folder / "datasets" / "51.json"
    rows.write_bytes(rows.read_bytes()[:-1])
    with pytest.raises(BundleError, match=r"datasets/51.json is of no use"):
        source.dataset(51)


def test_links_are_not_followed(folder, tmp_path):
    source = source_from(folder)
    read = a_read(source)
    path = folder / image_name(read)
    path.rename(tmp_path / "outside.jpg")
    path.symlink_to(tmp_path / "outside.jpg")
    with pytest.raises(ImageError, match="cannot be read: it is a link"):
        source.image(read)


def test_an_image_of_another_size_is_refused(folder):
    source = source_from(folder)
    read = a_read(source)
    with pytest.raises(ImageError, match="cut from another place"):
        source.image(replace(read, width=read.width + 1))


def test_the_folder_above_says_which_one_to_name(filled):
    folder, _, _ = filled
    with pytest.raises(BundleError, match=f"holds the caches of 1 services.* {folder}"):
        source_from(folder.parent)


def test_a_bundle_is_packed_from_it(filled, tmp_path):
    folder, arrays, url = filled
    packed = atldld.pack(51, tmp_path / "x.zip", resolution=200, source=folder)
    assert packed.source.manifest.service == url
    again = atldld.open_dataarray(51, resolution=200, source=packed.source)
    np.testing.assert_array_equal(again, arrays[51].image)
