"""Packing: what is packed is what opening needs, whatever happens on the way."""

from __future__ import annotations

import io
import json
import shutil
import signal
import subprocess
import sys
import time
import uuid
import zipfile
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import fsspec
import numpy as np
import pytest
import xarray as xr

import atldld
from atldld.cli import main
from atldld.errors import (
    AtldldWarning,
    BundleError,
    DatasetNotFoundError,
    ImageError,
    RegistrationError,
)
from atldld.export.packing import _ahead
from atldld.model.read import ImageRead
from atldld.options import current
from atldld.testing import (
    AllenServer,
    Doubts,
    Fault,
    PhantomBrain,
    load_recorded,
    phantom_dataset,
)
from moto_server import BUCKET, ENVIRONMENT, s3_server
from usual import usual

SMOOTH = PhantomBrain(texture="smooth")
SMALL = phantom_dataset(61, sections=5, resolution=30, brain=SMOOTH, seed=1, tier_count=5)
SAGITTAL = phantom_dataset(
    62, plane="sagittal", sections=4, resolution=30, slides=True, brain=SMOOTH, tier_count=5
)
LARGE = phantom_dataset(
    63, sections=3, resolution=4, slides=True, tier_count=8, brain=PhantomBrain("tissue")
)
MANY = phantom_dataset(64, sections=24, resolution=60, brain=SMOOTH, tier_count=4)
PACKER = Path(__file__).parent / "packer.py"
STORES = ("folder", "zip", "memory", "zip in memory", "s3", "zip in s3")


@pytest.fixture(scope="module")
def server():
    with AllenServer([SMALL, SAGITTAL, LARGE, MANY]) as running:
        yield running


@pytest.fixture(autouse=True)
def _all_well(server):
    server.clear_faults()
    server.reset_log()


@pytest.fixture(scope="module")
def bucket():
    """Return the URL of a bucket of a running S3 server, which the environment names."""
    pytest.importorskip("s3fs")
    with s3_server() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": url}.items():
            patch.setenv(name, value)
        store = fsspec.filesystem("s3", skip_instance_cache=False)
        store.mkdir(BUCKET)
        yield f"s3://{BUCKET}"


@pytest.fixture(params=("folder", "zip", "zip in memory", "s3"))
def target(request, tmp_path) -> str:
    """Return a place for a bundle: by default once for each way of writing one."""
    name = uuid.uuid4().hex + (".zip" if "zip" in request.param else "")
    if request.param.endswith("memory"):
        return f"memory://{name}"
    if request.param.endswith("s3"):
        return f"{request.getfixturevalue('bucket')}/some/{name}"
    return str(tmp_path / name)


@pytest.fixture
def alone(tmp_path):
    """Return a context in which no service answers and nothing is cached."""
    return atldld.set_options(
        api_url="http://127.0.0.1:9", cache_dir=tmp_path / f"alone-{uuid.uuid4().hex}", retries=0
    )


def opened_alone(tmp_path, dataset_id, target, function=atldld.open_dataarray, **options):
    """Open a bundle with an empty cache, no service, and compute."""
    with atldld.set_options(api_url="http://127.0.0.1:9", cache_dir=tmp_path / "alone", retries=0):
        return function(dataset_id, source=target, **options).compute()


def same_pixels(one, other) -> None:
    """Whether two arrays or datasets are the same in values, types and coordinates."""
    assert type(one) is type(other)
    if isinstance(one, xr.DataArray):
        one, other = one._to_temp_dataset(), other._to_temp_dataset()
    assert set(one.variables) == set(other.variables)
    for name in one.variables:
        np.testing.assert_array_equal(one[name], other[name])
        assert one[name].dtype == other[name].dtype


CASES = {
    "as they come": (61, {}, {}),
    "coarser": (61, {"resolution": 200}, {"resolution": 200}),
    "a tier": (61, {"tiers": 2}, {"tier": 2}),
    "all views": (
        61,
        {"views": ("image", "projection", "expression", "expression_mask")},
        {"view": "expression_mask"},
    ),
    "a region": (
        62,
        {"resolution": 100, "region": {"r": (2500, 4000), "p": (4000, 9000)}},
        {"resolution": 100, "region": {"r": (2500, 4000), "p": (4000, 9000)}},
    ),
    "the other space": (
        62,
        {"reference_space": 9, "region": {"r": (7000, 9000)}},
        {"reference_space": 9, "region": {"r": (7000, 9000)}},
    ),
    "parallel": (62, {"mapping": "parallel"}, {"mapping": "parallel", "masked": True}),
    "windows": (
        63,
        {"resolution": 8, "tiers": (0,), "region": {"i": (3000, 4000), "r": (4000, 6000)}},
        {"resolution": 8, "tier": 0, "region": {"i": (3000, 4000), "r": (4000, 6000)}},
    ),
    "split planes": (
        63,
        {"resolution": 4, "tiers": [0], "region": {"p": (5000, 9000)}},
        {"resolution": 4, "tier": 0, "region": {"p": (5000, 9000)}, "chunks": "auto"},
    ),
}  # fmt: skip


