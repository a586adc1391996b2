"""The code blocks of the page about volumes run as they stand, and do what it says."""

import json
from pathlib import Path

import numpy as np

import atldld
from atldld.testing import AllenServer, phantom_dataset
from pages import page


def test_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sagittal = phantom_dataset(69289763, "sagittal", tilt=1, sections=18, resolution=16)
    coronal = phantom_dataset(100048576, "coronal", sections=14, resolution=16)
    with AllenServer([sagittal, coronal]) as server, atldld.set_options(api_url=server.url):
        atldld.open_dataarray(69289763, reference_space=9).atlas.to_quicknii("prox1.json")
        content = json.loads(Path("prox1.json").read_text())
        del content["atldld"]  # that it is Allen's placing
        Path("prox1.json").write_text(json.dumps(content))
        names = page("docs/volumes.md").run_python()
        assert names["plane"].dims == ("i", "r", "channel")
        assert np.isfinite(names["difference"]).any()
        assert names["half"].reference_space.item() == "CCFv3"
        assert names["both"].notnull().sum() > 1.5 * names["half"].notnull().sum()
        assert names["data_only"].notnull().sum() < names["whole"].image.notnull().sum()
