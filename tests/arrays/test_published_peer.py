"""Where spatial_brain_maps 0.1.2 (with pynutil 0.3.3) is off, by its formulas, and arrays are not.

The phantom knows the true place of every pixel. What the peer itself answers is held against it by
``python -m benchmarks.published``.
"""

import cv2
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import atldld
import published_set
from atldld.testing import AllenServer, PhantomBrain, phantom_dataset

GREY = np.array([0.299, 0.587, 0.114])
ANIMAL, MICRONS = "04-0086", 10.0
BRAIN = PhantomBrain(texture="fine", fine_period=1600)
PHANTOM = phantom_dataset(
    dataset_id=121096,
    plane="coronal",
    tilt=3,
    sections=2,
    brain=BRAIN,
    resolution=MICRONS,
    seed=4,
    tier_count=4,
).altered(published_set.of_animal(ANIMAL))
IMAGE = PHANTOM.image(PHANTOM.image_ids[1])


@pytest.fixture(scope="module")
def options(tmp_path_factory):
    """Return what opens the phantom by a published registration."""
    folder = published_set.write(tmp_path_factory.mktemp("set"), [PHANTOM], ANIMAL, MICRONS)
    cache = tmp_path_factory.mktemp("cache")
    with AllenServer([PHANTOM]) as server, atldld.set_options(cache_dir=cache):
        yield {"registration": folder, "source": server.url}


