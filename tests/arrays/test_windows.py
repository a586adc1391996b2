"""Windows: the same pixels as from whole images, fewer of them, and only where they are right."""

import warnings
from dataclasses import replace
from itertools import product

import numpy as np
import pytest

import atldld
import twins
from atldld.model.read import ImageRead
from atldld.reading import conventions
from atldld.source import allen, source_from
from atldld.testing import AllenServer, Doubts, PhantomBrain, image_service, phantom_dataset
from usual import usual

BRAIN = PhantomBrain(texture="tissue")


def large(plane="coronal", **options):
    """Return a phantom whose images are large enough to be read by windows."""
    options = {"sections": 3, "resolution": 2.5, "tier_count": 8, "brain": BRAIN, **options}
    return phantom_dataset(dataset_id=11, plane=plane, **options)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(
            (plane, slides),
            id=f"{plane}-{'slides' if slides else 'alone'}",
            marks=[] if (plane, slides) == ("sagittal", True) else pytest.mark.exhaustive,
        )
        for plane in twins.AXES
        for slides in (False, True)
    ],
)
def served(request):
    """Serve a large phantom of each plane, alone on its slide or not."""
    plane, slides = request.param
    phantom = large(plane, slides=slides)
    with AllenServer([phantom]) as server:
        yield server, phantom, plane


@pytest.mark.parametrize("interpolation", ["nearest", "linear", "cubic", "area"])
def test_windows_give_what_whole_images_give(served, interpolation, tmp_path):
    server, phantom, plane = served
    rng = np.random.default_rng(3)
    options = {"interpolation": interpolation, "source": server.url, "chunks": None}
    for tier, resolution in ((0, 5.0), (1, 4.0), (0, 21.0)):
        array = atldld.open_dataarray(11, tier=tier, resolution=resolution, **options)
        image = phantom.image(int(array.image_id[1]))
        rows, columns = twins.AXES[plane][1:]
        at = dict(
            zip(
                "pir",
                phantom.pir(image["id"], image["width"] / 2, image["height"] / 2),
                strict=True,
            )
        )
        for _ in range(3):
            low = {axis: float(at[axis]) - rng.uniform(50, 900) for axis in (rows, columns)}
            region = {axis: slice(low[axis], low[axis] + 800) for axis in low}
            part = array.isel(section=1).sel(region)
            server.reset_log()
            by_window = part.values
            asked = [each for each in server.image_requests if each.window is not None]
            if tier == 0 or asked:
                assert part.atlas.plan()["cached"].all()
            with atldld.set_options(cache_dir=tmp_path):
                whole = ImageRead(
                    image["id"],
                    "image",
                    tier,
                    image["width"] >> tier,
                    image["height"] >> tier,
                    image["x"],
                    image["y"],
                )
                source_from(server.url).image(whole)
                assert part.atlas.plan()["whole"].all()
                by_whole = part.values
            difference = np.abs(by_window.astype(int) - by_whole)
            # Each file is a JPEG of its own: what differs is the noise of two encodings.
            assert np.percentile(difference, 99) <= 2
            assert difference.max() <= 12


def test_a_millimetre_costs_a_few_percent_of_the_image():
    phantom = phantom_dataset(
        dataset_id=12, sections=3, resolution=1.05, image_size=(10_000, 7_600), tier_count=7
    )
    with AllenServer([phantom]) as server:
        array = atldld.open_dataarray(12, resolution=1, source=server.url)
        p = float(array.p[1])
        # In this order dask folds the slices into the read; `.atlas.at` needs no order.
        part = array.sel(i=slice(3000, 3999), r=slice(5000, 5999)).sel(p=p)
        at = array.atlas.at(p=p, i=slice(3000, 3999), r=slice(5000, 5999))
        rows = [each.atlas.plan().sort_values(["tier", "left", "top"]) for each in (at, part)]
        assert rows[0].reset_index(drop=True).equals(rows[1].reset_index(drop=True))
        plan = part.atlas.plan()
        part.compute()
        window = plan[~plan["whole"]].iloc[-1]
        assert window["width"] * window["height"] <= 0.03 * 10_000 * 7_600
        sent = [each for each in server.image_requests if each.tier == 0]
        assert sum(each.width * each.height for each in sent) <= 0.03 * 10_000 * 7_600


def test_a_cached_larger_window_serves_a_smaller_one():
    phantom = large()
    with AllenServer([phantom]) as server:
        array = atldld.open_dataarray(11, tier=0, resolution=5, source=server.url, chunks=None)
        section = array.isel(section=1)
        section.sel(i=slice(2000, 3000), r=slice(4000, 6000)).load()
        server.reset_log()
        section.sel(i=slice(2200, 2800), r=slice(4300, 5300)).load()
        assert server.image_requests == []


