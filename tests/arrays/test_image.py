"""The pixels of one image: the right ones, at the right place, and no more read than needed."""

import json

import numpy as np
import pytest
import xarray as xr

import atldld
from atldld import MixError
from atldld.errors import ImageError, RegistrationError
from atldld.source import source_from
from atldld.testing import AllenServer, Doubts, Fault, PhantomBrain, oracle, phantom_dataset

BRAIN = PhantomBrain(texture="fine", fine_period=1600)
SLIDES = phantom_dataset(
    61, sections=4, slides=True, resolution=6, brain=BRAIN, tier_count=6, tilt=5, seed=1
)
SAGITTAL = phantom_dataset(
    62, plane="sagittal", sections=3, slides=2, resolution=8, brain=BRAIN, tier_count=6, seed=2
)
LARGE = phantom_dataset(
    63, sections=2, resolution=1.6, brain=BRAIN, slides=2, image_size=(6501, 5203), seed=3
)
PHANTOMS = {"coronal": SLIDES, "sagittal": SAGITTAL, "large": LARGE}


@pytest.fixture(scope="module")
def server():
    with AllenServer(list(PHANTOMS.values())) as running:
        # What is found out about a service once is found out here, whichever test is the first.
        corner = {"x": (0, 600), "y": (0, 600)}
        atldld.open_image(second(LARGE)["id"], region=corner, source=running.url).compute()
        yield running


def second(phantom):
    """Return the row of an image that begins at odd numbers of its slide."""
    image = phantom.image(phantom.image_ids[1])
    assert image["x"] % 2 == 1
    assert image["y"] % 2 == 1
    return image


def colours(phantom, image, x, y):
    """Return the true colours at full-resolution pixels, (rows, columns, 3)."""
    p, i, r = phantom.pir(image["id"], np.asarray(x)[None, :], np.asarray(y)[:, None])
    r = oracle.to_space(r, phantom.row["reference_space_id"], 9)
    return phantom.brain.colour(p, i, r)


@pytest.mark.parametrize("tier", range(5))
@pytest.mark.parametrize("name", ["coronal", "sagittal"])
def test_pixels_show_what_lies_at_their_coordinates(server, name, tier):
    phantom = PHANTOMS[name]
    image = second(phantom)
    array = atldld.open_image(image["id"], tier=tier, source=server.url)
    assert array.dims == ("y", "x", "channel")
    assert array.shape == (image["height"] >> tier, image["width"] >> tier, 3)
    assert array.x.values[0] == -(image["x"] % 2**tier)
    assert (np.diff(array.y) == 2**tier).all()
    rng = np.random.default_rng(tier)
    width, height = array.sizes["x"], array.sizes["y"]
    for _ in range(3):
        left, top = int(rng.integers(0, width - 40)), int(rng.integers(0, height - 40))
        tile = array[top : top + 40, left : left + 40].compute()
        off = np.abs(tile.values - colours(phantom, image, tile.x, tile.y))
        assert off.max() <= 9
        assert off.mean() < 1.5
        assert np.abs(shift_of(phantom, image, tile)).max() < 0.5


def shift_of(phantom, image, tile):
    """Return by how many full-resolution pixels a tile is off in x and y, by least squares."""
    there = colours(phantom, image, tile.x, tile.y)
    slopes = [
        colours(phantom, image, tile.x + dx, tile.y + dy) - there for dx, dy in ((1, 0), (0, 1))
    ]
    across = np.stack([slope.ravel() for slope in slopes], axis=1)
    return np.linalg.lstsq(across, (tile.values - there).ravel(), rcond=None)[0]


@pytest.mark.parametrize(
    "doubts",
    [
        Doubts(tier_origin="exact"),
        Doubts(window_sizes="full", downsample_dimensions="ignored"),
        Doubts(downsample_dimensions="inverted"),
        Doubts(outside="clip"),
    ],
    ids=repr,
)
def test_however_the_service_is_read(doubts):
    image, small = second(LARGE), second(SLIDES)
    with AllenServer([LARGE, SLIDES], doubts=doubts) as server:
        for tier in (2, 3):
            tile = atldld.open_image(small["id"], tier=tier, source=server.url)[:80, :80].compute()
            assert np.abs(shift_of(SLIDES, small, tile)).max() < 0.5
        for tier in (1, 2, 4):
            array = atldld.open_image(image["id"], tier=tier, source=server.url)
            for at in ({"x": 900, "y": 1100}, {"x": 3111, "y": 2000}):
                tile = array.sel({axis: slice(at[axis], at[axis] + 512) for axis in at}).compute()
                off = np.abs(tile.values - colours(LARGE, image, tile.x, tile.y))
                assert off.max() <= 6


