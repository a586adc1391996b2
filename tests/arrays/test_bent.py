"""Sections that VisuAlign bends: every pixel, its coverage and its reads, by plain arithmetic."""

import functools
import json

import numpy as np
import pytest
import xarray as xr
from scipy.spatial import Delaunay

import atldld
from atldld.testing import AllenServer, PhantomBrain, phantom_dataset

BRAIN = PhantomBrain(texture="fine", fine_period=1200)
PHANTOM = phantom_dataset(
    dataset_id=801,
    plane="coronal",
    tilt=3,
    sections=3,
    brain=BRAIN,
    resolution=20,
    seed=5,
    slides=True,
    tier_count=4,
)
TARGET = "ABA_Mouse_CCFv3_2017_25um.cutlas"
SIZE = (400, 300)
"""Width and height that the markers below count in."""

MEAN_OFF = {
    ("linear", 0): 0.8, ("cubic", 0): 0.9, ("area", 0): 1.2, ("nearest", 0): 1.6,
    ("linear", 2): 1.2, ("cubic", 2): 1.5, ("area", 2): 1.4, ("nearest", 2): 5.2,
}  # fmt: skip
"""Grey levels, by interpolation and tier: what JPEG and the wave between two pixels leave."""

MILD = [[120, 80, 131, 74], [260, 90, 251, 99], [200, 160, 214, 150], [150, 220, 141, 226]]
FOLDED = [[100, 150, 220, 150], [240, 150, 130, 150], [180, 60, 180, 66]]


def pulled(markers, x, y, size=SIZE):
    """Return the places that the anchoring means, by another triangulation."""
    (width, height), markers = size, np.array(markers, dtype=float)
    frame = [(a * width, b * height) for b in (-0.1, 1.1) for a in (-0.1, 1.1)]
    here = np.concatenate([frame, markers[:, 2:]])
    there = np.concatenate([frame, markers[:, :2]])
    mesh = Delaunay(here)
    places = np.stack([np.ravel(x), np.ravel(y)], axis=1).astype(float)
    simplex = mesh.find_simplex(places)
    assert (simplex >= 0).all()
    matrix = mesh.transform[simplex]
    shares = np.einsum("nij,nj->ni", matrix[:, :2], places - matrix[:, 2])
    weights = np.concatenate([shares, 1 - shares.sum(axis=1, keepdims=True)], axis=1)
    found = np.einsum("ni,nij->nj", weights, there[mesh.simplices[simplex]])
    return found[:, 0].reshape(np.shape(x)), found[:, 1].reshape(np.shape(y))


def picture(image):
    """Return the size of the picture that was registered: of no tier, nearly in proportion."""
    return 410, round(410 * image["height"] / image["width"])


def on(image, markers):
    """Return markers on the picture of an image."""
    return (np.array(markers) / np.tile(SIZE, 2) * np.tile(picture(image), 2)).tolist()


def content(markers):
    """Return a registration by the true places, whose pictures cover sections edge to edge."""
    slices = []
    for image in map(PHANTOM.image, PHANTOM.image_ids):
        corners = np.array(
            [[-0.5, -0.5], [image["width"] - 0.5, -0.5], [-0.5, image["height"] - 0.5]]
        )
        p, i, r = PHANTOM.pir(image["id"], corners[:, 0], corners[:, 1])
        o, u, v = np.stack([r / 25, 528 - p / 25, 320 - i / 25], axis=1)
        slices.append(
            {
                "filename": f"{image['id']}_s{image['section_number']}.jpg",
                "width": picture(image)[0],
                "height": picture(image)[1],
                "anchoring": [*o, *(u - o), *(v - o)],
                "markers": on(image, markers) if markers else [],
            }
        )
    return {"target": TARGET, "slices": slices}


@pytest.fixture(scope="module")
def server():
    with AllenServer([PHANTOM]) as running:
        yield running


@pytest.fixture
def opened(server, tmp_path, monkeypatch):
    with atldld.set_options(cache_dir=tmp_path / "cache"):

        def opened(markers=MILD, **options):
            options = {"resolution": 50, "source": server.url, **options}
            return atldld.open_dataset(801, registration=content(markers), **options)

        yield opened