@pytest.mark.parametrize(
    ("flag", "sizes", "origin"),
    usual(
        product(["honoured", "inverted", "ignored"], ["tier", "full"], ["floor", "exact"]),
        [
            ("honoured", "tier", "floor"),
            ("inverted", "full", "exact"),
            ("ignored", "tier", "exact"),
        ],
    ),
)
def test_every_reading_of_the_doubts_gives_the_right_pixels(flag, sizes, origin):
    phantom = large(
        slides=True,
        resolution=2.0,
        image_size=(5301, 4103),
        brain=PhantomBrain("fine", fine_period=128.0),
    )
    doubts = Doubts(window_sizes=sizes, downsample_dimensions=flag, tier_origin=origin)
    with AllenServer([phantom], doubts=doubts) as server:
        for tier, resolution, extent in ((2, 7.0, 1500), (2, 7.0, 20_000), (3, 14.0, 20_000)):
            array = atldld.open_dataarray(
                11,
                tier=tier,
                resolution=resolution,
                interpolation="linear",
                chunks=None,
                source=server.url,
            )
            section = array.isel(section=1)
            image = phantom.image(int(section.image_id))
            _, i, r = phantom.pir(image["id"], image["width"] / 2, image["height"] / 2)
            part = section.sel(
                i=slice(float(i) - extent / 2, float(i) + extent / 2),
                r=slice(float(r) - extent / 2, float(r) + extent / 2),
            )
            assert part.atlas.plan()["whole"].iloc[-1] == (extent > 10_000)
            values = part.values
            px, py, _ = twins.pixels_of_grid(
                phantom.row, image, "coronal", part.i.values, part.r.values, "oblique"
            )
            step = 2**tier
            inside = twins.covered(image, px, py)
            inside &= (px < image["width"] - 2 * step) & (py < image["height"] - 2 * step)
            colour = twins.true_colour(phantom, image["id"], px, py)
            error = np.abs(values - colour)[inside]
            # Half a pixel of tier 2 would be ten levels of this texture in the median.
            assert np.median(error) <= 3
    origin = "slide" if origin == "floor" else "section"
    assert conventions.known(source_from(server.url)) == conventions.Conventions(
        True, origin, past_left=True, past_top=True
    )


def test_a_service_that_sends_windows_of_another_place_is_not_believed(monkeypatch):
    phantom = large()

    def section(server):
        array = atldld.open_dataarray(11, tier=0, resolution=5, chunks=None, source=server.url)
        return array.isel(section=1).sel(i=slice(2000, 3000), r=slice(4000, 6000))

    with AllenServer([phantom]) as server:
        expected = section(server).values
    place = image_service.Images.service

    def misplaced(self, parameters):
        region = place(self, parameters)
        if self.window(region) is None:
            return region
        return replace(region, left=0, top=0)

    monkeypatch.setattr(image_service.Images, "service", misplaced)
    # The next server may get the port of one whose windows were found to be right.
    monkeypatch.setattr(allen, "_remembered", {})
    with (
        AllenServer([phantom]) as server,
        pytest.warns(atldld.AtldldWarning, match="windows of another place"),
    ):
        values = section(server).values
    difference = np.abs(values.astype(int) - expected)
    assert np.percentile(difference, 99) <= 2


@pytest.mark.parametrize("both", [True, False])
def test_a_section_at_the_corner_of_its_slide_does_not_vouch_for_others(monkeypatch, both):
    """A service that counts windows from the section's corner is right about it alone."""
    alone = large()
    slides = phantom_dataset(
        dataset_id=12, sections=3, resolution=2.5, tier_count=8, brain=BRAIN, slides=True
    )

    def section(server, dataset_id, place):
        array = atldld.open_dataarray(
            dataset_id, tier=0, resolution=5, chunks=None, source=server.url
        )
        i, r = array.sizes["y"] // 2, array.sizes["x"] // 2
        return array.isel(section=place, y=slice(i - 99, i + 99), x=slice(r - 99, r + 99))

    with AllenServer([alone, slides]) as server:
        expected = [section(server, 12, place).values for place in range(3)]
        assert any(each.window for each in server.image_requests)
    place = image_service.Images.service

    def from_the_section(self, parameters):
        region = place(self, parameters)
        if self.window(region) is None:
            return region
        row = self.row(region.image_id)
        top = row["y"] + region.top if both else region.top
        return replace(region, left=row["x"] + region.left, top=top)

    monkeypatch.setattr(image_service.Images, "service", from_the_section)
    monkeypatch.setattr(allen, "_remembered", {})
    with AllenServer([alone, slides]) as server:
        section(server, 11, 1).load()
        assert conventions.known(source_from(server.url)).windows is True
        for place_of, values in enumerate(expected):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", atldld.AtldldWarning)
                difference = np.abs(section(server, 12, place_of).values.astype(int) - values)
            assert np.percentile(difference, 99) <= 2


def test_what_was_found_out_is_kept(tmp_path):
    phantom = large()
    with AllenServer([phantom]) as server:
        array = atldld.open_dataarray(11, tier=0, resolution=5, source=server.url, chunks=None)
        array.isel(section=1).sel(i=slice(2000, 2500), r=slice(4000, 5000)).load()
        tiers = [each.tier for each in server.image_requests]
        assert len(tiers) == 3
        assert tiers[0] == tiers[1] > 0
        server.reset_log()
        array.isel(section=2).sel(i=slice(2000, 2500), r=slice(4000, 5000)).load()
        assert [each.tier for each in server.image_requests] == [0]