def canvas_pixels():
    """Return columns and rows of some pixels of the canvas, amid the picture."""
    rows, columns = published_set.canvas(IMAGE, MICRONS)
    down = np.arange(rows // 4, 3 * rows // 4, 9)
    along = np.arange(columns // 4, 3 * columns // 4, 11)
    return (each.ravel() for each in np.meshgrid(along, down))


def true_places(column, row):
    """Return i and r of pixels of the canvas by their middles: the anchoring spans it."""
    rows, columns = published_set.canvas(IMAGE, MICRONS)
    x = (column + 0.5) / columns * IMAGE["width"] - 0.5
    y = (row + 0.5) / rows * IMAGE["height"] - 0.5
    return PHANTOM.pir(IMAGE["id"], x, y)[1:]


def test_points_are_half_a_pixel_off_there_and_not_here(options):
    column, row = canvas_pixels()
    i, r = true_places(column, row)
    # There a pixel lies at o + u x / width + v y / height: where its upper left corner is.
    rows, columns = published_set.canvas(IMAGE, MICRONS)
    voxels = published_set.anchoring(published_set.corners(PHANTOM, IMAGE, 0.0))
    o, u, v = np.reshape(voxels, (3, 3))
    x, _, z = (o + u * (column / columns)[:, None] + v * (row / rows)[:, None]).T
    theirs = np.stack([25 * (320 - z) - i, 25 * x - r], axis=1)
    # Half a pixel of 25 microns, along the edges of the picture, which is turned a bit.
    np.testing.assert_allclose(np.abs(theirs), 12.5, atol=1.5)
    assert np.ptp(theirs, axis=0).max() < 1e-6
    shown = published_set.bent_pixels(PHANTOM, IMAGE, i, r, MICRONS)[:2]
    frame = pd.DataFrame({"image_id": IMAGE["id"], "x": shown[0], "y": shown[1]})
    ours = atldld.sections_to_points(PHANTOM.id, frame, **options)
    np.testing.assert_allclose(ours.i, i, atol=0.1 * MICRONS)
    np.testing.assert_allclose(ours.r, r, atol=0.1 * MICRONS)


def test_values_differ_by_what_the_peer_rounds_and_by_less_than_a_level_besides(options):
    """It reads grey pictures of whole levels, and shrinks them to whole levels again."""
    pixels = atldld.open_image(IMAGE["id"], tier=0, source=options["source"]).values @ GREY
    width, height = published_set.small(IMAGE, MICRONS)[1]

    def shrunk(picture):
        return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)

    theirs, exact = shrunk(np.rint(pixels).astype(np.uint8)), shrunk(pixels)
    row, column = (each.ravel() for each in np.mgrid[20 : height - 20 : 5, 20 : width - 20 : 5])
    frame = pd.DataFrame(
        {
            "image_id": IMAGE["id"],
            "x": (column + 0.5) * IMAGE["width"] / width - 0.5,
            "y": (row + 0.5) * IMAGE["height"] / height - 0.5,
        }
    )
    places = atldld.sections_to_points(PHANTOM.id, frame, **options)
    section = atldld.open_dataarray(
        PHANTOM.id, resolution=25, tier=0, masked=True, **options
    ).sel(section=IMAGE["section_number"]).compute()  # fmt: skip
    at = {
        "y": xr.DataArray(places.i.values, dims="n"),
        "x": xr.DataArray(places.r.values, dims="n"),
    }
    ours = section.interp(at).values @ GREY
    assert np.isfinite(ours).all()
    exact, theirs = exact[row, column], theirs[row, column].astype(float)
    # Each of its two roundings is up to half a level, and that is what is between us.
    assert 0.6 < np.abs(theirs - exact).max() <= 1
    assert np.abs(ours - exact).max() < 1
    assert np.abs(ours - exact).mean() < 0.3


def test_volumes_are_half_a_voxel_off_along_the_slicing_axis_there(options):
    # There a plane at y goes to voxel round(y), which reaches from k to k + 1.
    y = np.random.default_rng(1).uniform(100, 400, 10_000)
    theirs = (np.rint(y) + 0.5 - y) * 25
    assert theirs.mean() == pytest.approx(12.5, abs=0.5)
    # Here the voxel that holds the plane shows it, at its true distance.
    volume = atldld.open_volume(
        PHANTOM.id, resolution=25, max_distance=12.5,
        region={"i": (4000, 4025), "r": (5000, 5025)}, **options,
    )  # fmt: skip
    shown = volume.isel(i=0, r=0).compute()
    places = [
        float(np.ravel(PHANTOM.pir(image["id"], *published_set.straight_pixels(
            PHANTOM, image, 4000.0, 5000.0)))[0])
        for image in map(PHANTOM.image, PHANTOM.image_ids)
    ]  # fmt: skip
    there = shown.section_number >= 0
    assert int(there.sum()) == 2
    np.testing.assert_allclose(np.sort(places), (shown.p - shown.distance).values[there], atol=1e-6)


def at_10_microns(column, row):
    """Return the full-resolution pixel that it shows at 10 microns, without its rounding.

    It rounds the canvas down to whole pixels of 10 microns, scales the displacements and the shift
    of the affine by 2.5, and lays the picture of 10 micron pixels amid that canvas.
    """
    rows, columns = published_set.canvas(IMAGE, MICRONS)
    large = np.array([int(rows * 2.5), int(columns * 2.5)])
    width, height = published_set.small(IMAGE, MICRONS)[0]
    waves = published_set.waves(PHANTOM, IMAGE, MICRONS)
    a, b = (row + 0.5) * rows / large[0] - 0.5, (column + 0.5) * columns / large[1] - 0.5
    top, left = a.astype(int), b.astype(int)
    s, t = (a - top)[:, None], (b - left)[:, None]
    moved = 2.5 * (
        (waves[top, left] * (1 - t) + waves[top, left + 1] * t) * (1 - s)
        + (waves[top + 1, left] * (1 - t) + waves[top + 1, left + 1] * t) * s
    )
    affine = published_set.AFFINE
    there = affine[:, :2] @ [row + moved[:, 0], column + moved[:, 1]] + 2.5 * affine[:, 2:]
    down, along = there - ((large - [height, width]) // 2)[:, None]
    return (
        (along + 0.5) * IMAGE["width"] / width - 0.5,
        (down + 0.5) * IMAGE["height"] / height - 0.5,
        large,
    )


def test_pictures_of_10_microns_are_off_there_and_not_here(options):
    column, row = (each * 2.5 for each in canvas_pixels())
    x, y, large = at_10_microns(column, row)
    rows, columns = published_set.canvas(IMAGE, MICRONS)
    i, r = true_places(
        (column + 0.5) * columns / large[1] - 0.5, (row + 0.5) * rows / large[0] - 0.5
    )
    true_x, true_y, _ = published_set.bent_pixels(PHANTOM, IMAGE, i, r, MICRONS)
    off = np.hypot(x - true_x, y - true_y) * MICRONS
    assert 4 < off.max() < 25
    # Here the grid of an array has no part in where pixels lie.
    region = {"i": (3600, 4400), "r": (5200, 6000)}
    section = atldld.open_dataarray(
        PHANTOM.id, resolution=10, tier=0, region=region, **options
    ).sel(section=IMAGE["section_number"])
    i, r = np.meshgrid(section.y, section.x, indexing="ij")
    x, y, known = published_set.bent_pixels(PHANTOM, IMAGE, i, r, MICRONS)
    assert known.all()
    colour = BRAIN.colour(*PHANTOM.pir(IMAGE["id"], x, y))
    wrong = np.abs(section.values - colour)
    # 10 microns are 2 grey levels and more on average.
    assert wrong.mean() < 0.75
    assert wrong.max() < 6