@pytest.mark.parametrize("origin", ["section", "slide"])
def test_without_windows_pixels_are_half_a_pixel_off_at_most(origin):
    image = second(SLIDES)
    doubts = Doubts(tier_origin="exact" if origin == "section" else "floor")
    with AllenServer([SLIDES], doubts=doubts) as server:
        found_out = {"windows": False, "whole_origin": origin}
        source_from(server.url).remember("conventions", json.dumps(found_out))
        for tier in (2, 3):
            array = atldld.open_image(image["id"], tier=tier, source=server.url)
            assert array.atlas.plan()["whole"].all()
            tile = array[20:90, 20:90].compute()
            most = 2**tier / 2 if origin == "section" else 0.1
            assert np.abs(shift_of(SLIDES, image, tile)).max() < most + 0.4


@pytest.mark.parametrize("tier", [0, 2, 4])
def test_exact_places_of_pixels(server, tier):
    image = second(SAGITTAL)
    for space in ("native", 9, 10):
        array = atldld.open_image(image["id"], tier=tier, reference_space=space, source=server.url)
        part = array[10:14, 7:60:17]
        found = part.atlas.pir()
        assert found.p.dims == ("y", "x")
        p, i, r = SAGITTAL.pir(image["id"], part.x.values[None, :], part.y.values[:, None])
        r = oracle.to_space(r, 10, 10 if space == "native" else space)
        for axis, values in zip("pir", (p, i, r), strict=True):
            assert np.abs(found[axis].values - values).max() < 1e-6
        assert array.atlas.pir().p.shape == array.shape[:2]


def test_regions(server):
    image = second(SLIDES)
    whole = atldld.open_image(image["id"], tier=2, source=server.url)
    part = atldld.open_image(
        image["id"], tier=2, region={"x": (400, 500), "y": (31, 77.5)}, source=server.url
    )
    chosen = whole.sel(x=slice(400, 500), y=slice(31, 77.5))
    assert part.x.values.tolist() == chosen.x.values.tolist()
    xr.testing.assert_identical(part.compute(), chosen.compute())
    p, i, r = (float(each) for each in SLIDES.pir(image["id"], 500, 400))
    ends = {"i": (i - 200, i + 300), "r": (r - 100, r + 250)}
    part = atldld.open_image(image["id"], region=ends, source=server.url)
    inside = whole_inside(SLIDES, image, ends)
    rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
    assert abs(part.y.values[0] - rows[0]) <= 1
    assert abs(part.y.values[-1] - rows[-1]) <= 1
    assert abs(part.x.values[0] - columns[0]) <= 1
    assert abs(part.x.values[-1] - columns[-1]) <= 1
    assert part.x.values[0] <= columns[0]
    for region in ({"p": (p + 4000, p + 5000)}, {"x": (1e6, 2e6)}, {"y": (10.2, 10.4)}):
        with pytest.raises(ValueError, match="holds no pixel"):
            atldld.open_image(image["id"], region=region, source=server.url)


def whole_inside(phantom, image, ends):
    x, y = np.arange(image["width"]), np.arange(image["height"])
    places = dict(zip("pir", phantom.pir(image["id"], x[None, :], y[:, None]), strict=True))
    inside = np.ones((len(y), len(x)), dtype=bool)
    for axis, (low, high) in ends.items():
        inside &= (places[axis] >= low) & (places[axis] <= high)
    return inside


