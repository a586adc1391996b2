from __future__ import annotations

import io
import json
import os
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import simplejpeg
from PIL import Image

import atldld
from atldld.model.read import ImageRead
from atldld.options import set_options
from atldld.testing import phantom_dataset

REAL = Path(os.environ.get("ATLDLD_REAL_DATA", Path(__file__).parents[3] / "shared" / "real"))

needs_real_data = pytest.mark.skipif(
    not REAL.is_dir(), reason="no recorded data (ATLDLD_REAL_DATA)"
)


@dataclass(frozen=True)
class Request:
    """What a client asked, and as which request since the server began."""

    path: str
    headers: dict[str, str]
    number: int


Step = bytes | threading.Event | str
Handler = Callable[[Request], "bytes | Iterator[Step]"]


@dataclass
class ScriptServer:
    """A server on loopback that sends exactly the bytes that a test wrote down.

    The handler returns bytes, or an iterator of bytes to be sent one after another, of events
    to be waited for, and of "reset" and "close".
    """

    handler: Handler
    requests: list[Request] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    connections: int = 0
    tls: ssl.SSLContext | None = None

    def __post_init__(self) -> None:
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        self._open: set[socket.socket] = set()
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    @property
    def url(self) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://127.0.0.1:{self._socket.getsockname()[1]}"

    @property
    def paths(self) -> list[str]:
        return [request.path for request in self.requests]

    def stop(self) -> None:
        if self._stopped.is_set():
            return
        self._stopped.set()
        # Closing a listening socket does not wake the thread that accepts on it.
        self._socket.shutdown(socket.SHUT_RDWR)
        with self._lock:
            for client in self._open:
                with suppress(OSError):
                    client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._socket.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._socket.accept()
            except OSError:
                return
            with self._lock:
                if self._stopped.is_set():
                    client.close()
                    return
                self._open.add(client)
                self.connections += 1
            thread = threading.Thread(target=self._serve, args=(client,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        if self.tls is not None:
            with self._lock:
                self._open.discard(client)
            try:
                client = self.tls.wrap_socket(client, server_side=True)
            except OSError:
                client.close()
                return
            with self._lock:
                self._open.add(client)
        stream = client.makefile("rb")
        try:
            while (request := self._read(stream)) is not None:
                try:
                    if not self._answer(client, request):
                        return
                finally:
                    with self._lock:
                        self.at_once -= 1
        except OSError:
            pass
        finally:
            with self._lock:
                self._open.discard(client)
                stream.close()
                client.close()

    def _read(self, stream: Any) -> Request | None:
        line = stream.readline().decode("latin-1").split()
        if not line:
            return None
        headers = {}
        while (text := stream.readline().decode("latin-1").strip()) != "":
            name, _, value = text.partition(":")
            headers[name.lower()] = value.strip()
        with self._lock:
            request = Request(line[1], headers, len(self.requests))
            self.requests.append(request)
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        return request

    def _answer(self, client: socket.socket, request: Request) -> bool:
        steps = self.handler(request)
        if isinstance(steps, bytes):
            client.sendall(steps)
            return b"connection: close" not in steps[:500].lower()
        for step in steps:
            if isinstance(step, bytes):
                client.sendall(step)
            elif isinstance(step, threading.Event):
                step.wait(30)
            elif step == "reset":
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                return False
            else:
                return False
        return True


def answer(body: bytes = b"", status: str = "200 OK", **headers: str) -> bytes:
    """Return a whole answer with a length; names of headers are spelled with underscores."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


def rows_answer(rows: Any, **envelope: Any) -> bytes:
    """Return the service's answer to a query."""
    count = len(rows) if isinstance(rows, list) else 0
    whole = {"success": True, "id": 0, "start_row": 0, "num_rows": count, "total_rows": count}
    return answer(json.dumps({**whole, **envelope, "msg": rows}).encode())


def jpeg(width: int = 64, height: int = 48, seed: int = 0) -> bytes:
    """Return a JPEG of some noise."""
    pixels = bytes((i * 7919 + seed * 104729 + i * i // 31) % 256 for i in range(width * height))
    out = io.BytesIO()
    Image.frombytes("L", (width, height), pixels).convert("RGB").save(out, "JPEG", quality=90)
    return out.getvalue()


def a_read(image_id: int = 7, **changes: Any) -> ImageRead:
    fields: dict[str, Any] = {
        "view": "image", "tier": 2, "width": 64, "height": 48, "dataset_id": 5,
        "section_number": 70,
    }  # fmt: skip
    return ImageRead(image_id, **{**fields, **changes})


SMALL = phantom_dataset(5, sections=6, resolution=200, tier_count=1, seed=4)
"""A dataset of which `small_answer` is the service: its images are noise, a few kilobytes each."""

SMALL_IMAGES: list[dict[str, Any]] = sorted(
    SMALL.row["section_images"], key=lambda image: image["id"]
)
BODIES = [
    jpeg(image["width"], image["height"], seed=number) for number, image in enumerate(SMALL_IMAGES)
]
PIXELS = [simplejpeg.decode_jpeg(body) for body in BODIES]
_NUMBERS = {image["id"]: number for number, image in enumerate(SMALL_IMAGES)}


def number_asked(request: Request) -> int | None:
    """Return which image of the small dataset is asked for, or None for anything else."""
    path = request.path.partition("?")[0]
    return _NUMBERS[int(path.rpartition("/")[2])] if "section_image_download" in path else None


def numbers_asked(server: ScriptServer) -> list[int]:
    """Return which images of the small dataset were asked for, in their order."""
    numbers = map(number_asked, list(server.requests))
    return [number for number in numbers if number is not None]


def small_answer(request: Request) -> bytes:
    """Answer for the service of the small dataset."""
    number = number_asked(request)
    return rows_answer([SMALL.row]) if number is None else answer(BODIES[number])


def small_image(url: str, number: int) -> np.ndarray[Any, Any]:
    """Return the pixels of an image of the small dataset, as a user gets them."""
    image = SMALL_IMAGES[number]
    return atldld.open_image(image["id"], dataset_id=SMALL.id, chunks=None, source=url).values


@pytest.fixture
def serve() -> Iterator[Callable[..., ScriptServer]]:
    servers: list[ScriptServer] = []

    def start(handler: Handler, **settings: Any) -> ScriptServer:
        servers.append(ScriptServer(handler, **settings))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(autouse=True)
def quick_options(tmp_path, monkeypatch):
    """Keep to a cache of the test's own, and to short pauses (a twentieth of the timeout)."""
    certificates = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
    for name in list(os.environ):
        if name.startswith("ATLDLD_") or name.lower().endswith("_proxy") or name in certificates:
            monkeypatch.delenv(name)
    with set_options(cache_dir=tmp_path / "cache", timeout=3, retries=2):
        yield
