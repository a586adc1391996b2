"""Grids of the whole atlas as one lazy array, and its mirror on disk."""

import hashlib
import random
import subprocess
import sys
import threading
from pathlib import Path

import fsspec
import numpy as np
import pytest
import xarray as xr

import atldld
from atldld.errors import AtldldWarning, BundleError
from atldld.testing import AllenServer, Fault, SyntheticAtlas
from moto_server import BUCKET, ENVIRONMENT, s3_server

COUNT = 90
ATLAS = SyntheticAtlas(COUNT)
NO_GRID = [ATLAS.dataset_ids[39], ATLAS.dataset_ids[79]]
CORONAL = [row["id"] for row in ATLAS.all_rows("SectionDataSet") if row["reference_space_id"] == 9]


@pytest.fixture(scope="module")
def server():
    with AllenServer(ATLAS, grids=ATLAS.grids) as running:
        yield running


@pytest.fixture
def cache(tmp_path):
    with atldld.set_options(cache_dir=tmp_path / "cache", retries=0):
        yield


@pytest.fixture(autouse=True)
def fresh(server):
    server.clear_faults()
    server.reset_log()


def truth(number, volume="energy"):
    values = ATLAS.grid(number, volume)
    return np.where(values < 0, np.nan, values)


def sagittal(*numbers, **options):
    return atldld.open_grids(numbers, reference_space=10, volumes=["energy"], **options)


SAGITTAL = [number for number in ATLAS.dataset_ids if number not in CORONAL]


def test_with_a_catalogue_opening_asks_nothing_and_a_chunk_is_a_dataset(server, cache):
    tables = atldld.catalogue(server.url)
    server.reset_log()
    with pytest.warns(AtldldWarning, match=r"interpolated linearly to space 9"):
        grids = atldld.open_grids(tables.datasets, source=server.url)
    assert server.requests == []
    assert grids.energy.sizes == {"dataset": COUNT, "p": 67, "i": 41, "r": 58}
    assert grids.energy.chunks[0] == (1,) * COUNT
    assert grids.gene.values.tolist() == tables.datasets.gene.tolist()
    assert grids.dataset.values[~grids.resampled.values].tolist() == CORONAL
    one = grids.sel(dataset=CORONAL[3])
    for volume in ("energy", "density", "intensity"):
        assert np.array_equal(one[volume], truth(CORONAL[3], volume), equal_nan=True)
    assert len(server.requests) == 1  # one zip holds all three
    with pytest.warns(AtldldWarning, match="interpolated"):
        alone = atldld.open_grid(SAGITTAL[0], reference_space=9, source=server.url)
    assert np.array_equal(grids.density.sel(dataset=SAGITTAL[0]), alone.density, equal_nan=True)


def test_zero_is_not_no_data_and_a_missing_grid_is_listed(server, cache):
    missing = [number for number in NO_GRID if number in SAGITTAL]
    grids = sagittal(*SAGITTAL[:2], *missing, source=server.url)
    assert grids.dataset[~grids.found.values].values.tolist() == missing != []
    energy = grids.energy.compute()
    assert energy.sel(dataset=missing).isnull().all()
    assert (energy[0] == 0).any()
    assert energy[0].isnull().any()


def test_without_a_catalogue_few_questions_are_asked(server, cache):
    sagittal(*SAGITTAL[:60], source=server.url)
    assert len(server.requests) == 2
    server.reset_log()
    whole = atldld.catalogue(server.url)
    server.reset_log()
    with pytest.warns(AtldldWarning, match="interpolated"):
        every = atldld.open_grids(whole)
    assert every.sizes["dataset"] == COUNT
    assert server.requests == []