class TestReads:
    def test_small_windows_of_a_whole_image_are_cut_from_what_is_kept(self, tmp_path):
        """Decoded once, as long as the cache has it: the file need not be read again."""
        image = second(LARGE)
        with AllenServer([LARGE]) as own, atldld.set_options(cache_dir=tmp_path):
            array = atldld.open_image(image["id"], tier=1, source=own.url, chunks=None)
            whole = array.compute()
            windows = [
                {"y": slice(at, at + 64), "x": slice(2 * at, 2 * at + 64)} for at in (9, 500)
            ]
            first = array.isel(windows[0]).compute()
            path = max(tmp_path.rglob("*.jpg"), key=lambda each: each.stat().st_size)
            path.write_bytes(bytes(path.stat().st_size))
            own.reset_log()
            again = array.isel(windows[1]).compute()
            assert own.image_requests == []
            xr.testing.assert_identical(first, whole.isel(windows[0]))
            xr.testing.assert_identical(again, whole.isel(windows[1]))
            again.values[...] = 0  # what a user does to it reaches nobody else
            xr.testing.assert_identical(array.isel(windows[1]).compute(), whole.isel(windows[1]))
            path.unlink()
            array.isel(windows[1]).load()
            assert len(own.image_requests) == 1

    def test_only_the_windows_needed_are_read(self, server):
        image = second(LARGE)
        array = atldld.open_image(image["id"], source=server.url)
        assert array.sizes["x"] * array.sizes["y"] > 20_000_000
        array[:64, :64].compute()  # what is in doubt is settled
        part = array.sel(x=slice(2000, 2100), y=slice(1500, 1600))
        plan = part.atlas.plan()
        assert not plan["whole"].any()
        assert (plan["width"] * plan["height"]).sum() <= 2 * 512 * 512
        server.reset_log()
        table = part.atlas.prefetch()
        assert (table["error"] == "").all()
        assert part.atlas.plan()["cached"].all()
        asked = len(server.image_requests)
        assert asked == len(plan)
        part.compute()
        assert len(server.image_requests) == asked

    def test_chunks_have_edges_on_one_lattice(self, server):
        image = second(LARGE)
        region = {"x": (1000, 4500), "y": (100, 2500)}
        array = atldld.open_image(image["id"], region=region, source=server.url)
        assert array.chunks[1] == (2048 - 1000, 2048, 4501 - 2 * 2048)
        server.reset_log()
        plan = array.atlas.plan()
        assert ((plan["left"] % 256 == 0) & (plan["top"] % 256 == 0)).all()
        assert len(plan.loc[~plan["whole"], ["left", "top"]].drop_duplicates()) >= 6
        array.compute()
        boxes = [(each.tier, each.window) for each in server.image_requests]
        assert len(boxes) == len(set(boxes))

    def test_opening_reads_metadata_only(self, server):
        server.reset_log()
        image = SAGITTAL.image_ids[2]
        array = atldld.open_image(image, dataset_id=62, chunks=None, source=server.url)
        assert server.image_requests == []
        assert len(server.requests) == 1
        assert array.chunks is None
        assert array[5, 5:9, 1].values.shape == (4,)

    def test_any_selection(self, server):
        array = atldld.open_image(SLIDES.image_ids[0], tier=3, source=server.url)
        lazy = atldld.open_image(SLIDES.image_ids[0], tier=3, chunks=None, source=server.url)
        full = array.values
        for key in (
            (slice(10, 2, -3), [5, 1, 1]),
            (7, slice(None)),
            (slice(4, 4), 3),
            (np.array([3, 90]), slice(0, 200, 7), 2),
            (..., 0),
        ):
            assert np.array_equal(
                lazy[key].values, full[key] if key[0] is ... else lazy.copy(data=full)[key].values
            )
        points = xr.DataArray([3, 50, 9], dims="cell")
        assert np.array_equal(lazy.isel(x=points, y=points).values, full[points, points])


def test_grey_masks_and_views(server):
    image = SLIDES.image_ids[0]
    mask = atldld.open_image(image, tier=3, view="expression_mask", source=server.url)
    assert mask.dims == ("y", "x")
    truth = SLIDES.pixels(image, 3, view="expression_mask")
    assert np.abs(mask.values.astype(int) - truth).max() <= 6
    assert atldld.open_image(image, tier=3, view="expression", source=server.url).ndim == 3
    told = SLIDES.altered(lambda row: row["section_images"][0].update(expression_path=None))
    with AllenServer([told]) as other, pytest.raises(RegistrationError, match="no expression"):
        atldld.open_image(image, view="expression_mask", source=other.url)


