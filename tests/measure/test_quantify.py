"""Measures from pixels: exact counts against a slow loop, known answers, ratios of sums."""

import math

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import atldld
from atldld import MixError
from atldld.errors import ImageError, RegistrationError
from atldld.measure.cells import Block, dense_sums, sums_of_pixels
from atldld.testing import (
    AllenServer,
    Fault,
    PhantomBrain,
    load_recorded,
    oracle,
    phantom_dataset,
)
from usual import usual

SHAPE_AT_200 = (67, 41, 58)
EXTENT = (13200, 8000, 11400)


class Blobs(PhantomBrain):
    """A brain that expresses at one level inside of some balls, and not at all elsewhere."""

    BALLS = (
        (6000, 3500, 4000, 1500, 200),
        (7500, 4500, 7200, 1100, 90),
        (4000, 4000, 3000, 900, 140),
    )

    def expression(self, p, i, r):
        p, i, r = np.broadcast_arrays(*(np.asarray(each, float) for each in (p, i, r)))
        level = np.zeros(p.shape)
        for at_p, at_i, at_r, radius, height in self.BALLS:
            inside = (p - at_p) ** 2 + (i - at_i) ** 2 + (r - at_r) ** 2 < radius**2
            level[inside] = height
        return level

    @property
    def lattice(self):
        return 0.1  # a step is not to be smoothed


CORONAL = phantom_dataset(
    71, sections=5, resolution=30, tilt=4, slides=True, tier_count=4, brain=Blobs(), seed=1
)
SAGITTAL = phantom_dataset(
    72, plane="sagittal", sections=4, resolution=30, tilt=8, tier_count=4, brain=Blobs(), seed=2
)
FINE = phantom_dataset(73, sections=3, resolution=5, tilt=3, tier_count=5, brain=Blobs(), seed=3)
PHANTOMS = {"coronal": CORONAL, "sagittal": SAGITTAL, "fine": FINE}


@pytest.fixture(scope="module")
def server():
    with AllenServer(list(PHANTOMS.values())) as running:
        yield running


def twin(phantom, levels, step, space, shape, region=None):
    """Add up pixel by pixel: counts of all, counts of those that express, and their sum."""
    region = region or {}
    pixels, expressing = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    total = np.zeros(shape)
    for image_id in phantom.image_ids:
        image, grey = phantom.image(image_id), levels[image_id]
        x, y = np.meshgrid(np.arange(image["width"]), np.arange(image["height"]))
        p, i, r = oracle.image_to_reference(phantom.row, image, x, y)
        r = oracle.to_space(r, phantom.row["reference_space_id"], space)
        for row in range(grey.shape[0]):
            for column in range(grey.shape[1]):
                cell = tuple(
                    math.floor(float(place[row, column]) / step + 0.5) for place in (p, i, r)
                )
                if not all(0 <= number < count for number, count in zip(cell, shape, strict=True)):
                    continue
                if not all(
                    low <= {"p": p, "i": i, "r": r}[axis][row, column] <= high
                    for axis, (low, high) in region.items()
                ):
                    continue
                pixels[cell] += 1
                value = float(grey[row, column])
                if value >= 32:
                    expressing[cell] += 1
                    total[cell] += value
    return pixels, expressing, total


@pytest.mark.parametrize(
    ("name", "space"),
    usual([("coronal", 9), ("sagittal", 10), ("coronal", 10), ("sagittal", 9)], 2),
)
def test_counts_equal_a_slow_loop(server, name, space):
    phantom = PHANTOMS[name]
    levels = {
        image: atldld.open_image(image, view="expression_mask", source=server.url).values
        for image in phantom.image_ids
    }
    found = atldld.quantify(phantom.id, reference_space=space, source=server.url)
    assert found.n_pixels.chunks is not None
    found = found.compute()
    assert tuple(found.sizes.values()) == SHAPE_AT_200
    assert found.p.values[-1] == 13200.0
    pixels, expressing, total = twin(phantom, levels, 200.0, space, SHAPE_AT_200)
    assert np.array_equal(found.n_pixels, pixels)
    assert np.array_equal(found.n_expressing, expressing)
    assert np.array_equal(found.sum_intensity, total)
    assert expressing.sum() > 1000
    with np.errstate(invalid="ignore", divide="ignore"):
        np.testing.assert_array_equal(found.density, expressing / pixels)
        np.testing.assert_array_equal(found.intensity, total / expressing)
        np.testing.assert_array_equal(found.energy, total / pixels)
    both = found.density * found.intensity
    there = found.n_expressing > 0
    assert np.allclose(both.where(there), found.energy.where(there), rtol=1e-14, equal_nan=True)
    assert (found.energy.where(~there & (found.n_pixels > 0)).fillna(0) == 0).all()


