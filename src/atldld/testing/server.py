"""A stand-in for the Allen API, on loopback: in this process, or in one of its own."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Self

from .doubts import Doubts
from .image_service import BadRequestError, Region
from .routes import Grid, Routes
from .served import BareRows, Served
from .traffic import Fault, Faults, Log, Request
from .wire import Line, Listener, delivery, spoilt, text

Serving = Served | Mapping[str, Any]
"""What a server serves: a dataset or several, or a bare row."""


class AllenServer:
    """A server that speaks the Allen API: metadata, synchronisation, images.

    Parameters
    ----------
    datasets
        What to serve: a `PhantomDataset`, what `load_recorded` returned, a SectionDataSet row
        (a dict, which may be as odd as you like), or several of these; or a `SyntheticAtlas`.
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
    grids
        Zip files that the grid service sends, by dataset id; or functions that make one of the
        names of the volumes asked for.
    grid_files
        Files of the connectivity atlas, by dataset id, name (``"projection_density"``) and
        resolution in microns.
    archive
        Files of Allen's archive by their path in it (``mouse_annotation/...``), in place of
        the made-up atlas that is served there by default.
    structures
        The structure graph as JSON, in place of the made-up one.

    Examples
    --------
    >>> import json
    >>> from atldld.testing import AllenServer, phantom_dataset
    >>> from urllib.request import urlopen
    >>> with AllenServer(phantom_dataset(7, sections=2)) as server:
    ...     with urlopen(f"{server.url}/data/SectionDataSet/7.json") as answer:
    ...         print(json.load(answer)["num_rows"], len(server.requests))
    1 1
    """

    def __init__(
        self,
        datasets: Serving | Iterable[Serving] = (),
        *,
        latency: float = 0.0,
        doubts: Doubts | None = None,
        faults: Iterable[Fault] = (),
        redirects: bool | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        cache_bytes: int = 2**28,
        grids: Mapping[int, Grid] | None = None,
        grid_files: Mapping[tuple[int, str, int], bytes] | None = None,
        archive: Mapping[str, bytes] | None = None,
        structures: bytes | None = None,
    ) -> None:
        doubts = doubts or Doubts()
        if redirects is not None:
            doubts = replace(doubts, redirects=redirects)
        self.errors: list[str] = []
        """What went wrong in the server itself: tracebacks."""
        self._latency = latency
        self._faults = Faults(faults)
        self._log = Log()
        self._listener = Listener(host, port, self._exchange)
        self._routes = Routes(
            self.origin,
            _sources(datasets),
            doubts,
            cache_bytes,
            grids or {},
            grid_files or {},
            archive or {},
            structures,
        )

    @staticmethod
    def spawn(datasets: Serving | Iterable[Serving] = (), **options: Any) -> SpawnedServer:
        """Return a server in a process of its own, to be entered with ``with``.

        Takes what `AllenServer` takes; its log, faults and preparation are reached by the same
        names.
        """
        return SpawnedServer(_sources(datasets), options)

    def __enter__(self) -> Self:
        self._listener.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End, with every connection and thread."""
        self._listener.stop()

    @property
    def origin(self) -> str:
        """Scheme, host and port."""
        return f"http://{self._listener.server_name}:{self._listener.server_port}"

    @property
    def url(self) -> str:
        """Base URL of the API."""
        return f"{self.origin}/api/v2"

    @property
    def requests(self) -> list[Request]:
        """Everything answered so far; what a client has the answer of is in it."""
        return self._log.requests

    @property
    def image_requests(self) -> list[Request]:
        """The requests for bodies of images, without the redirects that led to them."""
        return [request for request in self.requests if request.kind == "image"]

    @property
    def connections_high_water(self) -> int:
        """The most requests that were being served at one time."""
        return self._log.high_water

    def reset_log(self) -> None:
        """Forget all requests, and begin the high water anew."""
        self._log.reset()

    def add_fault(self, fault: Fault) -> None:
        """Let something go wrong from now on."""
        self._faults.add(fault)

    def clear_faults(self) -> None:
        """Let all go well from now on."""
        self._faults.clear()

    def prepare(
        self,
        view: str = "image",
        tiers: int | Iterable[int] | None = None,
        image_ids: Iterable[int] | None = None,
    ) -> int:
        """Encode whole images beforehand and keep them, so that serving costs no work.

        Images that there are not (views, recorded tiers) are passed over.

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
        images = self._routes.images
        wanted = None if tiers is None else {tiers} if isinstance(tiers, int) else set(tiers)
        regions = [
            images.whole(image_id, view, tier)
            for image_id in (images.image_ids if image_ids is None else image_ids)
            for tier in range(images.row(image_id).get("tier_count") or 1)
            if wanted is None or tier in wanted
        ]

        def make(region: Region) -> int:
            try:
                return images.prepare(region)
            except BadRequestError:
                return 0

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return sum(pool.map(make, regions))

    def _exchange(self, target: str, line: Line) -> None:
        """Answer one request on the line that it came by, with what goes wrong."""
        leave, began = self._log.enter(), time.monotonic()
        try:
            asked = Request(-1, "other", target)
            waits, fault = 0.0, None
            try:
                asked, make = self._routes.respond(target)
                waits, fault = self._faults.draw(asked)
                answer = make(fault)
                if fault is not None:
                    answer = spoilt(answer, fault)
            except Exception:
                fault = None
                self.errors.append(traceback.format_exc())
                answer = text(500, self.errors[-1])
            named = fault.kind if fault is not None else "latency" if waits else None
            left = self._latency + waits - (time.monotonic() - began)
            if left > 0:
                self._listener.closing.wait(left)
            going = delivery(answer, fault, keep_alive=line.keep_alive)
            status = 0 if named in ("hang", "drop") else answer.status
            place = self._log.write(asked, status, going.body_bytes, named)
            try:
                line.send(going, leave)
            finally:
                if line.sent != going.body_bytes:
                    self._log.correct(place, line.sent)
        finally:
            leave()


class SpawnedServer:
    """An `AllenServer` in another process, with its names for log, faults and preparation.

    The process ends when this is closed, and when the process that began it ends.

    Parameters
    ----------
    sources
        What to serve; is pickled, as is all that the server is asked and answers.
    options
        Keyword arguments of `AllenServer`.
    """

    requests: list[Request]
    image_requests: list[Request]
    connections_high_water: int
    errors: list[str]
    reset_log: Callable[[], None]
    add_fault: Callable[[Fault], None]
    clear_faults: Callable[[], None]
    prepare: Callable[..., int]

    def __init__(self, sources: list[Served], options: dict[str, Any]) -> None:
        self._given = pickle.dumps((sources, options))
        self._asking = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self.url = ""

    def __enter__(self) -> Self:
        command = [sys.executable, "-c", f"from {__name__} import answer_pipes; answer_pipes()"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            self.url = self._told(self._given)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getattr__(self, name: str) -> Any:
        """Return an attribute of the server, or what asks a method of it."""
        if name in ("reset_log", "add_fault", "clear_faults", "prepare"):
            return lambda *given, **named: self._ask(name, *given, **named)
        if name in SpawnedServer.__annotations__:
            return self._ask(name)
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def close(self) -> None:
        """End the process."""
        if self._process is None:
            return
        process, self._process = self._process, None
        try:
            process.communicate(timeout=10.0)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()

    @property
    def pid(self) -> int | None:
        """Process id, while it runs."""
        return None if self._process is None else self._process.pid

    def _ask(self, name: str, *given: Any, **named: Any) -> Any:
        return self._told(pickle.dumps((name, given, named)))

    def _told(self, question: bytes) -> Any:
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise RuntimeError("the server is not running; enter it with `with`")
        with self._asking:
            try:
                process.stdin.write(question)
                process.stdin.flush()
                found, refused = pickle.load(process.stdout)
            except (EOFError, BrokenPipeError) as error:
                message = "the server's process has ended; what it said is on standard error"
                raise RuntimeError(message) from error
        if refused is not None:
            raise ValueError(f"the server refused: {refused}")
        return found


def answer_pipes() -> None:
    """Serve as a `SpawnedServer` says on standard input, until that ends."""
    questions, told = sys.stdin.buffer, sys.stdout.buffer
    sources, options = pickle.load(questions)
    with AllenServer(sources, **options) as server:
        found: Any = server.url
        refused: str | None = None
        while True:
            pickle.dump((found, refused), told)
            told.flush()
            try:
                name, given, named = pickle.load(questions)
            except EOFError:
                return
            found = refused = None
            try:
                asked = getattr(server, name)
                found = asked(*given, **named) if callable(asked) else asked
            except (TypeError, ValueError, LookupError, BadRequestError) as error:
                refused = str(error)


def _sources(datasets: Serving | Iterable[Serving]) -> list[Served]:
    alone = isinstance(datasets, Mapping) or hasattr(datasets, "slide_pixels")
    several: Any = [datasets] if alone else datasets
    return [BareRows(one) if isinstance(one, Mapping) else one for one in several]