@functools.cache
def truth(image_id, step):
    """Return the bent full-resolution pixel of every grid point of a section, by search.

    Forward through the triangles is what is tested; here the way back is inverted, step by step.
    """
    image = PHANTOM.image(image_id)
    i, r = np.meshgrid(
        np.arange(0, 8000 - step + 1, step), np.arange(0, 11400 - step + 1, step), indexing="ij"
    )
    matrices = _pixels(image, i, r)
    size, own = picture(image), on(image, MILD)
    scale = np.array([image["width"] / size[0], image["height"] / size[1]])
    straight = [(each + 0.5) / side for each, side in zip(matrices, scale, strict=True)]
    near = [(v > -0.05 * side) & (v < 1.05 * side) for v, side in zip(straight, size, strict=True)]
    near = near[0] & near[1]
    x, y = (each.copy() for each in straight)
    for _ in range(60):
        x, y = (np.clip(v, -0.09 * side, 1.09 * side) for v, side in zip((x, y), size, strict=True))
        step = [want - have for want, have in zip(straight, pulled(own, x, y, size), strict=True)]
        if max(np.abs(each[near]).max() for each in step) < 1e-9:
            break
        x, y = (each + 0.8 * by for each, by in zip((x, y), step, strict=True))
    return image, x * scale[0] - 0.5, y * scale[1] - 0.5


def _pixels(image, i, r):
    """Return the straight full-resolution pixels of places, by inverting the true places."""
    base = np.stack([np.ravel(PHANTOM.pir(image["id"], x, y)) for x, y in ((0, 0), (1, 0), (0, 1))])
    steps = (base[1:] - base[0])[:, 1:].T
    x, y = np.linalg.solve(steps, np.stack([np.ravel(i) - base[0, 1], np.ravel(r) - base[0, 2]]))
    return x.reshape(i.shape), y.reshape(i.shape)


@pytest.mark.parametrize("interpolation", ["linear", "area", "cubic", "nearest"])
@pytest.mark.parametrize("tier", [0, 2])
def test_every_pixel_shows_what_the_markers_pull_there(opened, interpolation, tier):
    dataset = opened(interpolation=interpolation, tier=tier, resolution=140)
    for place in (0, 2):
        image, x, y = truth(int(dataset.image_id[place]), 140)
        width, height = image["width"], image["height"]
        inward = np.minimum.reduce([x, y, width - 1 - x, height - 1 - y])
        inside = inward >= 0
        sure = np.abs(inward) > 1e-3
        np.testing.assert_array_equal(dataset.covered[place].values[sure], inside[sure])
        colour = BRAIN.colour(*PHANTOM.pir(image["id"], x[inside], y[inside]))
        off = np.abs(dataset.image[place].values[inside] - colour)
        off = off[inward[inside] > 2 ** (tier + 1)]
        # Half a full-resolution pixel is 10 microns and 2 grey levels on average.
        assert off.mean() <= MEAN_OFF[interpolation, tier]
        assert off.max() <= 8 or interpolation == "nearest"
        assert inside.mean() > 0.1


def test_fill_and_coverage_agree_to_the_point(opened):
    for markers in (MILD, FOLDED):
        dataset = opened(markers, fill_value=7)
        straight = atldld.open_dataset(801, resolution=50, source=dataset.source)
        assert (dataset.covered.values != straight.covered.values).any()
        masked = opened(markers, masked=True).image.isnull().all("channel")
        np.testing.assert_array_equal(masked.values, ~dataset.covered.values)
        outside = dataset.image.values[~dataset.covered.values]
        assert (outside == 7).all()


def test_one_value_to_the_bit_however_it_is_cut(opened):
    whole = opened(chunks=None, resolution=30).compute()
    for markers in (MILD,):
        cut = opened(markers, resolution=30, chunks={"section": 1, "y": 37, "x": 61})
        np.testing.assert_array_equal(cut.image.values, whole.image.values)
        np.testing.assert_array_equal(cut.covered.values, whole.covered.values)
        lazy = opened(markers, resolution=30, chunks=None)
        picked = {"y": [200, 31, 90, 32], "x": [300, 20, 180]}
        np.testing.assert_array_equal(
            lazy.image.isel(picked).values, whole.image.isel(picked).values
        )
        part = {"section": 1, "y": slice(100, 140), "x": slice(150, 190)}
        np.testing.assert_array_equal(lazy.image.isel(part).values, whole.image.isel(part).values)
        region = opened(markers, resolution=30, region={"i": (2000, 5000), "r": (3000, 7000)})
        np.testing.assert_array_equal(
            region.image.values, whole.image.sel(y=region.y, x=region.x).values
        )


def test_no_more_is_read_than_a_window_needs(tmp_path):
    phantom = phantom_dataset(
        dataset_id=801, plane="coronal", tilt=3, sections=3, brain=BRAIN, resolution=3, seed=5,
        slides=True, tier_count=6,
    )  # fmt: skip
    with AllenServer([phantom]) as server, atldld.set_options(cache_dir=tmp_path / "cache"):
        options = {"resolution": 6, "tier": 0, "source": server.url}
        slices = content(MILD)
        bent = atldld.open_dataarray(801, registration=slices, **options)
        straight = atldld.open_dataarray(801, **options)
        part = {"y": slice(600, 640), "x": slice(900, 950)}
        one, other = (array.isel(section=1, **part).atlas.plan() for array in (bent, straight))
        assert len(one) == len(other)
        assert not one.whole.iloc[-1]
        # The largest displacement is 19 of 300 pixels.
        image = phantom.image(int(bent.image_id[1]))
        reach = 19 / 300 * max(image["width"], image["height"])
        for side in ("width", "height"):
            assert one[side].iloc[-1] <= other[side].iloc[-1] + 2 * reach + 512
        section = bent.isel(section=1, **part).compute()
        assert section.sizes["y"] == 40