class TestPixels:
    @pytest.mark.parametrize("case", CASES)
    def test_are_those_of_the_service_bit_by_bit(self, server, tmp_path, case):
        dataset_id, packing, opening = CASES[case]
        expected = atldld.open_dataarray(dataset_id, source=server.url, **opening).compute()
        atldld.pack(dataset_id, tmp_path / "b.zip", source=server.url, **packing)
        server.reset_log()
        found = opened_alone(tmp_path, dataset_id, tmp_path / "b.zip", **opening)
        assert server.requests == []
        assert found.dtype == expected.dtype
        same_pixels(found, expected)

    @pytest.mark.parametrize("target", STORES, indirect=True)
    def test_from_every_store_with_the_network_gone(self, tmp_path, target):
        options = {"resolution": 150, "include_expression": True}
        with AllenServer([SMALL]) as own:
            expected = atldld.open_dataset(61, source=own.url, **options).compute()
            packed = atldld.pack(
                61, target, resolution=150, views=("image", "expression"), source=own.url
            )
        assert packed.fetched == len(SMALL.image_ids) * 2
        same_pixels(opened_alone(tmp_path, 61, target, atldld.open_dataset, **options), expected)
        report = atldld.verify_bundle(target)
        assert report.ok
        assert report.extra == ()
        assert (report.files, report.bytes) == (packed.files, packed.bytes)
        again = opened_alone(tmp_path, 61, packed.source, atldld.open_dataset, **options)
        same_pixels(again, expected)

    @pytest.mark.parametrize("origin", ["floor", "exact"])
    def test_lie_where_the_service_was_found_to_put_them(self, tmp_path, origin):
        """Sections that begin between two tier pixels of their slide."""
        options = {"resolution": 60, "tier": 2, "region": {"i": (2000, 6000)}}
        with AllenServer([LARGE], doubts=Doubts(tier_origin=origin)) as own:
            expected = atldld.open_dataarray(63, source=own.url, **options).compute()
            with atldld.set_options(cache_dir=tmp_path / "fresh"):
                packed = atldld.pack(
                    63,
                    tmp_path / "b",
                    tiers=2,
                    resolution=60,
                    region=options["region"],
                    source=own.url,
                )
        known = json.loads(packed.source.recall("conventions"))
        assert known["whole_origin"] == {"floor": "slide", "exact": "section"}[origin]
        same_pixels(opened_alone(tmp_path, 63, tmp_path / "b", **options), expected)

    def test_where_windows_could_not_be_tried_whole_images_are_packed(self, tmp_path):
        """And the bundle does not try them again: nobody is there to be asked."""
        options = {"tier": 0, "resolution": 8, "region": {"i": (3000, 4000)}}
        packing = {"tiers": 0, "resolution": 8, "region": {"i": (3000, 4000)}}
        with AllenServer([LARGE]) as own:
            own.add_fault(Fault("404", tiers=range(1, 8)))
            with pytest.warns(AtldldWarning, match="could not be tried, whole images are read"):
                expected = atldld.open_dataarray(63, source=own.url, **options).compute()
            with pytest.warns(AtldldWarning, match="could not be tried, whole images are read"):
                packed = atldld.pack(63, tmp_path / "b", source=own.url, **packing)
        assert not any("-w" in name for name in packed.source.manifest.files)
        same_pixels(opened_alone(tmp_path, 63, tmp_path / "b", **options), expected)

    def test_of_parts_serve_smaller_parts(self, server, tmp_path):
        region = {"i": (2000, 5000), "r": (3000, 7000)}
        options = {"tier": 0, "resolution": 8}
        atldld.pack(63, tmp_path / "b", tiers=0, resolution=8, region=region, source=server.url)
        whole = opened_alone(tmp_path, 63, tmp_path / "b", region=region, **options)
        part = atldld.open_dataarray(63, source=tmp_path / "b", **options)
        part = part.sel(i=slice(2500, 3500), r=slice(4000, 6000)).compute()
        np.testing.assert_array_equal(part, whole.sel(i=part.i, r=part.r))
        beyond = atldld.open_dataarray(63, source=tmp_path / "b", **options)
        with pytest.raises(ImageError, match=r"holds of tier 0 the windows \("):
            beyond.sel(i=slice(2000, 7000)).compute()

    def test_of_one_read_a_section_serve_every_chunking(self, server, tmp_path):
        region = {"p": (5000, 9000)}
        options = {"tier": 0, "resolution": 4, "region": region}
        atldld.pack(
            63, tmp_path / "b", tiers=0, resolution=4, region=region, chunks=None, source=server.url
        )
        whole = opened_alone(tmp_path, 63, tmp_path / "b", chunks=None, **options)
        for chunks in ("auto", {"section": 1, "y": 300, "x": 500}):
            same_pixels(opened_alone(tmp_path, 63, tmp_path / "b", chunks=chunks, **options), whole)

    @pytest.mark.exhaustive
    def test_on_processes(self, server, tmp_path):
        expected = atldld.open_dataarray(61, resolution=200, source=server.url).compute()
        atldld.pack(61, tmp_path / "b.zip", resolution=200, source=server.url)
        array = atldld.open_dataarray(61, resolution=200, source=tmp_path / "b.zip")
        same_pixels(array.compute(scheduler="processes", num_workers=2), expected)


def test_a_recorded_image_of_the_service_is_packed_as_it_came(real, tmp_path):
    options = {"tier": 2, "resolution": 25, "region": {"r": (3300, 3400)}}
    with AllenServer([load_recorded(real / "69289763")]) as own:
        expected = atldld.open_dataarray(69289763, source=own.url, **options).compute()
        packed = atldld.pack(
            69289763,
            tmp_path / "prox1.zip",
            tiers=2,
            region=options["region"],
            source=own.url,
        )
    (name,) = [name for name in packed.source.manifest.files if name.startswith("images/")]
    recorded = (real / "69289763" / "section_image_69177654_downsample_2.jpg").read_bytes()
    with zipfile.ZipFile(tmp_path / "prox1.zip") as archive:
        assert archive.read(name) == recorded
    assert name == "images/69177654/image-t2.jpg"
    same_pixels(opened_alone(tmp_path, 69289763, tmp_path / "prox1.zip", **options), expected)


