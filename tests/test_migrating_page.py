"""The code blocks of docs/migrating.md run as they stand, and its commands are all there."""

from __future__ import annotations

import re
import shlex

import numpy as np
import pytest
from click.testing import CliRunner

import atldld
from atldld.cli import main
from atldld.testing import AllenServer, phantom_dataset
from pages import page

PAGE = page("docs/migrating.md")
TEXT = PAGE.text
PROX1 = phantom_dataset(
    69289763,
    "sagittal",
    gene="Prox1",
    tilt=1,
    sections=3,
    resolution=4,
    tier_count=7,
    first_image_id=69177653,
)


@pytest.fixture
def served(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with (
        AllenServer([PROX1]) as server,
        atldld.set_options(api_url=server.url, cache_dir=tmp_path / "cache"),
    ):
        yield server


def test_python_blocks_run(served):
    assert len(PAGE.blocks("python")) == 4
    names = PAGE.run_python()
    assert names["found"]["dataset_id"].tolist() == [69289763]
    assert names["section"].sizes["y"] == 80
    assert abs(names["alike"].r.values - names["slice_coordinate"]).min() == pytest.approx(0, abs=1)
    np.testing.assert_allclose(names["back"][["x", "y"]].to_numpy(), [[1000, 800]], atol=0.5)


def test_what_is_alike_is_alike(served):
    names: dict[str, object] = {}
    for block in PAGE.blocks("python")[:3]:
        block.run(names)
    last = names["alike"].sel(r=names["slice_coordinate"], method="nearest")
    lying = names["registered"].transpose(1, 0, 2)
    difference = abs(last.values.astype(int) - lying.astype(int))
    inside = (lying != 255).any(axis=-1)
    assert inside.mean() > 0.2
    assert np.median(difference[inside]) <= 1
    upside_down = abs(last.values[::-1].astype(int) - lying.astype(int))
    assert np.median(upside_down[inside]) > 5


def test_commands_run(served, tmp_path):
    commands = PAGE.commands()
    assert len(commands) == 9
    for command in commands:
        done = CliRunner().invoke(main, shlex.split(command)[1:])
        assert done.exit_code == 0, done.output
    assert len(list((tmp_path / "registered").glob("*.png"))) == 6
    assert len(list((tmp_path / "images").glob("*.jpg"))) == 3
    assert [path.name[-12:] for path in (tmp_path / "one").glob("*.jpg")] == ["69177654.jpg"]


def test_every_command_and_option_of_the_table_is_one(served):
    table = TEXT[TEXT.index("## Commands") : TEXT.index("A command that was stopped")]
    ours = [
        line.split("|")[2].strip().strip("`") for line in table.splitlines() if line[:3] == "| `"
    ]
    ours += [
        line.split("|")[2].strip().strip("`") for line in table.splitlines() if "(none)" in line
    ]
    assert len(ours) == 16
    for line in ours:
        words = shlex.split(line)
        if words[0] == "atldld" and not words[1].startswith("-"):
            command = main.commands[words[1]]
        options = {name for each in command.params for name in each.opts} | {"--version"}
        assert {word for word in words if word.startswith("-")} <= options


def test_every_python_name_of_the_table_is_one():
    table = TEXT[TEXT.index("## Names in Python") : TEXT.index("Which datasets are there")]
    names = set(re.findall(r"atldld\.(\w+)", table.split("\n", 3)[3]))
    names |= set(re.findall(r"`(open_\w+|dataset_info)", table))
    assert len(names) >= 8
    assert names <= {*atldld.__all__}
    for name in re.findall(r"`sync\.(\w+)", table):
        assert hasattr(__import__("atldld.sync", fromlist=[name]), name)
