"""The code blocks of the README run as they stand."""

import re
from pathlib import Path

import pytest

import atldld
from atldld.testing import AllenServer, phantom_dataset

README = Path(__file__).parents[1] / "README.md"


def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.S | re.M)
    assert len(blocks) == 4
    prox1 = phantom_dataset(
        dataset_id=69289763, plane="sagittal", tilt=1, sections=18, tier_count=7
    )
    names: dict[str, object] = {}
    with AllenServer([prox1]) as server, atldld.set_options(api_url=server.url):
        for block in blocks:
            exec(compile(block, str(README), "exec"), names)
    assert names["part"].sizes["x"] == 121
    assert names["profile"].dims == ("section",)
    assert names["registered"].shape == (528, 320, 3)


def test_every_command_is_one_that_ci_runs():
    commands = re.findall(
        r"^```console\n(.*?)^```$", README.read_text(encoding="utf-8"), re.S | re.M
    )
    said = {line for block in commands for line in block.splitlines()}
    assert said == {"make demo", "make test", "pip install ."}
    makefile = README.with_name("Makefile").read_text(encoding="utf-8")
    ci = README.parent.joinpath(".ci", "run").read_text(encoding="utf-8")
    assert "make demo" in ci
    assert "make test" in ci
    assert re.search(r"pip install --quiet \.$", makefile, re.M)


def test_the_picture_is_there():
    text = README.read_text(encoding="utf-8")
    for picture in re.findall(r"!\[[^]]+\]\(([^)]+)\)", text):
        path = README.parent / picture
        if not path.is_file():
            pytest.fail(f"{picture} is not there")
