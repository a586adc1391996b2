"""The code blocks of docs/exporting.md run as they stand, and its files can be opened."""

import json
from pathlib import Path

import nibabel
import nrrd
import pytest
import zarr

import atldld
from atldld.errors import AtldldWarning
from atldld.testing import AllenServer, phantom_dataset
from pages import page

BLOCKS = page("docs/exporting.md").blocks("python")
PROX1 = phantom_dataset(
    dataset_id=69289763, plane="sagittal", tilt=1, sections=10, resolution=8, tier_count=7
)


def assert_unmoved_is_allens(path):
    """Hold what the page says of a file in which nobody moved a section."""
    opened = atldld.open_dataarray(PROX1.id, registration=path)
    assert opened.attrs["registration"].endswith("to P56 Brain, L/R Flipped")


def move(path):
    """Move all sections a bit, as a reader does between two blocks."""
    content = json.loads(Path(path).read_text())
    for each in content["slices"]:
        each["anchoring"][1] -= 1
    Path(path).write_text(json.dumps(content))


def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == 10
    names: dict[str, object] = {}
    with (
        AllenServer([PROX1]) as server,
        atldld.set_options(api_url=server.url, cache_dir=tmp_path / "cache"),
    ):
        for block in BLOCKS:
            if "near.ome.zarr" in block.text:
                with pytest.warns(AtldldWarning, match="not evenly spaced"):
                    block.run(names)
            else:
                block.run(names)
            if "to_quicknii" in block.text:
                assert_unmoved_is_allens("prox1.json")
                move("prox1.json")
        assert names["better"].attrs["registration"].endswith("to Allen CCFv3 (2017)")
    assert len(names["layers"]) == names["near"].sizes["section"] + 1
    assert names["link"].startswith("https://neuroglancer-demo.appspot.com/#!")
    assert json.loads(Path("dark.json").read_text())[0]["count"] > 100
    assert nibabel.load("prox1.nii.gz").shape == (114, 80, 132, 3)
    assert nibabel.load("prox1-colours.nii.gz").shape == (114, 80, 132)
    assert nibabel.load("section.nii.gz").shape == (132, 80, 1, 3)
    assert nrrd.read_header("prox1.nrrd")["sizes"].tolist() == [3, 114, 80, 132]
    for name, sections in (("prox1", 132), ("near", names["near"].sizes["section"])):
        image = zarr.open_group(f"{name}.ome.zarr", mode="r")
        assert image["scale0/image"].shape[1] == sections
