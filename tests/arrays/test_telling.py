"""What arrays say of themselves, without a pixel being read."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import atldld
from atldld.testing import AllenServer, phantom_dataset


def test_text_and_html_say_what_is_there(opened, server):
    server.reset_log()
    sections = opened("sagittal")
    text, html = repr(sections.atlas), sections.atlas._repr_html_()
    for words in (text, html):
        assert "dataset 102 (Phantom1), sagittal" in words
        assert f"5 points, r from {sections.r.values.min():g} to" in words
        assert "40 points, i from 0 to 7800 um" in words
        assert "P56 Brain, L/R Flipped" in words
        assert "hemisphere of the tissue" in words
        assert "read when computed" in words
        for name, member in vars(xr.DataArray.atlas).items():
            if callable(member) and not name.startswith("_"):
                assert f".atlas.{name}()" in words
    assert not server.image_requests


@pytest.mark.parametrize("function", [atldld.open_dataarray, atldld.open_dataset])
def test_of_a_section_and_of_values_in_memory(opened, function):
    section = opened("coronal", function).atlas.at(p=6600)
    assert f"p: {float(section.p):g} um" in repr(section.atlas)
    assert "pixels: in memory" in repr(section.compute().atlas)


def test_of_a_volume(server):
    volume = atldld.open_volume(101, resolution=400, source=server.url)
    assert "p: 33 points, p from 0 to 12800 um" in repr(volume.atlas)


def test_of_arrays_that_are_not_ours():
    assert "says nothing of a dataset" in repr(xr.DataArray(np.zeros(3)).atlas)
    assert "says nothing of a dataset" in xr.Dataset().atlas._repr_html_()


def test_words_of_strangers_are_escaped():
    phantom = phantom_dataset(1, gene="<script>alert(1)</script>", sections=2)
    with AllenServer([phantom]) as server:
        sections = atldld.open_dataarray(1, source=server.url)
    assert "<script>" not in sections.atlas._repr_html_()
    assert "<script>" not in sections._repr_html_()


def test_indexes_show_what_they_hold(opened):
    sections = opened("coronal")
    for words in (repr(sections), sections._repr_html_()):
        assert "SectionIndex" in words
        assert "dataset 101 (coronal sections in P56 Brain)" in words


@pytest.mark.parametrize("name", ["coronal", "sagittal", "transverse"])
def test_every_coordinate_and_variable_has_a_name_and_microns_where_they_are(opened, name):
    dataset = opened(name, atldld.open_dataset, include_expression=True)
    volume = opened(name, atldld.open_volume, resolution=400)
    for opened_one in (dataset, volume):
        for key, variable in opened_one.variables.items():
            assert variable.attrs.get("long_name"), key
            if key in ("p", "i", "r", "x", "y", "microns_per_pixel", "distance"):
                assert variable.attrs["units"] == "µm", key
