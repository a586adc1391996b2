"""A stand-in for the Allen API, on loopback."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from . import synchronisation as sync
from .bodies import Bodies
from .doubts import Doubts
from .handler import Handler
from .image_service import BadRequestError, Images, Region
from .listener import Listener
from .log import Log, Request
from .routes import Grid, Routes
from .served import BareRows, Served
from .tables import Tables
from .traffic import Fault, Faults

if TYPE_CHECKING:
    from .spawn import SpawnedServer


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
    structure_centres
        p, i, r by structure id and reference space, for ``structure_to_image``.
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
        grids: Mapping[int, Grid] | None = None,
        grid_files: Mapping[tuple[int, str, int], bytes] | None = None,
        archive: Mapping[str, bytes] | None = None,
        structures: bytes | None = None,
    ) -> None:
        self.datasets = _sources(datasets)
        self.latency = latency
        self.doubts = doubts or Doubts()
        if redirects is not None:
            self.doubts = replace(self.doubts, redirects=redirects)
        self.images = Images(self.datasets, self.doubts)
        self.faults = Faults(faults)
        self.log = Log()
        self.closing = threading.Event()
        self.errors: list[str] = []
        self._bodies = Bodies(cache_bytes)
        self._listener = Listener(host, port, type("Handler", (Handler,), {"allen": self}))
        self._host, self._port = self._listener.server_address[:2]
        self.routes = Routes(
            self.origin,
            self.images,
            Tables(self.datasets, self.doubts.missing_alignment),
            self.doubts,
            self._bodies,
            {**sync.STRUCTURE_CENTRES, **(structure_centres or {})},
            {} if grids is None else grids,
            {} if grid_files is None else grid_files,
            dict(archive or {}),
            structures,
        )

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
        wanted = None if tiers is None else {tiers} if isinstance(tiers, int) else set(tiers)
        regions = [
            self.images.whole(image_id, view, tier)
            for image_id in (self.images.image_ids if image_ids is None else image_ids)
            for tier in range(self.images.row(image_id).get("tier_count") or 1)
            if wanted is None or tier in wanted
        ]

        def make(region: Region) -> int:
            try:
                return self._bodies.prepare(region, lambda: self.images.body(region))
            except BadRequestError:
                return 0

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return sum(pool.map(make, regions))


def _sources(
    datasets: Served | Mapping[str, Any] | Iterable[Served | Mapping[str, Any]],
) -> list[Served]:
    several: list[Any]
    if isinstance(datasets, Mapping) or hasattr(datasets, "slide_pixels"):
        several = [datasets]
    else:
        several = list(datasets)
    return [BareRows(one) if isinstance(one, Mapping) else one for one in several]
