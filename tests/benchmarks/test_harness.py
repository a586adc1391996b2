"""The harness itself, at sizes that say nothing about speed."""

import json
import subprocess
import sys

import pytest
from benchmarks.process import ROOT, JobFailedError, run_job

pytestmark = pytest.mark.exhaustive

FIGURES = (
    "bare-loop", "bytes", "square-region", "open-1000", "graph-tasks", "mean-time", "warm",
    "volume-warm",
)  # fmt: skip


def test_the_harness_measures_what_is_asked_for(tmp_path):
    # One test, not one for each claim: the tests run on several processes, and each of them
    # would measure anew.
    output, work = tmp_path / "results.json", tmp_path / "work"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--no-peer"]
    command += ["--output", str(output), "--work", str(work)]
    command += [part for name in FIGURES for part in ("--only", name)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(output.read_text())

    every_figure_has_its_row(done.stdout, told)
    without_the_peer_only_its_figures_are_missing(told)
    counts_are_what_they_must_be(told)
    both_sides_do_the_same_work(told)
    machine_and_versions_stand_at_the_top(done.stdout, told)
    assert list(work.glob("run-*")) == []


def every_figure_has_its_row(printed, told):
    assert {one["name"] for one in told["figures"]} == set(FIGURES)
    assert all(one["what"].split()[0] in printed for one in told["figures"])


def without_the_peer_only_its_figures_are_missing(told):
    missing = {one["name"]: one["missing"] for one in told["figures"] if one["value"] is None}
    assert missing == {"warm": "the peer is left out"}


def counts_are_what_they_must_be(told):
    by_name = {one["name"]: one for one in told["figures"]}
    assert by_name["bytes"]["value"] == 1
    assert by_name["graph-tasks"]["value"] == 2
    (cold,) = told["rounds"]["cold"]
    for side in ("open, prefetch, compute", "bare loop"):
        assert cold[side]["counts"]["served images"] == told["sizes"]["sections"]
        assert cold[side]["counts"]["served most"] == 1


def both_sides_do_the_same_work(told):
    (cold,), (pieces,) = told["rounds"]["cold"], told["rounds"]["pieces"]
    for ours, theirs in (
        (cold["open, prefetch, compute"], cold["bare loop"]),
        (pieces["mean"], pieces["plain loop"]),
    ):
        assert ours["counts"].get("values") == theirs["counts"].get("values")
        assert ours["counts"]["mean"] == pytest.approx(theirs["counts"]["mean"], abs=1.0)


def machine_and_versions_stand_at_the_top(printed, told):
    for name in ("cores", "memory", "python", "numpy", "xarray", "dask", "simplejpeg"):
        assert f"{name}: {told['machine'][name]}" in printed


def test_a_job_that_fails_says_what_it_said():
    with pytest.raises(JobFailedError, match="KeyError"):
        run_job("scale", "open_many", {})
