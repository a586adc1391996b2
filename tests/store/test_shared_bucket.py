"""A cache in a bucket, shared by processes that have no folder in common."""

import json
import os
import subprocess
import sys

import fsspec
import numpy as np
import pytest
from click.testing import CliRunner

import atldld
from atldld.cli import main
from atldld.errors import AtldldWarning
from atldld.testing import AllenServer, PhantomBrain, phantom_dataset
from moto_server import BUCKET, ENVIRONMENT, s3_server

pytestmark = pytest.mark.exhaustive

pytest.importorskip("s3fs")

PHANTOM = phantom_dataset(
    71, sections=4, resolution=30, brain=PhantomBrain(texture="smooth"), tier_count=4
)
WORK = """
import sys, atldld
array = atldld.open_dataarray(71, resolution=200, source=sys.argv[1])
print(array.compute().values.tobytes().hex())
"""


@pytest.fixture(scope="module")
def bucket():
    with s3_server() as url, pytest.MonkeyPatch.context() as patch:
        for name, value in {**ENVIRONMENT, "AWS_ENDPOINT_URL": url}.items():
            patch.setenv(name, value)
        store = fsspec.filesystem("s3", skip_instance_cache=False)
        store.mkdir(BUCKET)
        yield store


@pytest.fixture
def cache(bucket, request):
    name = f"{BUCKET}/{request.node.name}"
    with atldld.set_options(cache_dir=f"s3://{name}"):
        yield name


@pytest.fixture(scope="module")
def server():
    with AllenServer(PHANTOM) as running:
        yield running


def elsewhere(server, cache, home):
    """Return the bytes of the pixels as a process of another home computes them."""
    done = subprocess.run(
        [sys.executable, "-W", "error::atldld.errors.AtldldWarning", "-c", WORK, server.url],
        env={**os.environ, "ATLDLD_CACHE_DIR": f"s3://{cache}", "HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return bytes.fromhex(done.stdout)


def test_what_one_fetched_serves_all(server, bucket, cache, tmp_path):
    here = atldld.open_dataarray(71, resolution=200, source=server.url).compute().values
    assert len(bucket.glob(f"{cache}/*/images/*/*.jpg")) == 4
    server.reset_log()
    assert elsewhere(server, cache, tmp_path) == here.tobytes()
    assert server.image_requests == []


def test_damage_and_other_sections_are_misses_there_too(server, bucket, cache, tmp_path):
    array = atldld.open_dataarray(71, resolution=200, source=server.url)
    here = array.compute().values
    one, two, three, four = sorted(bucket.glob(f"{cache}/*/images/*/*.jpg"))
    bucket.pipe_file(one, bucket.cat_file(one)[:-9])
    bucket.rm_file(f"{two}.json")
    record = json.loads(bucket.cat_file(f"{three}.json"))
    bucket.pipe_file(f"{three}.json", json.dumps({**record, "section": [9, 9, 9, 9]}).encode())
    bucket.pipe_file(f"{four}.json", bucket.cat_file(f"{one}.json"))
    server.reset_log()
    np.testing.assert_array_equal(array.compute().values, here)
    assert len(server.image_requests) == 4


def test_it_is_a_source_without_the_service(server, bucket, cache):
    here = atldld.open_dataarray(71, resolution=200, source=server.url).compute()
    (folder,) = bucket.ls(cache, detail=False)
    with atldld.set_options(api_url="http://127.0.0.1:9", retries=0):
        there = atldld.open_dataarray(71, resolution=200, source=f"s3://{folder}").compute()
    np.testing.assert_array_equal(there, here)


def test_it_is_shown_verified_and_cleared(server, bucket, cache):
    atldld.open_dataarray(71, resolution=200, source=server.url).compute()

    def run(*arguments, status=0):
        done = CliRunner().invoke(main, ["cache", *arguments])
        assert done.exit_code == status, done.output
        return done.output

    assert "4 images, 1 dataset" in run("show")
    first = bucket.glob(f"{cache}/*/images/*/*.jpg")[0]
    bucket.pipe_file(first, bucket.cat_file(first)[:-1] + b"x")
    assert f"s3://{first}" in run("verify", status=1)
    assert "no limit is kept there" in run("trim", "--limit", "1 MB", status=2)
    run("clear", "--yes")
    assert bucket.find(cache) == []


def test_a_bucket_that_is_not_there_costs_a_warning(server, bucket):
    with (
        atldld.set_options(cache_dir="s3://no-such-bucket/cache"),
        pytest.warns(AtldldWarning, match="cannot be written to"),
    ):
        atldld.open_dataarray(71, resolution=200, source=server.url).compute()
    assert not bucket.exists("no-such-bucket")


@pytest.mark.parametrize("url", ["https://h/cache", "s3://key:secret@bucket/x", "zip::s3://b"])
def test_addresses_that_cannot_be_a_cache(url):
    with pytest.raises(ValueError, match="cache_dir is"):
        atldld.set_options(cache_dir=url)
