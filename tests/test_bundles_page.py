"""The code blocks of docs/bundles.md run as they stand, and its numbers are those of the code."""

from __future__ import annotations

import re
import shlex

from click.testing import CliRunner

import atldld
from atldld.cli import main
from atldld.source import bundle
from atldld.store import records, zipped
from atldld.testing import AllenServer, phantom_dataset
from pages import page

PAGE = page("docs/bundles.md")
TEXT = PAGE.text
PROX1 = phantom_dataset(
    dataset_id=69289763, plane="sagittal", tilt=1, sections=3, resolution=1.05, tier_count=7
)


def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(PAGE.blocks("python")) == 7
    with (
        AllenServer([PROX1]) as server,
        atldld.set_options(api_url=server.url, cache_dir=tmp_path / "cache"),
    ):
        names = PAGE.run_python()
    # The service is gone; what was opened from bundles and cache is still to be read.
    with atldld.set_options(api_url="http://127.0.0.1:9", retries=0):
        for name in ("sections", "part", "coarse", "cached"):
            names[name].compute()
    assert set(names["part"]) == {"image", "expression", "covered"}
    added = atldld.open_dataset(69289763, include_expression=True, source="prox1.zip")
    added.expression.compute()


def test_commands_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    commands = PAGE.commands()
    commands += re.findall(r"`(atldld verify [^`]+)`", TEXT)
    assert len(commands) == 3
    with AllenServer([PROX1]) as server, atldld.set_options(api_url=server.url):
        for command in commands:
            done = CliRunner().invoke(main, shlex.split(command)[1:])
            assert done.exit_code == 0, done.output


def test_the_bounds_are_those_of_the_code():
    flat = " ".join(TEXT.split())
    mebibyte = 2**20
    for said in (
        f"directories of zip files of more than {zipped.DIRECTORY_BYTES // mebibyte} MiB",
        f"manifests of more than {bundle.MANIFEST_BYTES // mebibyte} MiB or "
        f"{bundle.MOST_FILES:,} files",
        f"metadata of more than {records.most_bytes('datasets/5.json') // mebibyte} MiB",
        f"an image of more than {records.most_bytes('images/7/image-t2.jpg') // 2**30} GiB",
        f"more than 2^{records.MOST_PIXELS.bit_length() - 1} pixels",
    ):
        assert said in flat