REGIONS = [
    {"i": (3010, 3020)},
    {"p": (3000, 9000), "i": (2950, 4170), "r": (4100, 8210)},
    {"p": (-500, 7333.3), "r": (5000, 20000)},
]


@pytest.mark.parametrize("name", usual(["sagittal", "coronal"]))
@pytest.mark.parametrize("region", REGIONS)
def test_a_region_counts_exactly_the_pixels_that_lie_in_it(server, name, region):
    phantom = PHANTOMS[name]
    levels = {
        image: atldld.open_image(image, view="expression_mask", source=server.url).values
        for image in phantom.image_ids
    }
    found = atldld.quantify(phantom.id, region=region, reference_space=9, source=server.url)
    found = found.compute()
    truth = twin(phantom, levels, 200.0, 9, SHAPE_AT_200, region)
    assert truth[0].sum() > 50
    for number, variable in enumerate(("n_pixels", "n_expressing", "sum_intensity")):
        # Nodes outside of the region are left out, and held nothing.
        assert truth[number].sum() == float(found[variable].sum())
        box = tuple((found[axis].values / 200).astype(int) for axis in "pir")
        assert np.array_equal(found[variable], truth[number][np.ix_(*box)])
    for axis, (low, high) in region.items():
        assert found[axis].values[0] - 100 <= max(low, -100) < found[axis].values[0] + 100
        last = found[axis].values[-1]
        assert last - 100 <= min(high, {"p": 13200, "i": 8000, "r": 11400}[axis]) < last + 100
    assert f"{next(iter(region))} " in found.attrs["region"]


def test_cells_at_the_border_of_a_region_are_partial(server):
    whole = atldld.quantify(FINE.id, source=server.url).compute()
    region = {"i": (3000, 4000), "r": (2000, 4100)}
    part = atldld.quantify(FINE.id, region=region, source=server.url).compute()
    assert part.i.values.tolist() == [3000, 3200, 3400, 3600, 3800, 4000]
    inner = {"i": slice(3200, 3800), "r": slice(2200, 4000)}
    xr.testing.assert_equal(part.sel(inner), whole.sel(inner))
    there = whole.n_pixels.sel(i=3000, r=slice(2200, 4000)) > 0
    share = part.n_pixels.sel(i=3000, r=slice(2200, 4000)) / whole.n_pixels.sel(
        i=3000, r=slice(2200, 4000)
    ).where(there)
    assert int(there.sum()) > 5
    assert 0.3 < float(share.min()) <= float(share.max()) < 0.7
    faces = atldld.quantify(FINE.id, region={"i": (2900, 4100)}, source=server.url).compute()
    # Both ends count, so that the cell above begins: with pixels at 4100 alone, here none.
    xr.testing.assert_equal(faces.sel(i=slice(3000, 4000)), whole.sel(i=slice(3000, 4000)))
    assert int(faces.n_pixels.sel(i=4200).sum()) == 0


@pytest.mark.parametrize("ends", [(-900, -200), (30000, 40000)])
def test_a_region_beyond_every_cell_is_refused(server, ends):
    with pytest.raises(ValueError, match="holds no cell; they reach from -100 to"):
        atldld.quantify(FINE.id, region={"i": ends}, source=server.url)