def contents(path):
    """Return the digest of every file of a store."""
    return {
        str(file.relative_to(path)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(Path(path).rglob("*"))
        if file.is_file()
    }


def test_a_mirror_reads_back_with_the_same_labels(server, cache, tmp_path):
    chosen = [*SAGITTAL[:9], next(number for number in NO_GRID if number in SAGITTAL)]
    grids = sagittal(*chosen, source=server.url)
    failed = grids.atlas.to_zarr(tmp_path / "mirror", shard=4)
    assert failed.empty
    assert list(failed.columns) == ["dataset_id", "reason"]
    back = atldld.open_grids(tmp_path / "mirror")
    assert back.energy.chunks[0] == (4, 4, 2)
    xr.testing.assert_equal(back.drop_vars("status").compute(), grids.drop_vars("found").compute())
    assert back.attrs["reference_space"] == 10
    assert back.status.values.tolist() == [1] * 9 + [2]
    assert "Lein" in back.attrs["citation"]
    # A file of the store is a shard, and anyone can read it.
    assert len(list((tmp_path / "mirror" / "energy" / "c").rglob("0"))) >= 3
    import zarr

    array = zarr.open_group(tmp_path / "mirror", mode="r")["energy"]
    assert (array.chunks, array.shards) == ((1, 67, 41, 58), (4, 67, 41, 58))
    assert np.array_equal(array[3], truth(chosen[3]), equal_nan=True)


def test_half_floats_lose_what_they_say(server, cache, tmp_path):
    grids = sagittal(*SAGITTAL[:3], source=server.url)
    grids.atlas.to_zarr(tmp_path / "half", dtype="float16")
    back = atldld.open_grids(tmp_path / "half")
    assert "11 bits" in back.energy.attrs["loss"]
    assert back.energy.dtype == np.float32
    whole, half = grids.energy.values, back.energy.values
    assert np.array_equal(np.isnan(whole), np.isnan(half))
    assert np.array_equal(whole == 0, half == 0)
    assert np.nanmax(np.abs(half - whole) / np.maximum(whole, 6e-5)) <= 2.0**-11
    big = grids.copy()
    big["energy"] = big.energy * 1e6
    failed = big.atlas.to_zarr(tmp_path / "big", dtype="float16")
    assert failed.reason.str.contains("float16").all()
    assert len(failed) == 3


def test_a_mirror_grows_by_what_is_new(server, cache, tmp_path):
    path = tmp_path / "mirror"
    sagittal(*SAGITTAL[:6], source=server.url).atlas.to_zarr(path, shard=4)
    server.reset_log()
    sagittal(*SAGITTAL[3:11], source=server.url).atlas.to_zarr(path, shard=4)
    fetched = [request for request in server.requests if "grid_data" in request.path]
    assert len(fetched) == 5
    back = atldld.open_grids(path)
    assert back.dataset.values.tolist() == SAGITTAL[:11]
    assert (back.status == 1).all()
    for number in SAGITTAL[:11]:
        assert np.array_equal(back.energy.sel(dataset=number), truth(number), equal_nan=True)
    assert back.gene.values.tolist() == [
        ATLAS.gene(ATLAS.dataset_ids.index(number))["acronym"] for number in SAGITTAL[:11]
    ]


def test_a_failure_is_listed_and_retried_alone(server, cache, tmp_path):
    path = tmp_path / "mirror"
    bad = SAGITTAL[2]
    server.add_fault(Fault("500", request="any", path=f"download/{bad}"))
    grids = sagittal(*SAGITTAL[:5], source=server.url)
    failed = grids.atlas.to_zarr(path, shard=4)
    assert failed.dataset_id.tolist() == [bad]
    assert failed.reason.str.contains("500").all()
    back = atldld.open_grids(path)
    assert back.status.values.tolist() == [1, 1, 3, 1, 1]
    assert np.array_equal(back.energy[3], truth(SAGITTAL[3]), equal_nan=True)
    assert back.energy[2].isnull().all()
    server.clear_faults()
    server.reset_log()
    assert grids.atlas.to_zarr(path, shard=4).empty
    assert [request.path for request in server.requests] == [
        f"/grid_data/download/{bad}?include=energy"
    ]
    back = atldld.open_grids(path)
    assert (back.status == 1).all()
    assert np.array_equal(back.energy[2], truth(bad), equal_nan=True)


WRITE = """
import sys, atldld
atldld.set_options(cache_dir=sys.argv[3], retries=0)
ids = [int(number) for number in sys.argv[4].split(",")]
grids = atldld.open_grids(ids, reference_space=10, volumes=["energy"], source=sys.argv[1])
grids.atlas.to_zarr(sys.argv[2], shard=4)
"""


def writer(server, path, cache, numbers):
    numbers = ",".join(map(str, numbers))
    return subprocess.Popen(
        [sys.executable, "-c", WRITE, server.url, str(path), str(cache), numbers]
    )


@pytest.mark.exhaustive
def test_killed_at_any_dataset_it_goes_on_and_ends_the_same(server, cache, tmp_path):
    numbers = [number for number in SAGITTAL if number not in NO_GRID][:10]
    grids = sagittal(*numbers, source=server.url)
    grids.atlas.to_zarr(tmp_path / "undisturbed", shard=4)
    for after in random.Random(3).sample(range(1, 11), 3):
        path = tmp_path / f"killed-{after}"
        server.reset_log()
        server.add_fault(Fault("hang", request="any", path="grid_data", skip=after - 1))
        child = writer(server, path, tmp_path / f"cache-{after}", numbers)
        try:
            while sum("grid_data" in request.path for request in server.requests) < after:
                assert child.poll() is None
                threading.Event().wait(0.01)
        finally:
            child.kill()
            child.wait()
        server.clear_faults()
        assert grids.atlas.to_zarr(path, shard=4).empty
        assert contents(path) == contents(tmp_path / "undisturbed")


@pytest.mark.exhaustive
def test_several_writers_share_the_work(server, cache, tmp_path):
    numbers = [number for number in SAGITTAL if number not in NO_GRID][:14]
    sagittal(*numbers, source=server.url).atlas.to_zarr(tmp_path / "alone", shard=4)
    server.reset_log()
    path = tmp_path / "shared"
    children = [writer(server, path, tmp_path / f"cache-{k}", numbers) for k in range(3)]
    for child in children:
        assert child.wait() == 0
    assert contents(path) == contents(tmp_path / "alone")
    fetched = [request.path for request in server.requests if "grid_data" in request.path]
    assert sorted(fetched) == sorted({*fetched})
    assert len(fetched) == 14


def test_a_mirror_takes_only_what_fits(server, cache, tmp_path):
    path = tmp_path / "mirror"
    sagittal(*SAGITTAL[:2], source=server.url).atlas.to_zarr(path)
    other = atldld.open_grids(CORONAL[:2], volumes=["energy"], reference_space=9, source=server.url)
    with pytest.raises(ValueError, match="lies in 10, these grids in 9"):
        other.atlas.to_zarr(path)
    more = atldld.open_grids(SAGITTAL[:3], reference_space=10, source=server.url)
    with pytest.raises(ValueError, match="holds no"):
        more.atlas.to_zarr(path)
    with pytest.raises(ValueError, match="as float16"):
        sagittal(*SAGITTAL[:3], source=server.url).atlas.to_zarr(path, dtype="float16")
    with pytest.raises(ValueError, match="dtype is 'int8'"):
        other.atlas.to_zarr(path, dtype="int8")
    with pytest.raises(TypeError, match="the Dataset that open_grids returned"):
        other.energy.atlas.to_zarr(path)
    with pytest.raises(BundleError, match="no mirror"):
        atldld.open_grids(tmp_path / "nothing")


@pytest.fixture(scope="module")
def bucket():
    """The URL of a folder in a bucket of a real S3 server."""
    with pytest.MonkeyPatch.context() as patch, s3_server() as url:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": url}.items():
            patch.setenv(name, value)
        fsspec.filesystem("s3").mkdir(BUCKET)
        yield f"s3://{BUCKET}"


def objects(url):
    files = fsspec.filesystem("s3")
    files.invalidate_cache()
    return {path: files.cat_file(path) for path in files.find(url)}


def test_a_mirror_in_a_bucket_goes_on_grows_and_reads_back(server, cache, bucket):
    path = f"{bucket}/mirror"
    server.add_fault(Fault("500", request="any", path=f"download/{SAGITTAL[2]}"))
    failed = sagittal(*SAGITTAL[:5], source=server.url).atlas.to_zarr(path, shard=4)
    assert failed.dataset_id.tolist() == [SAGITTAL[2]]
    server.clear_faults()
    server.reset_log()
    assert sagittal(*SAGITTAL[:7], source=server.url).atlas.to_zarr(path, shard=4).empty
    fetched = [request for request in server.requests if "grid_data" in request.path]
    assert len(fetched) == 3
    back = atldld.open_grids(path)
    assert back.status.values.tolist() == [1] * 7
    for number in SAGITTAL[:7]:
        assert np.array_equal(back.energy.sel(dataset=number), truth(number), equal_nan=True)
    assert not [name for name in objects(bucket) if name.endswith(".writer")]


def test_a_bucket_that_another_machine_writes_is_refused(server, cache, bucket):
    path = f"{bucket}/shared"
    fsspec.filesystem("s3").pipe_file(f"{path}.writer", b"elsewhere")
    grids = sagittal(*SAGITTAL[:2], source=server.url)
    server.reset_log()
    with pytest.raises(BundleError, match=r"'elsewhere' writes the mirror s3://atlas/shared"):
        grids.atlas.to_zarr(path)
    assert server.requests == []
    assert [*objects(f"{bucket}/shared")] == []
    fsspec.filesystem("s3").rm_file(f"{path}.writer")
    assert grids.atlas.to_zarr(path).empty


@pytest.mark.exhaustive
def test_killed_while_it_writes_a_bucket_it_goes_on_and_ends_the_same(
    server, cache, bucket, tmp_path
):
    numbers = [number for number in SAGITTAL if number not in NO_GRID][:10]
    grids = sagittal(*numbers, source=server.url)
    grids.atlas.to_zarr(f"{bucket}/undisturbed", shard=4)
    undisturbed = {
        name.partition("/undisturbed/")[2]: content
        for name, content in objects(f"{bucket}/undisturbed").items()
    }
    for after in (3, 9):
        path = f"{bucket}/killed-{after}"
        server.reset_log()
        server.add_fault(Fault("hang", request="any", path="grid_data", skip=after - 1))
        child = writer(server, path, tmp_path / f"cache-{after}", numbers)
        try:
            while sum("grid_data" in request.path for request in server.requests) < after:
                assert child.poll() is None
                threading.Event().wait(0.01)
        finally:
            child.kill()
            child.wait()
        server.clear_faults()
        assert grids.atlas.to_zarr(path, shard=4).empty
        assert undisturbed == {
            name.partition(f"/killed-{after}/")[2]: content
            for name, content in objects(path).items()
        }
