"""``atldld catalogue``."""

import json

import pytest
from click.testing import CliRunner

import atldld
from atldld.cli import main
from atldld.testing import AllenServer, SyntheticAtlas


def run(*arguments, status=0):
    done = CliRunner().invoke(main, [str(each) for each in arguments])
    assert done.exit_code == status, done.output
    return done


@pytest.fixture
def server(tmp_path):
    with (
        AllenServer(SyntheticAtlas(7)) as running,
        atldld.set_options(cache_dir=tmp_path / "cache", api_url=running.url),
    ):
        yield running


def test_build_info_and_export(server, tmp_path):
    assert "atldld catalogue build" in run("catalogue", "info", status=1).stderr
    told = json.loads(run("catalogue", "build", "--json").stdout)
    assert (told["datasets"], told["images"]) == (7, None)
    told = json.loads(run("catalogue", "build", "--images", "--json").stdout)
    assert told["images"] == len(atldld.catalogue(images=True).images)
    server.reset_log()
    assert json.loads(run("catalogue", "info", "--json").stdout) == told
    assert "7 datasets" in run("catalogue", "info").stdout
    copy = run("catalogue", "export", tmp_path / "copy").stdout.strip()
    assert json.loads(run("catalogue", "info", copy, "--json").stdout)["datasets"] == 7
    assert server.requests == []
    assert "no catalogue at" in run("catalogue", "info", tmp_path, status=1).stderr