@pytest.fixture(scope="module")
def known():
    """Return the true measures of the fine phantom on 400 micron cells, without any JPEG."""
    shape = tuple(math.floor(each / 400 + 0.5) + 1 for each in EXTENT)
    sums = np.zeros((3, *shape))
    for image_id in FINE.image_ids:
        image = FINE.image(image_id)
        x, y = np.arange(image["width"])[None, :], np.arange(image["height"])[:, None]
        p, i, r = FINE.pir(image_id, x, y)
        level = FINE.brain.expression(p, i, r)
        cells = tuple(np.floor(each / 400 + 0.5).astype(int).ravel() for each in (p, i, r))
        keep = np.all([(c >= 0) & (c < n) for c, n in zip(cells, shape, strict=True)], axis=0)
        cells = tuple(each[keep] for each in cells)
        level = level.ravel()[keep]
        np.add.at(sums[0], cells, 1)
        np.add.at(sums[1], cells, level > 0)
        np.add.at(sums[2], cells, level)
    return sums


def test_known_answers_through_jpeg(server, known):
    pixels, expressing, total = known
    found = atldld.quantify(FINE.id, resolution=400, source=server.url).compute()
    assert np.array_equal(found.n_pixels, pixels)
    # Cells with enough of the tissue that one per cent of it is many pixels.
    enough = expressing > 1000
    assert enough.sum() > 50
    for name, truth in (
        ("density", expressing[enough] / pixels[enough]),
        ("intensity", total[enough] / expressing[enough]),
        ("energy", total[enough] / pixels[enough]),
    ):
        assert np.abs(found[name].values[enough] / truth - 1).max() < 0.01
    whole = atldld.aggregate(found, ["p", "i", "r"])
    assert abs(float(whole.density) / (expressing.sum() / pixels.sum()) - 1) < 0.003
    assert abs(float(whole.energy) / (total.sum() / pixels.sum()) - 1) < 0.003


@pytest.mark.parametrize("tier", [1, 2])
def test_energy_at_coarser_tiers(server, known, tier):
    pixels, _, total = known
    found = atldld.quantify(FINE.id, resolution=400, tier=tier, source=server.url).compute()
    assert list(found) == ["n_pixels", "sum_intensity", "energy"]
    whole = atldld.aggregate(found, ["p", "i", "r"])
    assert abs(float(whole.energy) / (total.sum() / pixels.sum()) - 1) < 0.01
    coarse = atldld.aggregate(found, coarsen={"p": 33, "i": 4, "r": 4})
    truth = xr.Dataset({"n_pixels": (("p", "i", "r"), pixels), "sum_intensity":
                        (("p", "i", "r"), total), "energy": (("p", "i", "r"), total)})  # fmt: skip
    truth = atldld.aggregate(truth, coarsen={"p": 33, "i": 4, "r": 4})
    large = truth.sum_intensity.values > 0.02 * total.sum()
    assert large.sum() > 5
    assert np.abs(coarse.energy.values[large] / truth.energy.values[large] - 1).max() < 0.03


def test_density_at_a_coarser_tier_is_refused(server):
    server.reset_log()
    for measures in (["density"], ["energy", "intensity"], "density"):
        with pytest.raises(ValueError, match="cannot be measured at tier 2"):
            atldld.quantify(CORONAL.id, tier=2, measures=measures, source=server.url)
    assert server.requests == []
    found = atldld.quantify(CORONAL.id, tier=2, measures=["energy"], source=server.url)
    assert "density" not in found


