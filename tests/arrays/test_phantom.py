"""Reading the phantom back: every covered grid point shows what truly lies there."""

import numpy as np
import pytest

import atldld
import twins
from atldld.testing import AllenServer, PhantomBrain, phantom_dataset
from usual import usual

PLANES = ("coronal", "sagittal", "transverse")
TILTS = {"coronal": 10.0, "sagittal": 3.0, "transverse": 20.0}


FULL_RESOLUTION = {0: 8.0, 1: 8.0, 2: 4.0, 3: 2.0, 4: 1.0, 5: 1.0}
"""Microns per full-resolution pixel by tier, so that coarse tiers come from large images."""


@pytest.fixture(scope="module")
def smooth():
    """Serve smooth phantoms of a plane and a resolution, several sections a slide."""
    brain = PhantomBrain(texture="smooth")
    phantoms = {
        (plane, resolution): phantom_dataset(
            dataset_id=2000 + 10 * number + int(resolution),
            plane=plane,
            tilt=TILTS[plane],
            sections=4,
            brain=brain,
            slides=True,
            resolution=resolution,
            tier_count=9,
            seed=number,
        )
        for number, plane in enumerate(PLANES)
        for resolution in set(FULL_RESOLUTION.values())
    }
    with AllenServer(list(phantoms.values())) as server:
        yield server, phantoms