class TestContent:
    def test_is_what_an_opening_asks_for_and_no_more(self, server, tmp_path):
        options = {"resolution": 8, "region": {"i": (3000, 5000)}}
        with atldld.set_options(cache_dir=tmp_path / "zero"):
            # What is in doubt about the service is asked once in a process.
            atldld.open_dataarray(63, source=server.url, **options).atlas.prefetch()
        server.reset_log()
        with atldld.set_options(cache_dir=tmp_path / "one"):
            packed = atldld.pack(63, tmp_path / "b", source=server.url, **options)
        asked = _asked(server)
        server.reset_log()
        with atldld.set_options(cache_dir=tmp_path / "two"):
            atldld.open_dataarray(63, source=server.url, **options).compute()
        assert asked == _asked(server)
        held = [name for name in packed.source.manifest.files if name.startswith("images/")]
        assert len(held) <= len(asked)

    def test_does_not_depend_on_what_is_cached(self, server, tmp_path):
        region = {"i": (3000, 4000)}
        with atldld.set_options(cache_dir=tmp_path / "one"):
            one = atldld.pack(
                63, tmp_path / "1", tiers=0, resolution=8, region=region, source=server.url
            )
        with atldld.set_options(cache_dir=tmp_path / "two"):
            atldld.open_dataarray(63, tier=0, resolution=8, source=server.url).compute()
            two = atldld.pack(
                63, tmp_path / "2", tiers=0, resolution=8, region=region, source=server.url
            )
        assert one.source.manifest.files == two.source.manifest.files
        assert one.source.digest == two.source.digest

    def test_is_the_bytes_that_the_service_sent(self, server, tmp_path):
        packed = atldld.pack(61, tmp_path / "b", resolution=200, source=server.url)
        plan = atldld.open_dataarray(61, resolution=200, source=packed.source).atlas.plan()
        assert len(plan) == 5
        for each in plan.itertuples():
            (path,) = (tmp_path / "b" / "images" / str(each.image_id)).glob("*.jpg")
            url = f"{server.url}/section_image_download/{each.image_id}?downsample={each.tier}"
            with urlopen(url) as answer:
                assert path.read_bytes() == answer.read()

    def test_tells_how_to_cite_and_what_was_asked(self, server, tmp_path):
        region = {"p": (np.float64(0), 9000)}
        packed = atldld.pack(
            61, tmp_path / "b", region=region, tiers=[np.int64(3), 2, 2], source=server.url
        )
        readme = (tmp_path / "b" / "README.txt").read_text()
        assert "https://alleninstitute.org/terms-of-use" in readme
        assert "Lein, E.S. et al. (2007)" in readme
        manifest = json.loads((tmp_path / "b" / "manifest.json").read_text())
        assert "Lein" in manifest["citation"]
        assert manifest["atldld_version"] == atldld.__version__
        assert manifest["service"] == server.url
        (asked,) = manifest["asked"]
        assert asked["region"] == {"p": [0.0, 9000.0]}
        assert (asked["tiers"], asked["views"], asked["resolution"]) == ([3, 2], ["image"], 25.0)
        assert packed.source.manifest.asked == (asked,)

    def test_of_a_zip_is_stored_not_deflated(self, server, tmp_path):
        import zipfile

        atldld.pack(61, tmp_path / "b.zip", resolution=200, source=server.url)
        with zipfile.ZipFile(tmp_path / "b.zip") as archive:
            assert archive.testzip() is None
            assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
            archive.extractall(tmp_path / "unpacked")
        assert atldld.verify_bundle(tmp_path / "unpacked").ok

    def test_leaves_nothing_else_behind(self, server, tmp_path):
        with atldld.set_options(cache_dir=tmp_path / "cache"):
            atldld.pack(61, tmp_path / "b.zip", resolution=200, source=server.url)
            atldld.pack(61, tmp_path / "c", resolution=200, source=server.url)
            atldld.pack(61, "memory://left.zip", resolution=200, source=server.url)
            assert sorted(each.name for each in tmp_path.iterdir()) == ["b.zip", "c", "cache"]
            assert {each.name for each in (tmp_path / "c").iterdir()} == {
                "README.txt", "README.txt.json", "datasets", "images", "manifest.json"
            }  # fmt: skip


def _asked(server):
    return sorted((each.image_id, each.tier, each.window or ()) for each in server.image_requests)


