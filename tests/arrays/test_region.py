"""A box of reference space: what it keeps of tilted sections, and what it reads."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import atldld
from atlases import labels
from atldld.testing import AllenServer, PhantomBrain, phantom_dataset

BRAIN = PhantomBrain(texture="smooth")
PLANES = {"coronal": (1, 20), "sagittal": (2, 3), "transverse": (3, 10)}
"""Id and tilt of a phantom of each plane."""

AXES = {"coronal": "pir", "sagittal": "rip", "transverse": "ipr"}
"""The slicing axis, that of the rows and that of the columns."""


@pytest.fixture(scope="module")
def server():
    phantoms = [
        phantom_dataset(number, plane, sections=6, tilt=tilt, brain=BRAIN, resolution=30)
        for plane, (number, tilt) in PLANES.items()
    ]
    with AllenServer(phantoms) as running:
        yield running


@pytest.fixture(scope="module")
def annotation():
    coords = {axis: 200.0 * np.arange(n) for axis, n in zip("pir", (67, 41, 58), strict=True)}
    attrs = {"reference_space": 9, "midline_r": 5700.0}
    return xr.DataArray(labels(200, "node", (67, 41, 58)), coords, ("p", "i", "r"), attrs=attrs)


@pytest.fixture
def opened(server):
    def opened(plane, **options):
        options = {"resolution": 200, "masked": True, "source": server.url, **options}
        return atldld.open_dataarray(PLANES[plane][0], reference_space=9, **options)

    return opened


@pytest.mark.parametrize(
    ("plane", "mapping"),
    [*((plane, "oblique") for plane in PLANES), ("coronal", "parallel")],
)
def test_a_structure_measures_the_same_in_its_box_as_in_all_of_the_brain(
    opened, annotation, plane, mapping
):
    whole = atldld.structure_table(opened(plane, mapping=mapping).mean("channel"), annotation)
    assert len(whole) == 9
    for structure, expected in whole.iterrows():
        box = atldld.structure_bounds(structure, annotation)
        part = opened(plane, mapping=mapping, region=box)
        table = atldld.structure_table(part.mean("channel"), annotation)
        pd.testing.assert_series_equal(table.loc[structure], expected)


@pytest.mark.parametrize("plane", PLANES)
def test_a_box_keeps_the_sections_that_pass_through_it_and_reads_no_other(server, opened, plane):
    whole = opened(plane)
    section, y, x = AXES[plane]
    box = {y: (2000, 3000.5), x: (4000, 4400)}
    places = whole.atlas.pir().sel(y=slice(*box[y]), x=slice(*box[x]))
    along = places[section].compute()
    farthest = float(along[2].max())
    box[section] = (farthest - 10, farthest + 40)
    low, high = box[section]
    passes = (along.max(("y", "x")) >= low) & (along.min(("y", "x")) <= high)
    cut = opened(plane, region=box)
    np.testing.assert_array_equal(cut.image_id, whole.image_id[passes.values])
    assert cut.sizes["y"] == 6
    assert cut.sizes["x"] == 3
    server.reset_log()
    cut.compute()
    assert {each.image_id for each in server.image_requests} <= set(cut.image_id.values.tolist())


def test_a_box_that_no_nominal_coordinate_lies_in_is_not_empty(opened):
    whole = opened("coronal")
    between = float(whole.p[2] + whole.p[3]) / 2
    part = opened("coronal", region={"p": (between - 1, between + 1)})
    assert part.sizes["section"] >= 2
    assert not ((part.p >= between - 1) & (part.p <= between + 1)).any()
