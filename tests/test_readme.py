"""The code blocks of the README run as they stand."""

import re

import pytest

import atldld
from atldld.testing import AllenServer, phantom_dataset
from pages import ROOT, page

README = page("README.md")


def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(README.blocks("python")) == 7
    prox1 = phantom_dataset(
        dataset_id=69289763, plane="sagittal", tilt=1, sections=18, tier_count=7
    )
    coronal = phantom_dataset(dataset_id=858)
    with AllenServer([prox1, coronal]) as server, atldld.set_options(api_url=server.url):
        names = README.run_python()
    assert names["part"].sizes["x"] == 121
    assert names["profile"].dims == ("section",)
    assert names["plane"].dims == ("i", "r", "channel")
    assert "energy" in names["measures"]
    assert names["better"].attrs["reference_space"] == names["sections"].attrs["reference_space"]
    assert names["grids"].dataset.values.tolist() == [858]
    assert names["registered"].shape == (528, 320, 3)


def test_every_command_is_one_that_ci_runs():
    assert set(README.commands()) == {"make demo", "make test", "pip install '.[plot]'"}
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    assert "make demo" in ci
    assert "make test" in ci
    assert re.search(r"pip install --quiet \.$", makefile, re.M)


def test_the_picture_is_there():
    for picture in re.findall(r"!\[[^]]+\]\(([^)]+)\)", README.text):
        path = ROOT / picture
        if not path.is_file():
            pytest.fail(f"{picture} is not there")