class TestTiers:
    """A bundle that holds some tiers, asked for others."""

    @pytest.fixture
    def bundle(self, server, tmp_path):
        atldld.pack(61, tmp_path / "b.zip", tiers=2, resolution=120, source=server.url)
        return tmp_path / "b.zip"

    def test_a_tier_that_was_named_is_that_tier_or_an_error(self, bundle):
        for tier in (0, 1, 3, 4):
            array = atldld.open_dataarray(61, tier=tier, resolution=120, source=bundle)
            with pytest.raises(ImageError, match=r"holds tier 2 \(tier=2 opens it\)"):
                array.compute()

    def test_auto_takes_what_the_resolution_wants(self, bundle):
        array = atldld.open_dataarray(61, resolution=130, source=bundle)
        assert set(array.tier.values) == {2}
        array.compute()

    @pytest.mark.parametrize("resolution", [260, 400, 1000])
    def test_auto_takes_what_is_at_hand_and_not_coarser(self, server, bundle, resolution):
        """Coarser grids need less: the finer images serve, and the coordinate names their tier."""
        array = atldld.open_dataarray(61, resolution=resolution, source=bundle)
        assert set(array.tier.values) == {2}
        found = array.compute()
        assert list(array.atlas.failures()["outcome"]) == []
        same = atldld.open_dataarray(61, resolution=resolution, tier=2, source=server.url)
        np.testing.assert_array_equal(found, same.compute())

    def test_volumes_take_it_too(self, server, bundle):
        volume = atldld.open_volume(61, resolution=400, source=bundle).compute()
        same = atldld.open_volume(61, resolution=400, tier=2, source=server.url).compute()
        np.testing.assert_array_equal(volume.image, same.image)

    def test_a_bundle_of_it_can_be_packed(self, bundle, tmp_path):
        packed = atldld.pack(61, tmp_path / "c", resolution=400, source=bundle)
        assert packed.fetched == len(SMALL.image_ids)
        assert all("/image-t2" in name for name in packed.source.manifest.files if "image-" in name)

    def test_the_folder_of_a_cache_serves_so_too(self, server, tmp_path):
        with atldld.set_options(cache_dir=tmp_path / "mine"):
            atldld.open_dataarray(61, resolution=120, tier=2, source=server.url).compute()
        (folder,) = (tmp_path / "mine").iterdir()
        array = atldld.open_dataarray(61, resolution=400, source=folder)
        assert set(array.tier.values) == {2}
        array.compute()

    def test_where_the_service_is_away_what_is_cached_serves_and_says_so(self, tmp_path):
        with AllenServer([SMALL]) as own:
            atldld.open_dataarray(61, resolution=120, tier=2, source=own.url).compute()
            same = atldld.open_dataarray(61, resolution=400, tier=2, source=own.url).compute()
            away = atldld.open_dataarray(61, resolution=400, source=own.url)
        with (
            atldld.set_options(retries=0),
            pytest.warns(AtldldWarning, match="served from tier 2"),
        ):
            found = away.compute()
        np.testing.assert_array_equal(found, same)
        assert set(away.atlas.failures()["outcome"]) == {"tier 2"}

    def test_all_panels_of_a_preview_are_there(self, server, tmp_path):
        """Warnings are errors here: one for each section that had to be served otherwise."""
        from click.testing import CliRunner

        pytest.importorskip("matplotlib")
        bundle = atldld.pack(61, tmp_path / "b", source=server.url).source.name
        with atldld.set_options(api_url="http://127.0.0.1:9", retries=0):
            done = CliRunner().invoke(
                main, ["preview", "61", "-o", str(tmp_path / "p.png"), "--source", str(bundle)]
            )
        assert done.exit_code == 0, done.output
        assert "could not be had" not in done.output

    def test_auto_is_served_from_the_coarser_tier_beside_it_and_says_so(self, bundle):
        array = atldld.open_dataarray(61, resolution=70, source=bundle)
        assert 2 not in set(array.tier.values)
        with pytest.warns(AtldldWarning, match="served from tier 2: .* does not hold its image"):
            found = array.compute()
        same = atldld.open_dataarray(61, resolution=70, tier=2, source=bundle).compute()
        np.testing.assert_array_equal(found, same)
        assert set(array.atlas.failures()["outcome"]) == {"tier 2"}

    def test_auto_is_an_error_where_no_tier_is_near(self, bundle):
        array = atldld.open_dataarray(61, resolution=30, source=bundle)
        with pytest.raises(ImageError, match=r"tiers=\[0\]"):
            array.compute()


class TestGoingOn:
    def test_what_is_there_is_not_fetched_again(self, server, tmp_path, target):
        options = {"resolution": 150, "source": server.url}
        first = atldld.pack(61, target, **options)
        server.reset_log()
        with atldld.set_options(cache_dir=tmp_path / "fresh"):
            again = atldld.pack(61, target, **options)
        assert server.image_requests == []
        assert (again.fetched, again.kept) == (0, first.fetched)
        assert again.source == first.source

    def test_a_bundle_is_added_to(self, server, tmp_path, target):
        options = {"resolution": 150, "source": server.url}
        first = atldld.pack(61, target, **options)
        server.reset_log()
        with atldld.set_options(cache_dir=tmp_path / "fresh"):
            both = atldld.pack(61, target, views=["expression"], **options)
        assert {each.view for each in server.image_requests} == {"expression"}
        assert both.kept == first.fetched
        assert both.source.digest != first.source.digest
        assert len(both.source.manifest.asked) == 2
        report = atldld.verify_bundle(target)
        assert report.ok
        assert report.extra == ()
        expected = atldld.open_dataset(
            61, resolution=150, include_expression=True, source=server.url
        )
        found = opened_alone(
            tmp_path, 61, target, atldld.open_dataset, resolution=150, include_expression=True
        )
        same_pixels(found, expected.compute())

    @pytest.mark.parametrize("target", ["folder", "zip", "zip in memory"], indirect=True)
    def test_an_array_that_was_opened_before_goes_on(self, server, tmp_path, target):
        options = {"resolution": 150, "source": server.url}
        atldld.pack(61, target, views=["image", "expression"], **options)
        array = atldld.open_dataarray(61, resolution=150, source=target)
        before = array.compute()
        atldld.pack(61, target, tiers=[3], **options)
        same_pixels(array.compute(), before)
        names = manifest_of(target)["files"]
        for name in names:
            if "/image-t" in name:
                _damage(target, name, lambda body: body[:-9] + b"x" + body[-8:])
        with pytest.raises(ImageError, match=r"not any more|damaged in the bundle"):
            array.compute()

    def test_a_damaged_bundle_is_mended(self, server, tmp_path, target):
        options = {"resolution": 150, "source": server.url}
        atldld.pack(61, target, views=["image", "expression"], **options)
        names = sorted(n for n in manifest_of(target)["files"] if "images" in n)
        _damage(target, names[0], lambda body: body[:-9] + b"x" + body[-8:])
        _damage(target, names[1], lambda body: None)
        report = atldld.verify_bundle(target)
        assert (report.damaged, report.missing) == ((names[0],), (names[1],))
        server.reset_log()
        with atldld.set_options(cache_dir=tmp_path / "fresh"):
            mended = atldld.pack(61, target, views="image", **options)
        assert mended.fetched == 2
        assert len(server.image_requests) == 2
        assert atldld.verify_bundle(target).ok

    def test_a_part_is_packed_from_a_bundle(self, server, tmp_path):
        atldld.pack(61, tmp_path / "a.zip", resolution=150, source=server.url)
        region = {"p": (4000, 9000)}
        with atldld.set_options(api_url="http://127.0.0.1:9", retries=0):
            part = atldld.pack(
                61, tmp_path / "b", resolution=150, region=region, source=tmp_path / "a.zip"
            )
        assert part.source.manifest.service == server.url
        assert 0 < part.fetched < len(SMALL.image_ids)

    @pytest.mark.parametrize("name", usual(["b.zip", "b"]))
    def test_where_another_process_packs_it_says_so(self, server, tmp_path, name):
        server.add_fault(Fault("hang", image_ids=SMALL.image_ids[-1:], times=1))
        target = str(tmp_path / name)
        cache = str(current().cache_dir)
        job = {"cache_dir": cache, "dataset_id": 61, "target": target, "url": server.url}
        other = subprocess.Popen(
            [sys.executable, str(PACKER), json.dumps(job | {"options": {"resolution": 200}})]
        )
        try:
            while not any(each.fault == "hang" for each in server.requests):
                assert other.poll() is None
                time.sleep(0.02)
            with pytest.raises(BundleError, match="another process is packing"):
                atldld.pack(61, target, source=server.url)
        finally:
            other.kill()
            other.wait()
        # The dead hold nothing.
        server.clear_faults()
        atldld.pack(61, target, source=server.url)


