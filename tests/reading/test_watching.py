"""What is shown of images while something is computed."""

from __future__ import annotations

import pytest

import atldld
from atldld.testing import AllenServer, phantom_dataset

PHANTOM = phantom_dataset(71, sections=4, resolution=60)


@pytest.fixture
def sections():
    with AllenServer([PHANTOM]) as server:
        yield atldld.open_dataarray(71, resolution=100, chunks={"section": 1}, source=server.url)


def test_images_and_bytes_are_counted_and_shown(sections, capsys):
    with atldld.watch_images() as seen:
        sections.compute(scheduler="threads")
    assert seen.images == 4
    assert seen.n_bytes > 1000
    assert capsys.readouterr().err.splitlines()[-1].startswith("4 images, 0.")
    sections.compute()
    assert seen.images == 4


def test_nothing_is_shown_where_it_is_not_wanted(sections, capsys):
    with atldld.set_options(progress=False), atldld.watch_images() as seen:
        sections.isel(section=[0, 2]).compute()
    assert seen.images == 2
    assert capsys.readouterr().err == ""


def test_it_ends_where_the_computation_fails(sections, capsys):
    with pytest.raises(ZeroDivisionError), atldld.watch_images():
        raise ZeroDivisionError
    assert capsys.readouterr().err.splitlines()[-1] == "0 images, 0.0 MB"