def errors(phantom, array, section, mapping, *, flipped=False, inner=False):
    """Return the grey-level errors at covered points, and the covered share.

    `inner` leaves out what lies beyond the centre of the last tier pixel: there the floor cut
    off the rest, and the nearest tier pixel stands for it.
    """
    plane = array.attrs["plane"]
    along, rows, columns = twins.AXES[plane]
    one = array.isel(section=section)
    image_id = int(one.image_id)
    image = phantom.image(image_id)
    px, py, _ = twins.pixels_of_grid(
        phantom.row,
        image,
        plane,
        one[rows].values,
        one[columns].values,
        mapping,
        float(one[along]),
        flipped,
    )
    inside = twins.covered(image, px, py)
    values = one.values
    assert (values[~inside] == one.attrs["value_where_not_covered"]).all()
    if inner:
        step = 2 ** int(one.tier)
        inside &= px <= (image["width"] // step - 1) * step - image["x"] % step
        inside &= py <= (image["height"] // step - 1) * step - image["y"] % step
    colour = twins.true_colour(phantom, image_id, px[inside], py[inside])
    return np.abs(values[inside] - colour), inside.mean()


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("mapping", ["oblique", "parallel"])
@pytest.mark.parametrize("tier", [0, 1, 2, 3, 4, 5])
def test_colours_are_those_of_the_place(smooth, plane, mapping, tier):
    server, phantoms = smooth
    phantom = phantoms[plane, FULL_RESOLUTION[tier]]
    array = atldld.open_dataarray(
        phantom.id,
        resolution=90,
        tier=tier,
        mapping=mapping,
        interpolation="linear",
        source=server.url,
    )
    assert array.dims == ("section", "y", "x", "channel")
    for section in (0, 2):
        error, share = errors(phantom, array, section, mapping)
        assert share > 0.05
        assert np.median(error) <= 1
        assert np.percentile(error, 99) <= 8


@pytest.mark.parametrize("plane", PLANES)
def test_the_coarsest_pixels_are_in_place_up_to_the_last_of_them(smooth, plane):
    server, phantoms = smooth
    phantom = phantoms[plane, 8.0]
    array = atldld.open_dataarray(
        phantom.id, resolution=90, tier=5, interpolation="linear", source=server.url
    )
    for section in range(4):
        error, _ = errors(phantom, array, section, "oblique", inner=True)
        assert np.median(error) <= 1
        assert np.percentile(error, 99) <= 8


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("mapping", ["oblique", "parallel"])
def test_the_other_space_shows_the_same_places(smooth, plane, mapping):
    server, phantoms = smooth
    phantom = phantoms[plane, 8.0]
    native = phantom.row["reference_space_id"]
    array = atldld.open_dataarray(
        phantom.id,
        resolution=90,
        tier=2,
        mapping=mapping,
        interpolation="linear",
        reference_space=19 - native,
        source=server.url,
    )
    assert int(array.reference_space) == 19 - native
    error, share = errors(phantom, array, 1, mapping, flipped=True)
    assert share > 0.05
    assert np.median(error) <= 1
    assert np.percentile(error, 99) <= 8


@pytest.mark.parametrize("plane", PLANES)
def test_automatic_tier_and_interpolation(smooth, plane):
    server, phantoms = smooth
    phantom = phantoms[plane, 8.0]
    array = atldld.open_dataarray(phantom.id, resolution=90, source=server.url)
    assert (array.microns_per_pixel <= 90).all()
    assert (array.microns_per_pixel > 45).all()
    for section in range(array.sizes["section"]):
        error, _ = errors(phantom, array, section, "oblique")
        assert np.median(error) <= 1
        assert np.percentile(error, 99) <= 8


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("mapping", ["oblique", "parallel"])
@pytest.mark.parametrize("tier", usual([1, 0, 3]))
@pytest.mark.parametrize("interpolation", usual(["linear", "area", "cubic"], 2))
def test_fine_texture_is_in_place_to_a_tenth_of_a_tier_pixel(plane, mapping, tier, interpolation):
    resolution = 8.0
    period = 16 * resolution * 2**tier
    brain = PhantomBrain(texture="fine", fine_period=period)
    phantom = phantom_dataset(
        dataset_id=3000,
        plane=plane,
        tilt=10,
        sections=4,
        brain=brain,
        slides=True,
        tier_count=7,
        resolution=resolution,
        seed=5,
    )
    with AllenServer([phantom]) as server:
        array = atldld.open_dataarray(
            phantom.id,
            resolution=0.8 * resolution * 2**tier,
            tier=tier,
            mapping=mapping,
            interpolation=interpolation,
            source=server.url,
        )
        along, rows, columns = twins.AXES[plane]
        section = array.isel(section=1)
        image = phantom.image(int(section.image_id))
        # A part in the middle of the image is enough, and quick.
        middle = phantom.pir(image["id"], image["width"] / 2, image["height"] / 2)
        half = 80 * resolution * 2 ** min(tier, 1)
        at = dict(zip("pir", middle, strict=True))
        section = section.sel(
            {
                axis: slice(float(at[axis]) - half, float(at[axis]) + half)
                for axis in (rows, columns)
            }
            if rows in section.coords
            else {}
        )
        px, py, _ = twins.pixels_of_grid(
            phantom.row,
            image,
            plane,
            section[rows].values,
            section[columns].values,
            mapping,
            float(section[along]),
        )
        inside = twins.covered(image, px, py)
        px, py = px[inside], py[inside]
        step = 0.25 * 2**tier
        colour = twins.true_colour(phantom, image["id"], px, py)
        by_x, by_y = (
            (
                twins.true_colour(phantom, image["id"], px + dx, py + dy)
                - twins.true_colour(phantom, image["id"], px - dx, py - dy)
            )
            / 0.5
            for dx, dy in ((step, 0), (0, step))
        )
        off = section.values[inside] - colour
    assert inside.sum() > 500
    slopes = np.stack([by_x.ravel(), by_y.ravel()], axis=1)
    shift, *_ = np.linalg.lstsq(slopes, off.ravel(), rcond=None)
    assert np.abs(shift).max() < 0.1


def test_expression_masks_have_one_value_a_pixel():
    phantom = phantom_dataset(dataset_id=3001, plane="sagittal", sections=3, tier_count=5)
    with AllenServer([phantom]) as server:
        array = atldld.open_dataarray(
            phantom.id, view="expression_mask", resolution=50, tier=1, source=server.url
        )
        assert array.dims == ("section", "y", "x")
        section = array.isel(section=1)
        image = phantom.image(int(section.image_id))
        px, py, _ = twins.pixels_of_grid(
            phantom.row, image, "sagittal", section.i.values, section.p.values, "oblique"
        )
        inside = twins.covered(image, px, py)
        p, i, r = phantom.pir(image["id"], px[inside], py[inside])
        level = phantom.brain.expression(p, i, 11350 - r)
        assert (section.values[~inside] == 0).all()
        assert np.median(np.abs(section.values[inside] - level)) <= 1


def test_the_heat_map_is_in_place():
    phantom = phantom_dataset(dataset_id=3002, sections=3, tier_count=5)
    with AllenServer([phantom]) as server:
        both = atldld.open_dataset(
            phantom.id, include_expression=True, resolution=50, tier=1, source=server.url
        ).isel(section=1)
        image = phantom.image(int(both.image_id))
        px, py, _ = twins.pixels_of_grid(
            phantom.row, image, "coronal", both.i.values, both.r.values, "oblique"
        )
        inside = twins.covered(image, px, py)
        level = phantom.brain.expression(*phantom.pir(image["id"], px[inside], py[inside]))
        brightest = both.expression.values[inside].max(axis=-1)
        np.testing.assert_array_equal(both.covered.values, inside)
        assert np.percentile(brightest[level == 0], 90) < 30
        assert np.percentile(brightest[level > 60], 10) > 60