def manifest_of(target: str) -> dict[str, Any]:
    """Return what a bundle says of itself, wherever it is."""
    store, root = fsspec.core.url_to_fs(target)
    store.invalidate_cache()
    if not root.endswith(".zip"):
        return json.loads(store.cat_file(f"{root}/manifest.json"))
    with zipfile.ZipFile(io.BytesIO(store.cat_file(root))) as archive:
        return json.loads(archive.read("manifest.json"))


def _damage(target: str, name: str, change) -> None:
    """Change or remove a file of a bundle, wherever it is."""
    store, root = fsspec.core.url_to_fs(target)
    if not root.endswith(".zip"):
        content = change(store.cat_file(f"{root}/{name}"))
        store.rm_file(f"{root}/{name}")
        if content is not None:
            store.pipe_file(f"{root}/{name}", content)
        return
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(store.cat_file(root))) as old, zipfile.ZipFile(out, "w") as new:
        for info in old.infolist():
            content = old.read(info)
            content = change(content) if info.filename == name else content
            if content is not None:
                new.writestr(info, content)
    store.pipe_file(root, out.getvalue())


@pytest.mark.exhaustive
class TestKilled:
    @pytest.fixture
    def start(self, server, tmp_path):
        """Return a function that starts a process that packs, and end it if it still runs."""
        running = []

        def begin(target, **job):
            whole = {
                "url": server.url,
                "cache_dir": str(tmp_path / "cache-of-the-killed"),
                "dataset_id": 64,
                "target": str(target),
                "options": {"resolution": 100},
                **job,
            }
            running.append(
                subprocess.Popen(
                    [sys.executable, str(PACKER), json.dumps(whole)],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            return running[-1]

        yield begin
        for process in running:
            process.kill()
            process.communicate()

    def killed_at(self, start, target, *where, **job) -> None:
        """Let a process pack until it is about to move a file into place, and kill it."""
        process = start(target, stop_at=where, **job)
        assert process.stdout.readline() == "stopped\n"
        process.kill()
        process.communicate()

    def finished(self, server, tmp_path, target, **options):
        """Pack again, and hold the result against the service; return how much was asked for."""
        server.clear_faults()
        server.reset_log()
        # What is packed for a zip file waits in the cache; a folder needs none.
        cache = tmp_path / ("cache-of-the-killed" if target.endswith(".zip") else "fresh")
        with atldld.set_options(cache_dir=cache):
            packed = atldld.pack(64, target, resolution=100, source=server.url, **options)
        asked = len({each.image_id for each in server.image_requests})
        report = atldld.verify_bundle(target)
        assert report.ok
        assert report.extra == ()
        expected = atldld.open_dataarray(64, resolution=100, source=server.url).compute()
        same_pixels(opened_alone(tmp_path, 64, target, resolution=100), expected)
        return packed, asked

    def looks_unfinished(self, target) -> None:
        with pytest.raises(BundleError, match=r"did not finish|there is nothing at"):
            atldld.open_dataarray(64, source=target)
        with pytest.raises(BundleError, match=r"did not finish|there is nothing at"):
            atldld.verify_bundle(target)

    @pytest.mark.parametrize(
        ("target", "number"),
        [
            ("folder", signal.SIGKILL),
            ("zip", signal.SIGINT),
            ("s3", signal.SIGKILL),
            ("zip in s3", signal.SIGKILL),
        ],
        indirect=["target"],
    )
    def test_while_images_come(self, server, start, tmp_path, target, number):
        server.add_fault(Fault("hang", skip=18))
        process = start(target)
        there = _wait_until_there(target, tmp_path / "cache-of-the-killed", 14)
        process.send_signal(number)
        process.communicate(timeout=300)
        assert process.returncode != 0
        self.looks_unfinished(target)
        packed, asked = self.finished(server, tmp_path, target)
        assert packed.fetched + packed.kept == 24
        # Requests of the killed process may still end meanwhile: for images that are not there.
        assert asked <= 24 - there
        if not target.endswith(".zip"):
            assert packed.kept >= there

    @pytest.mark.parametrize(
        ("name", "point", "suffix", "kept"),
        [
            ("b", 3, ".jpg", 3),
            ("b", 3, ".jpg.json", 3),
            ("b", 0, "datasets/64.json", 24),
            ("b.zip", 0, "b.zip", 0),
        ],
    )
    def test_while_a_file_is_written(self, server, start, tmp_path, name, point, suffix, kept):
        target = str(tmp_path / name)
        self.killed_at(start, target, point, target, suffix)
        self.looks_unfinished(target)
        packed, asked = self.finished(server, tmp_path, target)
        assert packed.kept == kept
        if kept in (0, 24):
            assert asked == 0
        there = {each.name for each in tmp_path.iterdir()}
        assert there <= {name, "cache-of-the-killed", "fresh"}

    def test_two_that_race_for_one_zip_file(self, server, start, tmp_path):
        target = tmp_path / "b.zip"
        racers = [start(target), start(target)]
        told = [process.communicate(timeout=300)[1] for process in racers]
        assert 0 in [process.returncode for process in racers]
        for process, words in zip(racers, told, strict=True):
            assert process.returncode == 0 or "another process is packing" in words
        assert atldld.verify_bundle(target).ok
        assert [each.name for each in tmp_path.glob("*b.zip*")] == ["b.zip"]

    def test_before_the_manifest_is_written(self, server, start, tmp_path):
        """All is there but the manifest: it opens as what it is, and is finished without a read."""
        target = str(tmp_path / "b")
        self.killed_at(start, target, 0, target, "manifest.json")
        with pytest.raises(BundleError, match="did not finish"):
            atldld.verify_bundle(target)
        packed, asked = self.finished(server, tmp_path, target)
        assert (packed.kept, asked) == (24, 0)

    def test_while_a_zip_file_is_added_to(self, server, start, tmp_path):
        """It stays what it was until the new one is whole."""
        target = str(tmp_path / "b.zip")
        atldld.pack(64, target, resolution=100, source=server.url)
        before = manifest_of(target)
        added = {"resolution": 100, "views": ["expression"]}
        self.killed_at(start, target, 0, target, ".zip", options=added)
        assert manifest_of(target) == before
        assert atldld.verify_bundle(target).ok
        packed, asked = self.finished(server, tmp_path, target, views=["expression"])
        assert (packed.fetched, packed.kept, asked) == (24, 24, 0)


def _wait_until_there(target: str, cache: Path, count: int) -> int:
    """Wait until so many images are written with their records, and return how many are."""
    deadline = time.monotonic() + 300
    while True:
        if target.endswith(".zip"):
            there = len(list(cache.glob("*/images/*/*.jpg.json")))
        elif target.startswith("s3"):
            store, root = fsspec.core.url_to_fs(target)
            store.invalidate_cache()
            there = len(store.glob(f"{root}/images/*/*.jpg.json"))
        else:
            there = len(list(Path(target).glob("images/*/*.jpg.json")))
        if there >= count:
            return there
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.exhaustive
class TestFailures:
    def test_all_are_named_and_the_rest_is_kept(self, server, tmp_path, target):
        bad = SMALL.image_ids[1:3]
        server.add_fault(Fault("404", image_ids=bad))
        options = {"resolution": 150, "source": server.url}
        with pytest.raises(BundleError, match="2 images of dataset 61 could not be packed") as said:
            atldld.pack(61, target, **options)
        assert all(str(each) in str(said.value) for each in bad)
        with pytest.raises(BundleError):
            atldld.open_dataarray(61, source=target)
        server.clear_faults()
        server.reset_log()
        with atldld.set_options(cache_dir=tmp_path / "fresh"):
            packed = atldld.pack(61, target, **options)
        # What came for a zip file was in the other cache.
        assert packed.fetched == (5 if target.endswith(".zip") else 2)
        assert atldld.verify_bundle(target).ok

    def test_adding_that_fails_leaves_what_was_there(self, server, target):
        options = {"resolution": 150, "source": server.url}
        atldld.pack(61, target, **options)
        before = manifest_of(target)
        server.add_fault(Fault("404", views="expression", image_ids=SMALL.image_ids[1]))
        with pytest.raises(BundleError, match="1 images of dataset 61"):
            atldld.pack(61, target, views="expression", **options)
        assert manifest_of(target) == before
        assert atldld.verify_bundle(target).ok
        server.clear_faults()
        both = atldld.pack(61, target, views="expression", **options)
        assert both.fetched + both.kept == 10
        assert atldld.verify_bundle(target).ok

    def test_they_may_be_left_out(self, server, tmp_path):
        bad = SMALL.image_ids[1]
        server.add_fault(Fault("404", image_ids=bad))
        options = {"resolution": 150, "source": server.url}
        packed = atldld.pack(61, tmp_path / "b.zip", on_error="skip", **options)
        (name,) = packed.failed
        assert str(bad) in name
        report = atldld.verify_bundle(tmp_path / "b.zip")
        assert report.ok
        assert report.failed == (name,)
        assert "404" in report.reasons[name]
        chunks = {"section": 1}
        array = atldld.open_dataarray(
            61, resolution=150, tier=2, chunks=chunks, source=tmp_path / "b.zip"
        )
        good = array.isel(section=array.image_id.values != bad)
        good.compute()
        with pytest.raises(ImageError, match="could not be had when the bundle was packed"):
            array.compute()
        server.clear_faults()
        again = atldld.pack(61, tmp_path / "b.zip", **options)
        assert (again.fetched, again.failed) == (1, ())
        opened_alone(tmp_path, 61, tmp_path / "b.zip", resolution=150, tier=2)

    def test_an_image_that_is_damaged_inside_is_fetched_again(self, server, tmp_path):
        bad = SMALL.image_ids[2]
        server.add_fault(Fault("damaged", image_ids=bad, times=1))
        packed = atldld.pack(61, tmp_path / "b", resolution=150, source=server.url)
        assert packed.fetched == 5
        assert len(server.image_requests) == 6
        server.add_fault(Fault("damaged", image_ids=bad))
        with (
            atldld.set_options(cache_dir=tmp_path / "fresh"),
            pytest.raises(BundleError, match=f"image {bad}"),
        ):
            atldld.pack(61, tmp_path / "c", resolution=150, source=server.url)

    def test_a_full_disk(self, server, tmp_path):
        """The system lets no file grow past 30 kB, and then it does."""
        code = (
            "import resource, sys\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))\n"
            "import atldld\n"
            "atldld.set_options(cache_dir=sys.argv[3])\n"
            "try: atldld.pack(64, sys.argv[1], resolution=100, source=sys.argv[2])\n"
            "except atldld.BundleError as error: print(error)\n"
        )
        target, cache = str(tmp_path / "b.zip"), str(tmp_path / "elsewhere")
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", code, target, server.url, cache],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "cannot be written: File too large" in done.stdout
        with pytest.raises(BundleError, match="there is nothing at"):
            atldld.open_dataarray(61, source=target)
        server.reset_log()
        with atldld.set_options(cache_dir=cache):
            atldld.pack(64, target, resolution=100, source=server.url)
        assert len(server.image_requests) < 24
        assert atldld.verify_bundle(target).ok

    def test_a_folder_that_cannot_be_made(self, server, tmp_path):
        (tmp_path / "file").write_text("mine")
        with pytest.raises(BundleError, match="cannot be written"):
            atldld.pack(61, tmp_path / "file" / "b", resolution=200, source=server.url)

    def test_a_store_that_is_not_there(self, server, bucket):
        for name in ("s3://no-such-bucket/b", "s3://no-such-bucket/b.zip"):
            with pytest.raises(BundleError, match="no-such-bucket"):
                atldld.pack(61, name, resolution=200, source=server.url)


class TestRefused:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"on_error": "fill"}, "on_error is 'fill'"),
            ({"on_error": np.zeros(2)}, "on_error is"),
            ({"target": None}, "source or target is None"),
            ({"target": b"x"}, "source or target is b'x'"),
            ({"target": "s3://key:password@bucket/x"}, "has a name or password in it"),
            ({"source": 5}, "source is 5"),
            ({"dataset_id": "61"}, "dataset_id is '61'"),
            ({"chunks": {"section": 1}}, "chunks is"),
            ({"chunks": 5}, "chunks is"),
            ({"views": "everything"}, "views has 'everything'"),
            ({"views": []}, "views is empty"),
            ({"views": 5}, "views has 5"),
            ({"tiers": []}, "tiers is empty"),
            ({"tiers": "auto"}, "tiers has 'auto'"),
            ({"tiers": [1, -1]}, "tiers has -1"),
            ({"tiers": 2.5}, "tiers has 2.5"),
            ({"tiers": [True]}, "tiers has True"),
            ({"resolution": 0}, "resolution is 0"),
            ({"region": {"q": (1, 2)}}, "region has 'q'"),
            ({"region": 5}, "region is 5"),
            ({"interpolation": "best"}, "interpolation is"),
            ({"mapping": None}, "mapping is"),
            ({"reference_space": 11}, "reference_space is 11"),
            ({"detection_xy": "left"}, "detection_xy is"),
        ],
    )
    def test_options_that_cannot_be_used(self, server, tmp_path, options, said):
        with pytest.raises((ValueError, TypeError), match=said):
            atldld.pack(
                **{"dataset_id": 61, "target": tmp_path / "b", "source": server.url, **options}
            )
        assert server.requests == []
        assert list(tmp_path.iterdir()) == []

    def test_a_region_that_holds_nothing(self, server, tmp_path):
        with pytest.raises(ValueError, match="nothing to pack"):
            atldld.pack(61, tmp_path / "b", region={"r": (0, 30)}, source=server.url)
        assert list(tmp_path.iterdir()) == []

    def test_a_dataset_that_is_not_there(self, server, tmp_path):
        with pytest.raises(DatasetNotFoundError):
            atldld.pack(99, tmp_path / "b", source=server.url)

    def test_expression_where_there_is_none(self, tmp_path):
        bare = phantom_dataset(66, sections=2, resolution=60, expression=False)
        with AllenServer([bare]) as own, pytest.raises(RegistrationError, match="expression mask"):
            atldld.pack(66, tmp_path / "b", views=["image", "expression"], source=own.url)

    def test_targets_that_hold_something_else(self, server, tmp_path):
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "thesis.txt").write_text("all of it")
        (tmp_path / "file").write_text("mine")
        (tmp_path / "file.zip").write_text("mine")
        shutil.make_archive(str(tmp_path / "other"), "zip", tmp_path / "mine")
        (tmp_path / "app").mkdir()
        (tmp_path / "app" / "manifest.json").write_text('{"name": "a web page"}')
        before = {each: each.stat().st_mtime_ns for each in tmp_path.rglob("*")}
        for name, said in (
            ("mine", "is not empty, and holds no bundle"),
            ("file", "is a file; a bundle is a folder"),
            ("file.zip", "not a whole zip archive"),
            ("other.zip", "a zip file, but no bundle"),
            ("app", "manifest.json that is there is refused"),
        ):
            with pytest.raises(BundleError, match=said):
                atldld.pack(61, tmp_path / name, resolution=200, source=server.url)
        after = {each: each.stat().st_mtime_ns for each in tmp_path.rglob("*")}
        assert {each for each in after if after[each] != before.get(each)} <= {tmp_path / "app"}
        assert set(after) == set(before)

    def test_another_dataset_or_service_is_not_mixed_in(self, server, tmp_path):
        atldld.pack(61, tmp_path / "b", resolution=200, source=server.url)
        with pytest.raises(BundleError, match="holds dataset 61, not 62"):
            atldld.pack(62, tmp_path / "b", resolution=200, source=server.url)
        with AllenServer([SMALL]) as own, pytest.raises(BundleError, match="holds data from http"):
            atldld.pack(61, tmp_path / "b", resolution=200, source=own.url)
        assert atldld.verify_bundle(tmp_path / "b").ok

    def test_links_in_the_target_are_not_written_through(self, server, tmp_path):
        atldld.pack(61, tmp_path / "b", resolution=200, source=server.url)
        (tmp_path / "outside").mkdir()
        images = tmp_path / "b" / "images"
        shutil.rmtree(images)
        images.symlink_to(tmp_path / "outside", target_is_directory=True)
        with pytest.raises(BundleError, match="is a link"):
            atldld.pack(61, tmp_path / "b", resolution=200, source=server.url)
        images.unlink()
        (tmp_path / "b" / "partial").symlink_to(tmp_path / "outside", target_is_directory=True)
        with pytest.raises(BundleError, match="is a link"):
            atldld.pack(61, tmp_path / "b", resolution=200, source=server.url)
        assert list((tmp_path / "outside").iterdir()) == []

    def test_a_source_without_rows(self, server, tmp_path):
        packed = atldld.pack(61, tmp_path / "a", resolution=200, source=server.url)

        class Bare:
            name = "bare"

            def __init__(self) -> None:
                inner = packed.source
                # Attributes, not __getattr__: from Python 3.12 on protocols look no further.
                self.dataset, self.image = inner.dataset, inner.image
                self.discard, self.url = inner.discard, inner.url

            def __dask_tokenize__(self):
                return "bare"

        with pytest.raises(TypeError, match="no method rows"):
            atldld.pack(61, tmp_path / "b", source=Bare())