def test_what_it_says_of_itself(server):
    image = second(SAGITTAL)
    array = atldld.open_image(image["id"], tier=1, source=server.url)
    assert array.attrs["dataset_id"] == 62
    assert array.attrs["plane"] == "sagittal"
    assert int(array.section) == image["section_number"] == array.attrs["section_number"]
    assert int(array.image_id) == image["id"]
    assert all(isinstance(value, int | float | str) for value in array.attrs.values())
    across = np.hypot(*(np.diff(np.array(SAGITTAL.pir(image["id"], [0, 1], 0))[:2]).ravel()))
    assert abs(float(array.microns_per_pixel) - 2 * across) < 0.5
    table = array.atlas.geometry()
    sections = atldld.open_dataarray(62, resolution=200, source=server.url)
    row = sections.atlas.geometry().set_index("image_id").loc[image["id"]]
    assert table["image_id"].tolist() == [image["id"]]
    for name in ("tilt", "slice_low", "slice_high", "before", "after", "outside"):
        assert abs(table[name][0] - row[name]) < 0.2
    other = atldld.open_image(SAGITTAL.image_ids[0], tier=1, source=server.url)
    with pytest.raises(MixError, match="pixels of section image"):
        _ = array + other
    assert (array[:4] + array[:4]).shape[0] == 4


def test_pixels_that_cannot_be_had():
    phantom = phantom_dataset(64, sections=3, resolution=40, tier_count=4)
    image = phantom.image_ids[1]
    with AllenServer([phantom]) as server:
        with atldld.set_options(retries=0):
            server.add_fault(Fault("404", image_ids=(image,)))
            array = atldld.open_image(image, source=server.url)
            with pytest.raises(ImageError, match=str(image)):
                array.compute()
            filled = atldld.open_image(image, on_error="fill", source=server.url)
            with pytest.warns(atldld.AtldldWarning, match="filled"):
                values = filled.compute()
        assert (values == 255).all()
        assert filled.atlas.failures()["image_id"].tolist() == [image]
        with pytest.raises(ImageError, match="no such section image"):
            atldld.open_image(123456, source=server.url)


def test_without_a_network_the_cache_knows(tmp_path):
    phantom = phantom_dataset(65, sections=3, resolution=40, tier_count=4)
    image = phantom.image_ids[1]
    with atldld.set_options(cache_dir=tmp_path, retries=0, timeout=5):
        with AllenServer([phantom]) as server:
            url = server.url
            here = atldld.open_image(image, source=url).compute()
        from atldld.source import search

        search._known.clear()
        asking = atldld.set_options(metadata_max_age=0)
        with asking, pytest.warns(atldld.AtldldWarning, match="now it does not"):
            again = atldld.open_image(image, source=url)
        xr.testing.assert_equal(again.compute(), here)


def test_bundles_know_their_images(tmp_path):
    phantom = phantom_dataset(66, sections=3, resolution=40, tier_count=4)
    with AllenServer([phantom]) as server:
        atldld.pack(66, tmp_path / "bundle", tiers=[1], source=server.url)
        whole = atldld.open_image(phantom.image_ids[2], tier=1, source=server.url).compute()
    packed = atldld.open_image(phantom.image_ids[2], tier=1, source=str(tmp_path / "bundle"))
    assert np.array_equal(packed.values, whole.values)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"tier": 6}, "tiers 0 to 5"),
        ({"tier": -1}, "from 0 to 30"),
        ({"view": "mask"}, "one of"),
        ({"region": {"z": (0, 1)}}, "its axes are"),
        ({"region": {"x": (5, 1)}}, "lower end"),
        ({"chunks": {"section": 1}}, "dimensions are"),
        ({"on_error": "skip"}, "one of"),
    ],
)
def test_bad_options(server, options, match):
    with pytest.raises(ValueError, match=match):
        atldld.open_image(SLIDES.image_ids[0], source=server.url, **options)


def test_an_image_that_failed_quality_control(server):
    told = SLIDES.altered(lambda row: row["section_images"][2].update(failed=True))
    with AllenServer([told]) as other, pytest.warns(atldld.AtldldWarning, match="failed quality"):
        array = atldld.open_image(SLIDES.image_ids[2], tier=4, source=other.url)
    assert len(array.atlas.geometry()) == 1
