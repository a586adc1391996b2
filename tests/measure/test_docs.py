"""The code blocks of the page on structures run as they stand."""

import zipfile

import atldld
from atlases import labels
from atldld.testing import AllenServer, phantom_dataset
from measure_files import HEADER, zipped_grid
from pages import page

PAGE = page("docs/structures.md")


def test_python_blocks_run(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert len(PAGE.blocks("python")) == 21
    with zipfile.ZipFile("P56_Mouse_gridAnnotation.zip", "w") as archive:
        archive.writestr("a.mhd", HEADER.format(kind="MET_UINT", name="a"))
        archive.writestr("a.raw", labels(200, "node", (67, 41, 58)).tobytes(order="F"))
    energy = labels(200, "node", (67, 41, 58)).astype("f4") % 1000
    phantom = phantom_dataset(
        69289763, plane="sagittal", tilt=1, sections=6, resolution=30, tier_count=5
    )
    value = {"id": 1, "section_data_set_id": 69289763, "structure_id": 632, "expression_energy": 2}
    phantom.row["structure_unionizes"] = [value]
    zips = {69289763: zipped_grid({"energy": energy}, 69289763, space=10)}
    with AllenServer([phantom], grids=zips) as server, atldld.set_options(api_url=server.url):
        names = PAGE.run_python()
    assert "node" in capsys.readouterr().out
    assert names["table"].attrs["atlas"] == "Allen P56"
    assert names["from_file"].attrs["atlas"] == "P56_Mouse_gridAnnotation"
    assert 0.2 < float(names["brain"].notnull().mean()) < 0.7
    assert names["published"]["expression_energy"].tolist() == [2.0]
    assert names["cells"]["structure_id"].all()
    assert names["places"]["covered"].all()
    assert names["tile"].shape == (50, 50, 3)
    assert names["measured"].energy.max() > names["measured"].energy.min() == 0
