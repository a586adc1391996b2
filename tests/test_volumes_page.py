"""The code blocks of the page about volumes run as they stand, and do what it says."""

import numpy as np

import atldld
from atldld.testing import AllenServer, phantom_dataset
from pages import page


def test_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sagittal = phantom_dataset(69289763, "sagittal", tilt=1, sections=18, resolution=16)
    coronal = phantom_dataset(100048576, "coronal", sections=14, resolution=16)
    with AllenServer([sagittal, coronal]) as server, atldld.set_options(api_url=server.url):
        names = page("docs/volumes.md").run_python()
        assert names["plane"].dims == ("i", "r", "channel")
        assert np.isfinite(names["difference"]).any()
        assert names["data_only"].notnull().sum() < names["whole"].image.notnull().sum()
