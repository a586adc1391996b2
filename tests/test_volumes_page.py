"""The code blocks of the page about volumes run as they stand, and do what it says."""

import re
from pathlib import Path

import numpy as np

import atldld
from atldld.testing import AllenServer, phantom_dataset

PAGE = Path(__file__).parents[1] / "docs" / "volumes.md"


def test_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(encoding="utf-8"), re.S | re.M)
    sagittal = phantom_dataset(69289763, "sagittal", tilt=1, sections=18, resolution=16)
    coronal = phantom_dataset(100048576, "coronal", sections=14, resolution=16)
    names: dict[str, object] = {}
    with AllenServer([sagittal, coronal]) as server, atldld.set_options(api_url=server.url):
        for block in blocks:
            exec(compile(block, str(PAGE), "exec"), names)
        assert names["plane"].dims == ("i", "r", "channel")
        assert np.isfinite(names["difference"]).any()
        assert names["data_only"].notnull().sum() < names["whole"].image.notnull().sum()