class TestReads:
    def test_each_window_once_and_only_those_needed(self, tmp_path):
        phantom = phantom_dataset(
            74,
            sections=2,
            resolution=3.1,
            image_size=(3401, 2903),
            brain=PhantomBrain(texture="smooth"),
            seed=5,
        )
        with AllenServer([phantom]) as server, atldld.set_options(cache_dir=tmp_path):
            found = atldld.quantify(74, source=server.url)
            assert server.image_requests == []
            plan = found.atlas.plan()
            assert len(plan) >= 2 * 4
            found.isel(p=slice(0, 8)).compute()
            some = len(server.image_requests)
            assert some < len(plan)
            found.compute()
            asked = [(each.image_id, each.tier, each.window) for each in server.image_requests]
            assert len(asked) == len(set(asked)) == len(plan)
            table = found.atlas.prefetch()
            assert (table["error"] == "").all()
            assert len(server.image_requests) == len(asked)

    def test_blocks_do_not_matter(self, server, monkeypatch):
        from atldld.arrays import image
        from atldld.measure import quantify as quantify_graph

        whole = atldld.quantify(FINE.id, source=server.url).compute()
        monkeypatch.setattr(image, "CHUNK", 768)
        monkeypatch.setattr(quantify_graph, "_WHOLE_IMAGE", 0)
        cut = atldld.quantify(FINE.id, chunks={"i": 7, "r": -1}, source=server.url)
        assert cut.n_pixels.chunks[1] == (7,) * 5 + (6,)
        xr.testing.assert_equal(cut.compute(), whole)

    def test_a_region_reads_no_more_than_it_needs(self, server):
        region = {"p": (3000, 9000), "i": (3050, 3950), "r": (2000, 4100)}
        part = atldld.quantify(FINE.id, region=region, source=server.url)
        whole = atldld.quantify(FINE.id, source=server.url)
        some, all_of_it = (
            (each.atlas.plan()["width"] * each.atlas.plan()["height"]).sum()
            for each in (part, whole)
        )
        assert 0 < some < all_of_it / 5

    def test_sections(self, server):
        numbers = [image["section_number"] for image in FINE.row["section_images"]]
        parts = [
            atldld.quantify(FINE.id, sections=[number], source=server.url).compute()
            for number in numbers
        ]
        whole = atldld.quantify(FINE.id, source=server.url).compute()
        assert (sum(part.n_expressing for part in parts) == whole.n_expressing).all()
        with pytest.raises(ValueError, match="no sections -3"):
            atldld.quantify(FINE.id, sections=[-3], source=server.url)


def dark(pixels):
    return pixels.mean(axis=-1) < 130


def darkness(pixels):
    return 255.0 - pixels.mean(axis=-1)


def test_functions_of_pixels(server):
    found = atldld.quantify(SAGITTAL.id, function=dark, source=server.url).compute()
    count = all_pixels = level = 0
    for image in SAGITTAL.image_ids:
        pixels = atldld.open_image(image, source=server.url).values
        count, all_pixels = count + dark(pixels).sum(), all_pixels + pixels[..., 0].size
        level += darkness(pixels).sum()
    assert int(found.n_expressing.sum()) == count > 100
    assert float(found.sum_intensity.sum()) == count
    assert found.attrs["function"] == "dark"
    assert (found.intensity.where(found.n_expressing > 0).fillna(1) == 1).all()
    assert int(found.n_pixels.sum()) <= all_pixels
    found = atldld.quantify(SAGITTAL.id, function=darkness, tier=0, source=server.url).compute()
    assert abs(float(found.sum_intensity.sum()) / level - 1) < 0.01
    for function, error, match in (
        (lambda pixels: pixels, ValueError, "one value a pixel"),
        (lambda pixels: pixels.mean(axis=-1).astype(str), TypeError, "truth values or numbers"),
    ):
        with pytest.raises(error, match=match):
            atldld.quantify(SAGITTAL.id, function=function, source=server.url).compute()


def test_sections_without_a_mask():
    told = CORONAL.altered(lambda row: row["section_images"][1].update(expression_path=None))
    none = CORONAL.altered(
        lambda row: [each.update(expression_path=None) for each in row["section_images"]]
    )
    with AllenServer([told]) as server:
        with pytest.warns(atldld.AtldldWarning, match="left out"):
            part = atldld.quantify(71, source=server.url).compute()
        assert int(part.n_pixels.sum()) > 0
    with AllenServer([none]) as server:
        with pytest.raises(RegistrationError, match="function="):
            atldld.quantify(71, source=server.url)
        atldld.quantify(71, function=dark, source=server.url)


def test_pixels_that_cannot_be_had(tmp_path):
    lost = SAGITTAL.image_ids[1]
    with AllenServer([SAGITTAL]) as server, atldld.set_options(retries=0, cache_dir=tmp_path):
        server.add_fault(Fault("404", image_ids=(lost,)))
        with pytest.raises(ImageError, match=str(lost)):
            atldld.quantify(72, source=server.url).compute()
        lazy = atldld.quantify(72, on_error="fill", source=server.url)
        with pytest.warns(atldld.AtldldWarning, match="filled"):
            found = lazy.compute()
        assert lazy.atlas.failures()["image_id"].tolist() == [lost]
        assert found.atlas.failures()["image_id"].tolist() == [lost]
        numbers = {row["id"]: row["section_number"] for row in SAGITTAL.row["section_images"]}
        rest = [number for image, number in numbers.items() if image != lost]
        others = atldld.quantify(72, sections=rest, source=server.url).compute()
    xr.testing.assert_equal(found, others)


