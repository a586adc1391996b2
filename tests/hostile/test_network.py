"""Only the network that was named: no other host, no other scheme, no secret on the way."""

from __future__ import annotations

import logging
import subprocess
import sys
import textwrap
import threading
import warnings
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import atldld
from atldld.errors import APIError, AtldldError
from atldld.options import set_options
from atldld.testing import AllenServer, Fault

from .conftest import DATASET, small_phantom

pytestmark = pytest.mark.exhaustive

SECRET = "s3cr3t-of-a-user"


class Elsewhere:
    """A server that answers each request with a redirect, and counts them."""

    def __init__(self, location: Any, status: int = 302) -> None:
        self.paths: list[str] = []
        self.authorizations: list[str | None] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                outer.paths.append(self.path)
                outer.authorizations.append(self.headers.get("Authorization"))
                self.send_response(status)
                self.send_header("Location", location(outer) if callable(location) else location)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever)

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Elsewhere:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


@pytest.fixture(autouse=True)
def _options(tmp_path):
    with set_options(cache_dir=tmp_path / "cache", retries=1, timeout=10):
        yield


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://127.0.0.1/x",
        "data:application/json,{}",
        "javascript:alert(1)",
        "gopher://127.0.0.1:1/_x",
        "//",
        "http://",
        "http://[::1",
        "http://127.0.0.1:0/",
        "http://127.0.0.1:99999/",
        "\\\\host\\share",
        "",
    ],
)
def test_redirects_stay_on_the_web(location, status, tmp_path):
    with Elsewhere(location, status) as server, pytest.raises(APIError) as caught:
        atldld.open_dataarray(DATASET, source=server.origin)
    assert len(server.paths) <= 12
    assert "passwd" not in str(caught.value)


def test_a_redirect_to_a_file_reads_nothing(tmp_path):
    """The file holds just what the service would answer: it would open if it were read."""
    import json

    from .conftest import envelope

    file = tmp_path / "answer.json"
    file.write_text(json.dumps(envelope([small_phantom().row])))
    with (
        Elsewhere(file.as_uri()) as server,
        pytest.raises(APIError, match="not an http or https URL"),
    ):
        atldld.open_dataarray(DATASET, source=server.origin)
    assert len(server.paths) == 1


@pytest.mark.parametrize(
    "location",
    [
        lambda server: server.paths[-1],
        lambda server: f"{server.origin}/{len(server.paths)}",
        lambda server: server.origin + "/x" * len(server.paths),
    ],
    ids=["itself", "ever new", "ever longer"],
)
def test_redirects_end(location):
    with Elsewhere(location) as server, pytest.raises(APIError, match="redirected more than 5"):
        atldld.open_dataarray(DATASET, source=server.origin)
    assert len(server.paths) == 6


def secrets_in(texts: Any) -> list[str]:
    return [text for text in map(str, texts) if SECRET in text]


@pytest.mark.parametrize("fault", ["none", "404", "503", "html", "drop", "truncated"])
def test_a_password_in_the_address_reaches_nothing_that_is_shown(server, caplog, fault, tmp_path):
    caplog.set_level(logging.DEBUG)
    base = server.url.replace("http://", f"http://me:{SECRET}@")
    if fault != "none":
        server.add_fault(Fault(fault, request="image"))
    shown: list[Any] = []
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        dataset = atldld.open_dataset(DATASET, source=base, resolution=500)
        shown += [repr(dataset), dataset.attrs, dataset.image.attrs, dataset.image.data.name]
        shown += [dataset.image.atlas.plan().to_csv(), dataset._repr_html_()]
        shown += [dict(dataset.image.__dask_graph__()).keys()]
        try:
            dataset.image.compute()
        except AtldldError as error:
            shown += [error, repr(error), vars(error), error.__cause__, error.__context__]
            assert fault != "none"
        shown += [dataset.image.atlas.prefetch().to_csv()]
    shown += [each.message for each in said] + caplog.messages
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    shown += [path.as_posix() for path in files]
    shown += [path.read_bytes().decode("latin-1") for path in files]
    assert files
    assert not secrets_in(shown)


