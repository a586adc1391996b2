"""A stand-in for the Allen API, on loopback."""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from typing import TYPE_CHECKING, Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from . import rma, sync
from .bodies import Bodies
from .doubts import Doubts
from .faults import Fault, Faults, Subject
from .images import BadRequestError, Images, Region
from .listener import Listener
from .log import Log, Request
from .served import BareRows, Served
from .tables import Tables
from .wire import Answer, Line, page, spoilt

if TYPE_CHECKING:
    from .spawn import SpawnedServer

_JSON = "application/json; charset=utf-8"
_DOWNLOADS = ("section_image_download", "image_download", "projection_image_download")

Make = Callable[[Fault | None], Answer]


class AllenServer:
    """A server that speaks the Allen API: metadata, synchronisation, images.

    Parameters
    ----------
    datasets
        What to serve: a `PhantomDataset`, what `load_recorded` returned, a SectionDataSet row
        (a dict, which may be as odd as you like), or several of these.
    latency
        Seconds between each request and its answer.
    doubts
        How what is not known about the service is read.
    faults
        What goes wrong.
    redirects
        Whether image downloads are redirected to the image service; None leaves it to
        `doubts`.
    host, port
        Where to listen: a loopback address; port 0 takes a free one.
    cache_bytes
        Most bytes of encoded images to keep, besides prepared ones.
    structure_centres
        p, i, r by structure id and reference space, for ``structure_to_image``.

    Examples
    --------
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> from urllib.request import urlopen
    >>> with AllenServer(phantom_dataset(7, sections=2)) as server:
    ...     with urlopen(f"{server.url}/data/SectionDataSet/7.json") as answer:
    ...         print(json.load(answer)["num_rows"], len(server.requests))
    1 1
    """

    def __init__(
        self,
        datasets: Served | Mapping[str, Any] | Iterable[Served | Mapping[str, Any]] = (),
        *,
        latency: float = 0.0,
        doubts: Doubts | None = None,
        faults: Iterable[Fault] = (),
        redirects: bool | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        cache_bytes: int = 2**28,
        structure_centres: Mapping[tuple[int, int], sync.Point] | None = None,
    ) -> None:
        self.datasets = _sources(datasets)
        self.latency = latency
        self.doubts = doubts or Doubts()
        if redirects is not None:
            self.doubts = replace(self.doubts, redirects=redirects)
        self.images = Images(self.datasets, self.doubts)
        self.tables = Tables(self.datasets, self.doubts.missing_alignment)
        self.faults = Faults(faults)
        self.log = Log()
        self.closing = threading.Event()
        self.errors: list[str] = []
        self._bodies = Bodies(cache_bytes)
        self._centres = {**sync.STRUCTURE_CENTRES, **(structure_centres or {})}
        self._queries = 0
        self._listener = Listener(host, port, type("Handler", (_Handler,), {"allen": self}))
        self._host, self._port = self._listener.server_address[:2]

    @staticmethod
    def spawn(
        datasets: Served | Mapping[str, Any] | Iterable[Served | Mapping[str, Any]] = (),
        **options: Any,
    ) -> SpawnedServer:
        """Return a server in a process of its own, to be entered with ``with``.

        Takes what `AllenServer` takes; its log, faults and preparation are reached through a
        control URL on loopback, by the same names.
        """
        from .spawn import SpawnedServer

        return SpawnedServer(_sources(datasets), options)

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End, with every connection and thread."""
        self.closing.set()
        self._listener.stop()

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://{self._host!s}:{self._port}"

    @property
    def url(self) -> str:
        """Base URL of the API."""
        return f"{self.origin}/api/v2"

    @property
    def requests(self) -> list[Request]:
        """Everything answered so far; what a client has the answer of is in it."""
        return self.log.requests

    @property
    def image_requests(self) -> list[Request]:
        """The requests for bodies of images, without the redirects that led to them."""
        return [request for request in self.log.requests if request.kind == "image"]

    @property
    def connections_high_water(self) -> int:
        """The most requests that were being served at one time."""
        return self.log.high_water

    def reset_log(self) -> None:
        """Forget all requests, and begin the high water anew."""
        self.log.reset()

    def add_fault(self, fault: Fault) -> None:
        """Let something go wrong from now on."""
        self.faults.add(fault)

    def clear_faults(self) -> None:
        """Let all go well from now on."""
        self.faults.clear()

    def prepare(
        self,
        view: str = "image",
        tiers: int | Iterable[int] | None = None,
        image_ids: Iterable[int] | None = None,
    ) -> int:
        """Encode whole images beforehand and keep them, so that serving costs no work.

        Parameters
        ----------
        view
            Which view.
        tiers
            Which tiers; None for all.
        image_ids
            Which images; None for all.

        Returns
        -------
        bytes
            How many were prepared.
        """
        wanted = None if tiers is None else {tiers} if isinstance(tiers, int) else set(tiers)
        regions = [
            self.images.whole(image_id, view, tier)
            for image_id in (self.images.image_ids if image_ids is None else image_ids)
            for tier in range(self.images.row(image_id).get("tier_count") or 1)
            if wanted is None or tier in wanted
        ]

        def make(region: Region) -> int:
            self._bodies.prepare(region, lambda: self.images.body(region))
            return len(self._body(region))

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return sum(pool.map(make, regions))

    def respond(self, target: str) -> tuple[Subject, Make]:
        """Return what a request is about, and what makes its answer."""
        parts = urlsplit(target)
        path = unquote(parts.path)
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
        shown = path if not parts.query else f"{path}?{unquote(parts.query)}"
        subject = Subject("other", shown)
        try:
            if path.startswith("/api/v2/data/"):
                rest = path.removeprefix("/api/v2/data/")
                subject = Subject("metadata", shown)
                return subject, lambda fault: self._query(rest, parameters, fault)
            if path == "/cgi-bin/imageservice":
                return self._image(shown, self.images.service(parameters))
            if path.startswith("/api/v2/"):
                service, _, rest = path.removeprefix("/api/v2/").partition("/")
                if service in sync.SERVICES:
                    subject = Subject("sync", shown)
                    return subject, lambda _: self._synchronise(service, rest, parameters)
                if service in _DOWNLOADS:
                    return self._download(service, rest, parameters, shown)
        except BadRequestError as error:
            subject = replace(subject, kind="image")
            refusal = _text(error.status, str(error))
            return subject, lambda _: refusal
        missing = _text(404, f"there is nothing at {path}")
        return subject, lambda _: missing

    def _download(
        self, service: str, rest: str, parameters: dict[str, str], shown: str
    ) -> tuple[Subject, Make]:
        if not rest.isdecimal():
            raise BadRequestError(404, f"{rest!r} is not the id of an image")
        if service == "projection_image_download":
            parameters.setdefault("view", "projection")
        region, url = self.images.download(int(rest), parameters)
        if not self.doubts.redirects:
            parts = urlsplit(url)
            return self._image(shown, self.images.service(dict(parse_qsl(parts.query))))
        answer = Answer(302, b"", "text/html", (("Location", self.origin + url),))
        subject, _ = self._image(shown, region)
        return replace(subject, kind="redirect"), lambda _: answer

    def _image(self, shown: str, region: Region) -> tuple[Subject, Make]:
        subject = Subject(
            "image",
            shown,
            region.image_id,
            region.view,
            region.tier,
            region.left,
            region.top,
            region.width,
            region.height,
            self.images.window(region),
        )

        def make(_: Fault | None) -> Answer:
            try:
                return Answer(200, self._body(region), self.doubts.content_type)
            except BadRequestError as error:
                if self.doubts.missing_expression == "html" and region.view != "image":
                    return page()
                return _text(error.status, str(error))

        return subject, make

    def _body(self, region: Region) -> bytes:
        return self._bodies.get(region, lambda: self.images.body(region))

    def _query(self, rest: str, parameters: Mapping[str, str], fault: Fault | None) -> Answer:
        self._queries += 1
        try:
            name = rest.removesuffix(".json")
            model, _, what = name.rpartition("/")
            if name == rest:
                raise rma.QueryError(f"only .json is answered here, not {rest!r}")
            if what == "query":
                query = rma.parse_request(model or None, parameters)
            else:
                asked = {"criteria": f"[id$eq{what}]", **parameters}
                query = rma.parse_request(model, asked)
            envelope = rma.answer(
                query,
                self.tables,
                self.doubts,
                phantom_rows=fault.rows if fault is not None and fault.kind == "rows" else 0,
                scramble=self._queries,
            )
            status = 200
        except rma.QueryError as error:
            envelope, status = rma.failure(str(error)), self.doubts.rma_error_status
        named = (("Content-Disposition", 'inline; filename="query.json"'),)
        return Answer(status, json.dumps(envelope).encode(), _JSON, named)

    def _synchronise(self, service: str, rest: str, parameters: Mapping[str, str]) -> Answer:
        try:
            number = rest.removesuffix(".json")
            if not number.isdecimal() or number == rest:
                raise sync.SyncError(f"{rest!r} is not the id of anything, with .json")
            found = sync.answer(
                service, int(number), parameters, self.tables, self.doubts, self._centres
            )
            envelope, status = {**rma.failure(""), "success": True, "msg": found}, 200
            envelope["num_rows"] = envelope["total_rows"] = (
                len(found) if isinstance(found, list) else 1
            )
        except sync.SyncError as error:
            envelope, status = rma.failure(str(error)), self.doubts.sync_error_status
        return Answer(status, json.dumps(envelope).encode(), _JSON)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    allen: AllenServer
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        """Answer a request, with what goes wrong."""
        if self.path.startswith("/_testing/"):
            self._control(b"")
            return
        allen = self.allen
        leave = allen.log.enter()
        try:
            self._answer(leave)
        except OSError:
            self.close_connection = True
        finally:
            leave()

    def do_POST(self) -> None:
        """Answer a control request; the service itself is only asked by GET."""
        length = self.headers.get("Content-Length", "0")
        body = self.rfile.read(int(length) if length.isdecimal() else 0)
        if self.path.startswith("/_testing/"):
            self._control(body)
        else:
            self.send_error(405)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""

    def _answer(self, leave: Callable[[], None]) -> None:
        allen, began = self.allen, time.monotonic()
        subject, make = Subject("other", self.path), None
        fault: Fault | None = None
        waits = allen.latency
        try:
            subject, make = allen.respond(self.path)
            hits = allen.faults.draw(subject)
            waits += sum(hit.seconds or 0.0 for hit in hits if hit.kind == "latency")
            fault = next((hit for hit in hits if hit.kind != "latency"), None)
            named = fault.kind if fault is not None else "latency" if hits else None
            answer = make(fault)
            if fault is not None:
                answer = spoilt(answer, fault)
        except Exception:
            named = None
            allen.errors.append(traceback.format_exc())
            answer = _text(500, allen.errors[-1])
        left = waits - (time.monotonic() - began)
        if left > 0:
            allen.closing.wait(left)
        silent = fault is not None and fault.kind in ("hang", "drop")
        planned = 0 if silent else len(answer.body)
        place = allen.log.write(subject, 0 if silent else answer.status, planned, named)
        line = Line(self.connection, allen.closing, not self.close_connection, leave)
        try:
            line.send(answer, fault)
        finally:
            if line.sent != planned:
                allen.log.correct(place, line.sent)
            if not line.keep_alive:
                self.close_connection = True

    def _control(self, body: bytes) -> None:
        from .control import control

        answer = control(self.allen, self.path, body)
        line = Line(self.connection, self.allen.closing, not self.close_connection, lambda: None)
        try:
            line.send(answer, None)
        except OSError:
            self.close_connection = True


def _sources(
    datasets: Served | Mapping[str, Any] | Iterable[Served | Mapping[str, Any]],
) -> list[Served]:
    several: list[Any]
    if isinstance(datasets, Mapping) or hasattr(datasets, "slide_pixels"):
        several = [datasets]
    else:
        several = list(datasets)
    return [BareRows(one) if isinstance(one, Mapping) else one for one in several]


def _text(status: int, message: str) -> Answer:
    return Answer(status, message.encode(), "text/plain; charset=utf-8")