def test_what_the_tool_itself_makes_of_its_markers():
    """Numbers that PyNutil 0.6.2 (transform_vec) gives for a section of its own test file."""
    from atldld.model.bend import Markers

    markers = [
        [761.0429447852762, 629.2548298068077, 741, 500],
        [204.29447852760745, 613.6154553817848, 365.3374233128834, 612.695492180313],
        [482.6376861494953, 714.9876920193675, 623.0061349693251, 747.0101195952162],
        [434.00208292806684, 606.7676930120547, 578.8343558282207, 601.6559337626494],
        [959.8159509202455, 636.6145354185834, 980.0613496932516, 628.3348666053357],
        [957.8161415291836, 523.3987679117937, 953.3742331288344, 547.3781048758049],
    ]
    here = [(741, 500), (365, 612), (100, 900), (623, 700), (1400, 100), (900, 560)]
    there = [
        (761.0429, 629.2548), (204.1705, 612.9656), (31.6208, 897.2294),
        (493.614, 687.2489), (1403.4759, 112.6), (900.9302, 591.379),
    ]  # fmt: skip
    triangles = Markers(np.array(markers), (1500, 1000), np.array([[1.0, 1.0], [0, 0]])).load()
    x, y = np.array(here, dtype=float).T
    np.testing.assert_allclose(np.stack(triangles.to_straight(x, y), axis=1), there, atol=0.01)
    bent = triangles.to_bent(*np.array(there).T)
    np.testing.assert_allclose(np.stack(bent, axis=1), here, atol=0.01)


@pytest.mark.parametrize("seed", range(8))
def test_markers_pull_as_another_triangulation_says(seed):
    from atldld.model.bend import Markers

    random = np.random.default_rng(seed)
    count = int(random.integers(1, 40))
    here = random.random((count, 2)) * SIZE
    # From mild to folded over and over.
    markers = np.concatenate(
        [here + random.normal(size=(count, 2)) * (2 + 15 * seed), here], axis=1
    )
    triangles = Markers(markers, SIZE, np.array([[1.0, 1.0], [0, 0]])).load()
    x, y = (random.random((2, 2000)).T * SIZE).T
    np.testing.assert_allclose(triangles.to_straight(x, y), pulled(markers, x, y), atol=1e-6)
    # Whatever pixel a place shows, on the way back it lies at that place.
    again = triangles.to_straight(*triangles.to_bent(x, y))
    np.testing.assert_allclose(again, (x, y), atol=1e-6)


def test_markers_that_say_nothing_leave_the_section_as_it_is(opened):
    still = [[x, y, x, y] for x, y in ((50, 50), (50, 50), (300, 50), (50, 250), (9000, 9000))]
    there, plain = opened(still), opened([])
    np.testing.assert_array_equal(there.covered.values, plain.covered.values)
    off = np.abs(there.image.values.astype(int) - plain.image.values)
    assert off.max() <= 1
    assert json.dumps(there.attrs)


def test_structures_of_ccfv3_are_looked_up_without_a_warning(opened):
    axes = {axis: np.arange(200, length, 400.0) for axis, length in
            zip("pir", (13200, 8000, 11400), strict=True)}  # fmt: skip
    labels = np.random.default_rng(2).integers(1, 5, [len(each) for each in axes.values()])
    annotation = xr.DataArray(
        labels.astype(np.uint32), axes, ("p", "i", "r"), attrs={"reference_space": "CCFv3"}
    )
    dataset = opened(resolution=200, masked=True)
    table = atldld.structure_table(dataset.image.isel(channel=0), annotation)
    assert len(table) == 4
    places = dataset.image.atlas.pir().isel(section=1, y=15, x=25).compute()
    with_structures = opened(resolution=200, annotation=annotation).structure_id
    there = [float(places[axis]) for axis in "pir"]
    cell = annotation.sel(dict(zip("pir", there, strict=True)), method="nearest")
    assert int(with_structures.isel(section=1, y=15, x=25)) == int(cell)
    with pytest.warns(atldld.errors.AtldldWarning, match="different atlases"):
        atldld.structure_table(
            dataset.image.isel(channel=0), annotation.assign_attrs(reference_space=9)
        )