@pytest.mark.parametrize(
    "address",
    [
        f"http://127.0.0.1:9/api/v2?api_key={SECRET}",
        f"http://me:{SECRET}@127.0.0.1:9/api/v2?x=1",
        f"https://127.0.0.1:9/#{SECRET}",
        f"ftp://me:{SECRET}@127.0.0.1/",
        f"http://me:{SECRET}@",
        f"http://me:{SECRET}/@127.0.0.1:9/api",
        f"http://127.0.0.1:9/api/v2;token={SECRET}?a",
        f"s3://key:{SECRET}@bucket/x",
    ],
)
@pytest.mark.parametrize("door", ["source", "api_url"])
def test_an_address_with_a_secret_is_refused_without_repeating_it(address, door):
    def enter() -> Any:
        if door == "source":
            return atldld.open_dataarray(DATASET, source=address)
        with set_options(api_url=address):
            return atldld.open_dataarray(DATASET)

    with set_options(retries=0), pytest.raises((ValueError, AtldldError)) as caught:
        enter()
    error: BaseException | None = caught.value
    while error is not None:
        assert not secrets_in([error, repr(error)])
        error = error.__cause__ or error.__context__


def test_a_secret_in_a_redirect_is_not_shown(caplog):
    """A service may send a client on with a signed address."""
    caplog.set_level(logging.DEBUG, logger="atldld")

    def signed(other: Any) -> str:
        return f"http://me:{SECRET}@127.0.0.1:9/x?api_key={SECRET}"

    with Elsewhere(signed) as server, pytest.raises(APIError) as caught:
        atldld.open_dataarray(DATASET, source=server.origin)
    ours = [record.getMessage() for record in caplog.records if record.name == "atldld"]
    assert not secrets_in([caught.value, repr(caught.value), vars(caught.value), *ours])


def test_a_password_is_not_sent_where_a_redirect_leads():
    with Elsewhere("http://127.0.0.1:9/") as other:
        here = Elsewhere(lambda _: other.origin + "/api")
        with here, set_options(retries=0), pytest.raises(APIError):
            atldld.open_dataarray(
                DATASET, source=here.origin.replace("http://", f"http://me:{SECRET}@")
            )
    assert here.authorizations[0] is not None
    assert other.authorizations
    assert set(other.authorizations) == {None}


AUDITED = """
    import sys

    seen = set()

    def hook(event, args):
        if event == "socket.connect":
            seen.add(f"{event} {args[1]}")
        elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto"):
            seen.add(f"{event} {args[:2]}")
        elif event in ("subprocess.Popen", "os.system", "urllib.Request", "os.exec"):
            seen.add(f"{event} {args[:1]}")

    import atldld, numpy, dask.array, cv2, simplejpeg, requests
    sys.addaudithook(hook)
    with atldld.set_options(cache_dir=sys.argv[2], progress=False):
        both = atldld.open_dataset(
            901, source=sys.argv[1], resolution=500, include_expression=True
        )
        repr(both), both._repr_html_()
        both.image.atlas.plan()
        both.image.atlas.prefetch()
        both.compute(scheduler="threads")
        both.image.atlas.at(p=5000, i=slice(1000, 4000)).compute(scheduler="sync")
        try:
            atldld.open_dataarray(902, source=sys.argv[1])
        except atldld.DatasetNotFoundError:
            pass
    print(*sorted(seen), sep="\\n")
"""


def test_no_network_but_the_source_named(server, tmp_path):
    """Python reports every connection and every look-up of a name to an audit hook."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(AUDITED), server.url, tmp_path / "cache"],
        capture_output=True,
        text=True,
        check=True,
    )
    port = server.url.split(":")[2].split("/")[0]
    lines = done.stdout.split("\n")[:-1]
    connects = [line for line in lines if line.startswith("socket.connect")]
    lookups = [line for line in lines if line.startswith("socket.getaddrinfo")]
    assert connects == [f"socket.connect ('127.0.0.1', {port})"]
    assert all("127.0.0.1" in line for line in lookups)
    assert sorted(connects + lookups) == sorted(lines)


def test_nothing_is_written_outside_the_cache(tmp_path):
    """Names in the cache are made of numbers and known words, whatever the service says."""
    row = small_phantom().altered(
        lambda row: row.update(
            genes=[{"acronym": "../../../evil"}], storage_directory="/etc", name="../x"
        )
    )
    with AllenServer([row]) as server, set_options(cache_dir=tmp_path / "a" / "b" / "cache"):
        atldld.open_dataset(DATASET, source=server.url, resolution=500).compute()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    inside = (tmp_path / "a" / "b" / "cache").resolve()
    assert all(Path(path).resolve().is_relative_to(inside) for path in files)
