from __future__ import annotations

import http.client
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from atldld.testing import AllenServer, PhantomBrain, PhantomDataset, phantom_dataset


class Reply(NamedTuple):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def fetch_url(url: str, *, follow: bool = True) -> Reply:
    """Ask once, by a connection of its own; follow redirects."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.netloc, timeout=20)
    try:
        connection.request("GET", f"{parts.path}?{parts.query}" if parts.query else parts.path)
        answer = connection.getresponse()
        reply = Reply(
            answer.status,
            {name.lower(): value for name, value in answer.getheaders()},
            answer.read(),
        )
    finally:
        connection.close()
    if follow and reply.status == 302:
        return fetch_url(reply.headers["location"])
    return reply


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of recorded answers; what needs it is skipped where it is absent."""
    default = Path(__file__).parents[2].parent / "shared" / "real"
    folder = Path(os.environ.get("ATLDLD_REAL_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no recorded data at {folder}; set ATLDLD_REAL_DATA")
    return folder


@pytest.fixture(scope="session")
def fetch() -> Callable[..., Reply]:
    """Ask a server for a path below its base URL (or below its origin, for /cgi-bin)."""

    def ask(server: Any, path: str, **options: Any) -> Reply:
        base = server.url.removesuffix("/api/v2") if path.startswith("/cgi-bin") else server.url
        return fetch_url(base + path, **options)

    return ask


@pytest.fixture(scope="session")
def slides() -> PhantomDataset:
    """Six sections on two slides, in the smooth texture."""
    return phantom_dataset(
        1001, tilt=10, sections=6, brain=PhantomBrain("smooth"), slides=True, resolution=16.0
    )


@pytest.fixture(scope="module")
def server(slides: PhantomDataset) -> Any:
    """A sound server with one coronal and one sagittal dataset."""
    sagittal = phantom_dataset(2002, "sagittal", sections=3, gene="Prox1", resolution=32.0)
    with AllenServer([slides, sagittal]) as running:
        yield running
        assert running.errors == []
