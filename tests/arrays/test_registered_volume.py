"""Volumes of sections that a registration places one by one, against plain arithmetic."""

import numpy as np
import pytest
import xarray as xr

import atldld
from atldld.testing import AllenServer, PhantomBrain, phantom_dataset

BRAIN = PhantomBrain(texture="smooth")
PHANTOM = phantom_dataset(
    dataset_id=811, plane="coronal", tilt=2, sections=6, brain=BRAIN, resolution=40, seed=3,
    tier_count=3,
)  # fmt: skip
TARGET = "ABA_Mouse_CCFv3_2017_25um.cutlas"
STEP = 400


def planes():
    """Return for each section where it lies: p = a + b (r - 5700) / 5700 + c (i - 4000) / 4000.

    Sections 2 and 3 cross within the brain.
    """
    tilts = {2: (700.0, 100.0), 3: (-700.0, -150.0)}
    return [
        (12000.0 - 2000.0 * n + (500 if n == 3 else 0), *tilts.get(n, (30.0 * n, 20.0)))
        for n in range(6)
    ]


def content(markers=()):
    slices = []
    for (a, b, c), image in zip(planes(), map(PHANTOM.image, PHANTOM.image_ids), strict=True):
        # The picture spans all of CCFv3 along i and r.
        o = np.array([0.0, 528 - (a - b - c) / 25, 320.0])
        u, v = np.array([456.0, -2 * b / 25, 0.0]), np.array([0.0, -2 * c / 25, -320.0])
        slices.append(
            {
                "filename": f"{image['id']}.jpg",
                "width": image["width"] * 2,
                "height": image["height"] * 2,
                "anchoring": [*o, *u, *v],
                "markers": [
                    [
                        x * image["width"] * 2,
                        y * image["height"] * 2,
                        p * image["width"] * 2,
                        q * image["height"] * 2,
                    ]
                    for x, y, p, q in markers
                ],
            }
        )
    return {"target": TARGET, "slices": slices}


MARKERS = [(0.4, 0.4, 0.44, 0.38), (0.6, 0.6, 0.57, 0.65)]


@pytest.fixture(scope="module")
def server():
    with AllenServer([PHANTOM]) as running:
        yield running


@pytest.fixture
def opened(server, tmp_path):
    with atldld.set_options(cache_dir=tmp_path / "cache"):

        def opened(markers=(), **options):
            options = {"resolution": STEP, "source": server.url, "tier": 0, **options}
            return atldld.open_volume(811, registration=content(markers), **options)

        yield opened


def expected(reach):
    """Return section number and distance of each voxel, by trying every section."""
    p, i, r = np.meshgrid(
        *(np.arange(0, length - STEP + 1, STEP) for length in (13200, 8000, 11400)), indexing="ij"
    )
    heights = np.stack([a + b * (r - 5700) / 5700 + c * (i - 4000) / 4000 for a, b, c in planes()])
    off = p - heights
    numbers = [PHANTOM.image(image)["section_number"] for image in PHANTOM.image_ids]
    nearest = np.argmin(np.abs(off), axis=0)
    distance = np.take_along_axis(off, nearest[None], axis=0)[0]
    return np.array(numbers)[nearest], np.where(np.abs(distance) <= reach, distance, np.nan)


@pytest.mark.parametrize("reach", [None, 300, 5000])
def test_a_voxel_shows_the_section_nearest_along_the_slicing_axis(opened, reach):
    volume = opened(max_distance=reach)
    assert volume.reference_space.item() == "CCFv3"
    number, distance = expected(1000 if reach is None else reach)
    shown = volume.section_number.values >= 0
    # The pictures span the space: what is near enough is covered, but for the last half pixel.
    inner = np.zeros_like(shown)
    inner[:, 1:-1, 1:-1] = True
    np.testing.assert_array_equal(shown[inner], np.isfinite(distance)[inner])
    np.testing.assert_array_equal(volume.section_number.values[shown], number[shown])
    np.testing.assert_allclose(volume.distance.values[shown], distance[shown], atol=1e-6)
    assert np.isnan(volume.distance.values[~shown]).all()
    if reach == 5000:
        # Where sections 2 and 3 cross, the order of what is shown turns round.
        numbers = [PHANTOM.image(PHANTOM.image_ids[n])["section_number"] for n in (2, 3)]
        left, right = (volume.section_number.isel(i=10, r=r).values for r in (1, -2))
        assert [n for n in left if n in numbers] != [n for n in right if n in numbers]


@pytest.mark.parametrize("markers", [(), MARKERS])
@pytest.mark.parametrize("interpolation", ["linear", "auto"])
def test_its_pixels_are_those_of_the_sections(opened, server, markers, interpolation):
    volume = opened(markers, interpolation=interpolation)
    sections = atldld.open_dataset(
        811, registration=content(markers), resolution=STEP, source=server.url, tier=0,
        interpolation=interpolation,
    ).compute()  # fmt: skip
    image, number = volume.image.values, volume.section_number.values
    for place, section in enumerate(sections.section.values):
        p, i, r = np.nonzero(number == section)
        assert len(p)
        assert sections.covered.values[place, i, r].all()
        np.testing.assert_array_equal(image[p, i, r], sections.image.values[place, i, r])
    assert (image[number < 0] == volume.image.attrs["value_where_not_covered"]).all()


def test_one_value_however_it_is_cut(opened):
    for between in ("nearest", "linear"):
        whole = opened(MARKERS, between=between, chunks=None, masked=True).compute()
        cut = opened(MARKERS, between=between, chunks={"p": 5, "i": 7, "r": 9}, masked=True)
        xr.testing.assert_identical(cut.image.compute(), whole.image)
        xr.testing.assert_identical(cut.section_number.compute(), whole.section_number)
        lacking = whole.image.isnull().all("channel")
        np.testing.assert_array_equal(lacking.values, whole.section_number.values < 0)


def test_between_sections_voxels_are_blended_and_beyond_nothing_is_made_up(opened, server):
    volume = opened(between="linear", masked=True, max_distance=5000).compute()
    sections = atldld.open_dataarray(
        811, registration=content(), resolution=STEP, source=server.url, tier=0, masked=True
    ).compute()
    r, i = 5600, 4000
    heights = [a + b * (r - 5700) / 5700 for a, b, c in planes()]
    order = np.argsort(heights)
    values = np.stack(
        [
            sections.sel(section=PHANTOM.image(PHANTOM.image_ids[n])["section_number"])
            .sel(y=i, x=r)
            .values
            for n in order
        ]
    )
    column = volume.image.sel(i=i, r=r)
    along = np.sort(heights)
    for p in column.p.values:
        want = [np.interp(p, along, values[:, channel]) for channel in range(3)]
        if along[0] - 5000 <= p <= along[-1] + 5000:
            np.testing.assert_allclose(column.sel(p=p).values, want, atol=0.01)
    near = opened(between="linear", masked=True, max_distance=300).image.sel(i=i, r=r)
    far = np.abs(near.p.values[:, None] - along).min(axis=1) > 300
    assert near.isnull().all("channel").values[far].all()


def test_what_a_registered_volume_cannot_do_is_said(opened):
    with pytest.raises(ValueError, match="mirror"):
        opened(mirror=True)
    with pytest.raises(ValueError, match="leave that out"):
        opened(reference_space=9)
