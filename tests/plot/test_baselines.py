"""Figures held against stored ones, without their text: fonts differ between versions.

``NEW_BASELINES=1`` stores what is drawn now; look at it before it is kept.
"""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from matplotlib import image as pictures
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text

import atldld
from atlases import labels
from atldld.testing import AllenServer, Fault

BASELINE = Path(__file__).parent / "baseline"
TOLERANCE = 5.0
"""Grey levels, root mean square over the figure; a mirrored one is off by three times as much."""

DRAWN = {}


def drawing(function):
    DRAWN[function.__name__] = function
    return function


@drawing
def sheet_of_sagittal_sections(opened, server):
    return opened("sagittal").atlas.plot(panels=6)


@drawing
def sheet_with_a_lost_image(opened, server, phantoms):
    with AllenServer([phantoms["coronal"]], faults=[Fault("404", image_ids={301003})]) as own:
        sections = opened(source=own.url, on_error="fill")
        with atldld.set_options(retries=0), pytest.warns(atldld.AtldldWarning):
            return sections.atlas.plot()


@drawing
def section_with_expression(opened, server):
    both = opened("sagittal", atldld.open_dataset, include_expression=True)
    return both.atlas.at(r=3700).atlas.plot(overlay="expression")


@drawing
def section_with_borders(opened, server):
    values = labels(200.0, "node", (67, 41, 58))
    nodes = {axis: 200.0 * np.arange(n) for axis, n in zip("pir", values.shape, strict=True)}
    attrs = {"reference_space": 9, "spacing_microns": 200.0}
    annotation = xr.DataArray(values, nodes, ("p", "i", "r"), attrs=attrs)
    return opened("coronal", masked=True).atlas.at(p=8300).atlas.plot(overlay=annotation)


@drawing
def transverse_section(opened, server):
    return opened("transverse").isel(section=2).atlas.plot()


@drawing
def expression_mask(opened, server):
    return opened("coronal", view="expression_mask").isel(section=2).atlas.plot()


@drawing
def native_pixels(opened, server):
    return atldld.open_image(302004, tier=1, source=server.url).atlas.plot()


@drawing
def volume(opened, server):
    opened_volume = atldld.open_volume(302, resolution=100, source=server.url)
    return opened_volume.atlas.plot(p=8000, i=3000)


@drawing
def placement(opened, server):
    return atldld.plot.placement(302, source=server.url)


def saved(figure, path):
    figure.set_dpi(50)
    for text in figure.findobj(Text):
        text.set_visible(False)
    figure.savefig(path, dpi=50, metadata={"Software": None})


@pytest.mark.parametrize("name", DRAWN)
def test_figure_is_as_stored(name, opened, server, phantoms, tmp_path):
    function = DRAWN[name]
    given = {"opened": opened, "server": server, "phantoms": phantoms}
    wanted = function.__code__.co_varnames[: function.__code__.co_argcount]
    drawn = tmp_path / f"{name}.png"
    saved(function(**{each: given[each] for each in wanted}), drawn)
    stored = BASELINE / f"{name}.png"
    if os.environ.get("NEW_BASELINES"):
        shutil.copy(drawn, stored)
    expected = tmp_path / f"{name}-expected.png"
    shutil.copy(stored, expected)
    found = compare_images(str(expected), str(drawn), TOLERANCE)
    assert found is None, found


@pytest.mark.parametrize("name", ["section_with_expression", "transverse_section", "volume"])
def test_the_tolerance_tells_a_mirrored_figure(name, tmp_path):
    stored = BASELINE / f"{name}.png"
    for axis in (0, 1):
        mirrored = tmp_path / f"mirrored{axis}.png"
        pictures.imsave(mirrored, np.flip(pictures.imread(stored), axis))
        expected = tmp_path / f"{name}.png"
        shutil.copy(stored, expected)
        assert compare_images(str(expected), str(mirrored), 3 * TOLERANCE) is not None
