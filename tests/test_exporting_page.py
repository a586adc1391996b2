"""The code blocks of docs/exporting.md run as they stand, and its files can be opened."""

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


def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(BLOCKS) == 8
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
        assert names["better"].attrs["registration"].endswith("to P56 Brain, L/R Flipped")
    assert len(names["layers"]) == names["near"].sizes["section"] + 1
    assert nibabel.load("prox1.nii.gz").shape == (114, 80, 132, 3)
    assert nibabel.load("prox1-colours.nii.gz").shape == (114, 80, 132)
    assert nibabel.load("section.nii.gz").shape == (132, 80, 1, 3)
    assert nrrd.read_header("prox1.nrrd")["sizes"].tolist() == [3, 114, 80, 132]
    for name, sections in (("prox1", 132), ("near", names["near"].sizes["section"])):
        image = zarr.open_group(f"{name}.ome.zarr", mode="r")
        assert image["scale0/image"].shape[1] == sections