def test_what_it_may_be_combined_with(server):
    nine = atldld.quantify(CORONAL.id, source=server.url)
    ten = atldld.quantify(SAGITTAL.id, source=server.url)
    with pytest.raises(MixError, match="volumes in"):
        _ = nine.energy - ten.energy
    same = atldld.quantify(SAGITTAL.id, reference_space=9, source=server.url)
    difference = (nine.energy - same.energy).compute()
    assert difference.shape == SHAPE_AT_200
    volume = atldld.open_volume(CORONAL.id, resolution=200, source=server.url)
    assert volume.reference_space.attrs["frame"] == nine.reference_space.attrs["frame"]
    assert nine.attrs["threshold"] == 32
    for variable in (nine, nine.energy):
        assert all(isinstance(value, int | float | str) for value in variable.attrs.values())


def test_ratios_of_sums(server):
    found = atldld.quantify(CORONAL.id, source=server.url).compute()
    coarse = atldld.aggregate(found, coarsen={"p": 2, "i": 5, "r": 3})
    assert coarse.sizes == {"p": 34, "i": 9, "r": 20}
    assert coarse.n_pixels.dtype == np.int64
    assert int(coarse.n_pixels.sum()) == int(found.n_pixels.sum())
    half = np.nanargmin(np.abs(coarse.density.values - 0.5))
    most = np.unravel_index(half, coarse.n_pixels.shape)
    at = {axis: int(number) for axis, number in zip("pir", most, strict=True)}
    sizes = {"p": 2, "i": 5, "r": 3}
    block = found.isel({axis: slice(at[axis] * n, at[axis] * n + n) for axis, n in sizes.items()})
    one = coarse.isel(at)
    assert 0 < float(one.density) < 1
    assert float(one.density) == float(block.n_expressing.sum() / block.n_pixels.sum())
    assert float(one.intensity) == float(block.sum_intensity.sum() / block.n_expressing.sum())
    assert coarse.p.values[:2].tolist() == [100.0, 500.0]
    line = atldld.aggregate(found, dim="r")
    assert line.energy.dims == ("p", "i")
    with pytest.raises(ValueError, match="no sums"):
        atldld.aggregate(found[["energy"]], dim="r")


def test_structures_by_ratios_of_sums(server):
    found = atldld.quantify(CORONAL.id, source=server.url)
    ids = np.ones(SHAPE_AT_200, dtype=np.int64)
    ids[:, :20] = 2
    ids[30:] += 10
    nodes = {
        axis: np.arange(count) * 200.0 for axis, count in zip("pir", SHAPE_AT_200, strict=True)
    }
    annotation = xr.DataArray(ids, nodes, attrs={"reference_space": 9})
    server.reset_log()
    table = atldld.structure_measures(found, annotation)
    known = found.compute()
    for structure in (1, 2, 11, 12):
        part = known.where(annotation == structure)
        row = table.loc[structure]
        assert row.n_pixels == int(part.n_pixels.sum())
        assert row.energy == float(part.sum_intensity.sum() / part.n_pixels.sum())
        assert row.density == float(part.n_expressing.sum() / part.n_pixels.sum())
    assert table.attrs["dataset_id"] == 71


