"""The harness itself, at sizes that say nothing about speed."""

import json
import os
import subprocess
import sys

import pytest
from benchmarks.process import ROOT, JobFailedError, run_job

FIGURES = ("bare-loop", "bytes", "square-region", "open-1000", "graph-tasks", "mean-time", "warm")


@pytest.fixture(scope="module")
def measured(tmp_path_factory):
    folder = tmp_path_factory.mktemp("benchmarks")
    output = folder / "results.json"
    command = [sys.executable, "-m", "benchmarks", "--quick", "--no-peer", "--output", str(output)]
    command += ["--work", str(folder / "work")]
    command += [part for name in FIGURES for part in ("--only", name)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ}
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(output.read_text()), folder / "work"


def test_every_figure_that_was_asked_for_has_its_row(measured):
    printed, told, _ = measured
    assert {one["name"] for one in told["figures"]} == set(FIGURES)
    assert all(one["what"].split()[0] in printed for one in told["figures"])


def test_figures_come_out_and_without_the_peer_its_own_are_not_available(measured):
    _, told, _ = measured
    missing = {one["name"]: one["missing"] for one in told["figures"] if one["value"] is None}
    assert missing == {"warm": "the peer is left out"}


def test_counts_are_what_they_must_be(measured):
    _, told, _ = measured
    by_name = {one["name"]: one for one in told["figures"]}
    assert by_name["bytes"]["value"] == 1
    assert by_name["graph-tasks"]["value"] == 2
    (cold,) = told["rounds"]["cold"]
    sections = told["sizes"]["sections"]
    for side in ("open, prefetch, compute", "bare loop"):
        assert cold[side]["counts"]["served images"] == sections
        assert cold[side]["counts"]["served most"] == 1


def test_both_sides_do_the_same_work(measured):
    _, told, _ = measured
    (cold,), (pieces,) = told["rounds"]["cold"], told["rounds"]["pieces"]
    for ours, theirs in (
        (cold["open, prefetch, compute"], cold["bare loop"]),
        (pieces["mean"], pieces["plain loop"]),
    ):
        assert ours["counts"].get("values") == theirs["counts"].get("values")
        assert ours["counts"]["mean"] == pytest.approx(theirs["counts"]["mean"], abs=1.0)


def test_machine_and_versions_stand_at_the_top(measured):
    printed, told, _ = measured
    for name in ("cores", "memory", "python", "numpy", "xarray", "dask", "simplejpeg"):
        assert f"{name}: {told['machine'][name]}" in printed


def test_runs_leave_nothing_behind(measured):
    _, _, work = measured
    assert list(work.glob("run-*")) == []


def test_a_job_that_fails_says_what_it_said():
    with pytest.raises(JobFailedError, match="KeyError"):
        run_job("scale", "open_many", {})