class TestCommands:
    def run(self, *arguments: str):
        from click.testing import CliRunner

        return CliRunner().invoke(main, list(arguments))

    def test_pack_and_verify(self, server, tmp_path):
        target = str(tmp_path / "b.zip")
        done = self.run(
            "pack", "61", target, "--resolution", "150", "--view", "image", "--view", "expression",
            "--region", "p=4000:9000", "--region", "i=0:8000", "--source", server.url,
        )  # fmt: skip
        assert done.exit_code == 0, done.output
        assert f"{target} holds dataset 61" in done.output
        (asked,) = manifest_of(target)["asked"]
        assert asked["region"] == {"p": [4000.0, 9000.0], "i": [0.0, 8000.0]}
        assert asked["views"] == ["image", "expression"]
        done = self.run("verify", target)
        assert (done.exit_code, "is sound" in done.output) == (0, True)
        name = next(n for n in manifest_of(target)["files"] if "images" in n)
        _damage(target, name, lambda body: None)
        done = self.run("verify", target)
        assert (done.exit_code, f"missing: {name}" in done.output) == (1, True)

    def test_tiers_and_images_that_fail(self, server, tmp_path):
        server.add_fault(Fault("404", image_ids=SMALL.image_ids[0]))
        target = str(tmp_path / "b")
        command = ["pack", "61", target, "--tier", "2", "--tier", "3", "--source", server.url]
        done = self.run(*command)
        assert done.exit_code == 1
        assert "Error: 2 images of dataset 61 could not be packed" in done.output
        done = self.run(*command, "--skip-failed")
        assert done.exit_code == 0
        assert done.output.count("could not be had: ") == 2

    def test_errors_are_one_line(self, server, tmp_path):
        for status, *arguments in (
            (1, "pack", "99", str(tmp_path / "b"), "--source", server.url),
            (2, "pack", "61", str(tmp_path / "b"), "--tier", "-1", "--source", server.url),
            (1, "verify", str(tmp_path / "none")),
            (2, "verify", " "),
        ):
            done = self.run(*arguments)
            assert done.exit_code == status
            assert done.output.startswith("Error: ")
        done = self.run("pack", "61", "x", "--region", "p=1-2")
        assert done.exit_code == 2
        assert "'p=1-2' is not like p=6000:7000" in done.output


def test_progress_is_shown_where_it_is_wanted(server, tmp_path, capsys):
    with atldld.set_options(progress=True):
        atldld.pack(61, tmp_path / "b", resolution=200, source=server.url)
    assert "Packing images" in capsys.readouterr().err


def test_large_images_wait_in_small_numbers():
    def reads(side):
        return [ImageRead(1, "image", 0, side, side)] * 50

    assert _ahead([]) == _ahead(reads(100)) == 32
    assert _ahead(reads(10_000)) == 2
    assert 2 < _ahead(reads(5_000)) < 32