def test_several_datasets_over_the_same_cells(server, tmp_path):
    ids = [CORONAL.id, SAGITTAL.id]
    with pytest.raises(ValueError, match=r"several spaces .*pass reference_space=9"):
        atldld.quantify(ids, source=server.url)
    server.reset_log()
    for wrong in ([], [71, 71], ["71"]):
        with pytest.raises((ValueError, TypeError)):
            atldld.quantify(wrong, source=server.url)
    assert server.requests == []
    both = atldld.quantify(ids, reference_space=9, source=server.url)
    assert both.energy.dims == ("dataset", "p", "i", "r")
    assert both.plane.values.tolist() == ["coronal", "sagittal"]
    assert "gene" not in both.attrs
    assert len(both.atlas.plan()) == len(CORONAL.image_ids) + len(SAGITTAL.image_ids)
    both = both.compute()
    for number in ids:
        alone = atldld.quantify(number, reference_space=9, source=server.url).compute()
        for name, variable in alone.data_vars.items():
            np.testing.assert_array_equal(both[name].sel(dataset=number), variable)
    mean = atldld.aggregate(both, dim=["dataset", "p", "i", "r"])
    assert float(mean.energy) == float(both.sum_intensity.sum() / both.n_pixels.sum())
    nine = atldld.open_volume(CORONAL.id, resolution=200, source=server.url)
    assert both.reference_space.attrs["frame"] == nine.reference_space.attrs["frame"]
    lost = SAGITTAL.image_ids[1]
    with (
        AllenServer([CORONAL, SAGITTAL], faults=[Fault("404", image_ids=(lost,))]) as own,
        atldld.set_options(retries=0, cache_dir=tmp_path),
    ):
        lazy = atldld.quantify(ids, reference_space=9, on_error="fill", source=own.url)
        with pytest.warns(atldld.AtldldWarning, match="filled"):
            filled = lazy.compute()
        assert filled.atlas.failures()["image_id"].tolist() == [lost]


@pytest.mark.exhaustive
def test_in_other_processes(server):
    lazy = atldld.quantify(
        SAGITTAL.id, function=lambda pixels: pixels.mean(axis=-1) < 130, source=server.url
    )
    xr.testing.assert_identical(lazy.compute(scheduler="processes", num_workers=2), lazy.compute())


def test_pixels_of_one_image_by_structure(server):
    ids = np.ones(SHAPE_AT_200, dtype=np.int64)
    ids[:, :20] = 2
    nodes = {
        axis: np.arange(count) * 200.0 for axis, count in zip("pir", SHAPE_AT_200, strict=True)
    }
    annotation = xr.DataArray(ids, nodes, attrs={"reference_space": 9})
    number = CORONAL.row["section_images"][2]["section_number"]
    image = CORONAL.image_ids[2]
    grey = atldld.open_image(image, view="expression_mask", source=server.url)
    table = atldld.structure_table(grey.where(grey >= 32, 0).astype(float), annotation)
    measured = atldld.quantify(CORONAL.id, sections=[number], source=server.url)
    cells = atldld.structure_measures(measured, annotation)
    assert table["count"].tolist() == cells["n_pixels"].tolist()
    assert table["sum"].tolist() == cells["sum_intensity"].tolist()


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_block_on_any_cells(data):
    number = st.floats(-3.0, 3.0)
    affine = np.array(data.draw(st.lists(number, min_size=9, max_size=9))).reshape(3, 3)
    step = data.draw(st.sampled_from([0.3, 2.0, 5.5]))
    width, height = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40))
    block = Block(affine, -3.0, 5.0, data.draw(st.sampled_from([1, 4])), width, height)
    ends = tuple((low, low + data.draw(st.integers(1, 30))) for low in (-10, 0, -4))
    rng = np.random.default_rng(7)
    pixels = rng.integers(0, 256, (height, width), dtype=np.uint8)
    bounds = tuple(
        data.draw(st.sampled_from([(-math.inf, math.inf), (at, math.inf), (-math.inf, at)]))
        for at in affine @ [-3.0, 5.0, 1.0]
    )
    sums = sums_of_pixels(pixels, block, ends, step, 100, None, bounds)
    found = dense_sums([sums], ends)
    shape = tuple(past - low for low, past in ends)
    expected = [np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64), np.zeros(shape)]
    for row in range(height):
        for column in range(width):
            x, y = -3.0 + block.step * column, 5.0 + block.step * row
            place = [a * x + b * y + c for a, b, c in affine]
            cell = [
                math.floor(each / step + 0.5) - low
                for each, (low, _) in zip(place, ends, strict=True)
            ]
            within = all(
                least <= each <= most for each, (least, most) in zip(place, bounds, strict=True)
            )
            if within and all(0 <= each < count for each, count in zip(cell, shape, strict=True)):
                value = int(pixels[row, column])
                for total, more in zip(
                    expected, (1, value >= 100, value * (value >= 100)), strict=True
                ):
                    total[tuple(cell)] += more
    for mine, truth in zip(found, expected, strict=True):
        assert np.array_equal(mine, truth)


