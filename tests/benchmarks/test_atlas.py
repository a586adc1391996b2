"""The steps of the whole atlas, at small sizes: whether they all work, not how fast."""

import json
import subprocess
import sys

import pytest
from benchmarks.process import ROOT

pytestmark = pytest.mark.exhaustive


def test_every_step_is_measured(tmp_path):
    output = tmp_path / "atlas.json"
    told = subprocess.run(
        [sys.executable, "-m", "benchmarks.atlas", "--counts", "12", "--grown", "70", "80",
         "--work", tmp_path / "work", "--output", output],
        cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip
    rows = json.loads(output.read_text(encoding="utf-8"))["rows"]
    assert {(row["step"], row["count"]) for row in rows} == {
        *(
            (step, 12)
            for step in (
                "catalogue",
                "images",
                "images, random numbers",
                "open",
                "open_datatree",
                "coverage",
                "mirror",
            )
        ),
        *(
            (step, count)
            for step in (
                "written straight",
                "correlation",
                "correlation, plain loop",
                "structures",
                "structures, plain loop",
            )
            for count in (70, 80)
        ),
    }
    assert "26,078 by the slope" in told