def test_cells_finer_than_pixels_take_no_memory(monkeypatch):
    from atldld.measure import cells

    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (50, 60), dtype=np.uint8)
    affine = np.array([[1.1, 0.2, 40.0], [-0.2, 1.1, 60.0], [0.1, 0.05, 9.0]])
    block = Block(affine, 0.0, 0.0, 1, 60, 50)
    ends = ((0, 300), (0, 300), (0, 40))
    dense = dense_sums([sums_of_pixels(pixels, block, ends, 1.5, 32, None)], ends)
    monkeypatch.setattr(cells, "_MOST_BINS", 10)
    monkeypatch.setattr(cells, "_PIXELS_AT_ONCE", 500)
    sparse = dense_sums([sums_of_pixels(pixels, block, ends, 1.5, 32, None)], ends)
    for one, other in zip(dense, sparse, strict=True):
        assert np.array_equal(one, other)
        assert one.sum() > 0


@pytest.mark.parametrize(
    ("options", "error", "match"),
    [
        ({"threshold": 300}, ValueError, "0 to 255"),
        ({"threshold": "32"}, TypeError, "grey level"),
        ({"threshold": 40, "function": dark}, ValueError, "decides by itself"),
        ({"function": 3}, TypeError, "function of pixels"),
        ({"view": "image"}, ValueError, "needs a function"),
        ({"measures": ["entropy"]}, ValueError, "one of"),
        ({"resolution": 0}, ValueError, "above 0"),
        ({"chunks": {"x": 3}}, ValueError, "a dict of p, i and r"),
        ({"region": {"x": (0, 3)}}, ValueError, "its axes are"),
    ],
)
def test_bad_options(server, options, error, match):
    server.reset_log()
    with pytest.raises(error, match=match):
        atldld.quantify(CORONAL.id, source=server.url, **options)
    assert server.requests == []


def test_a_space_whose_extent_is_not_known():
    told = CORONAL.altered(lambda row: row.update(reference_space_id=3))
    with AllenServer([told]) as server:
        found = atldld.quantify(71, resolution=300, source=server.url).compute()
        native = atldld.quantify(71, resolution=300, source=server.url)
    assert int(found.n_pixels.sum()) == sum(
        image["width"] * image["height"] for image in CORONAL.row["section_images"]
    )
    assert native.reference_space.attrs["frame"] == "volumes in reference space 3"


def test_the_recorded_section_agrees_with_allens_own_energy(real):
    # Where the one recorded section lies, the share of dark pixels follows Allen's energy; in
    # the slices beside it, and mirrored along p, less or not at all.
    with AllenServer([load_recorded(real / "69289763")]) as server:
        found = atldld.quantify(
            69289763, function=dark, tier=2, sections=[70], source=server.url
        ).compute()
        allens = atldld.open_grid(real / "69289763" / "energy.mhd", native_space=10)
        nearest = atldld.open_volume(69289763, resolution=200, like=allens, source=server.url)
        shown = (nearest.section_number == 70).compute()
    assert found.attrs["reference_space"] == 10
    cells = found.energy.where(found.n_pixels > 200)
    here = shown & cells.notnull() & allens.energy.notnull()
    assert 2000 < int(here.sum()) < 2100

    def agreement(energy):
        both = here & energy.notnull()
        return float(np.corrcoef(cells.values[both.values], energy.values[both.values])[0, 1])

    inside = agreement(allens.energy)
    assert 0.72 < inside < 0.75
    assert agreement(allens.energy.shift(r=1)) < inside - 0.05
    assert agreement(allens.energy.shift(r=-1)) < inside - 0.02
    mirrored = allens.energy.copy(data=allens.energy.values[::-1])
    assert agreement(mirrored) < 0.15
