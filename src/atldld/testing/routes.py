"""From the URL of a request to its answer."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from . import oracle
from .archive import ARCHIVE, archive_file, ontology
from .doubts import Doubts
from .image_service import BadRequestError, Images, Region
from .queries import QueryError, parse_request
from .served import Served
from .service_rows import Row
from .tables import Tables, answer_query
from .traffic import Fault, Request
from .wire import Answer, page, text

_JSON = "application/json; charset=utf-8"
_BYTES = "application/octet-stream"
_DOWNLOADS = ("section_image_download", "image_download", "projection_image_download")

Make = Callable[[Fault | None], Answer]
Grid = bytes | Callable[[Sequence[str]], bytes]
Parameters = Mapping[str, str]


class SyncError(Exception):
    """A synchronisation that cannot be answered."""


class Routes:
    """What a server answers to which URL; takes what `AllenServer` takes, and its origin."""

    def __init__(
        self,
        origin: str,
        sources: Sequence[Served],
        doubts: Doubts,
        cache_bytes: int,
        grids: Mapping[int, Grid],
        grid_files: Mapping[tuple[int, str, int], bytes],
        archive: Mapping[str, bytes],
        structures: bytes | None,
    ) -> None:
        self.images = Images(sources, doubts, cache_bytes)
        self._tables = Tables(sources, doubts.missing_alignment)
        self._origin = origin
        self._doubts = doubts
        self._grids = grids
        self._grid_files = grid_files
        self._archive = archive
        self._structures = structures
        self._queries = itertools.count(1)

    def respond(self, target: str) -> tuple[Request, Make]:
        """Return what a request is about, and what makes its answer."""
        parts = urlsplit(target)
        path = unquote(parts.path)
        parameters = dict(parse_qsl(parts.query, keep_blank_values=True))
        shown = path if not parts.query else f"{path}?{unquote(parts.query)}"
        asked = Request(-1, "other", shown)
        try:
            return self._respond(path, parameters, asked)
        except BadRequestError as error:
            refusal = text(error.status, str(error))
            return replace(asked, kind="image"), lambda _: refusal

    def _respond(
        self, path: str, parameters: dict[str, str], asked: Request
    ) -> tuple[Request, Make]:
        folder, _, name = path.rpartition("/")
        if path.startswith("/api/v2/data/"):
            rest = path.removeprefix("/api/v2/data/")
            asked = replace(asked, kind="metadata")
            return asked, lambda fault: self._query(rest, parameters, fault)
        if folder == "/grid_data/download":
            return asked, lambda _: self._grid(name, parameters)
        if folder == "/grid_data/download_file":
            return asked, lambda _: self._grid_file(name, parameters)
        if path.startswith(ARCHIVE):
            return asked, lambda _: self._archived(path.removeprefix(ARCHIVE))
        if path == "/api/v2/structure_graph_download/1.json":
            graph = ontology() if self._structures is None else self._structures
            return asked, lambda _: Answer(200, graph, _JSON)
        if path == "/cgi-bin/imageservice":
            return self._image(asked, self.images.service(parameters))
        service, _, rest = path.removeprefix("/api/v2/").partition("/")
        if service == "image_to_reference":
            asked = replace(asked, kind="sync")
            return asked, lambda _: self._synchronise(rest, parameters)
        if service in _DOWNLOADS:
            return self._download(service, rest, parameters, asked)
        return asked, lambda _: text(404, f"there is nothing at {path}")

    def _download(
        self, service: str, rest: str, parameters: dict[str, str], asked: Request
    ) -> tuple[Request, Make]:
        if not rest.isdecimal():
            raise BadRequestError(404, f"{rest!r} is not the id of an image")
        if service == "projection_image_download":
            parameters.setdefault("view", "projection")
        region, url = self.images.download(int(rest), parameters)
        asked, make = self._image(asked, region)
        if not self._doubts.redirects:
            return asked, make
        redirect = Answer(302, b"", "text/html", (("Location", self._origin + url),))
        return replace(asked, kind="redirect"), lambda _: redirect

    def _image(self, asked: Request, region: Region) -> tuple[Request, Make]:
        asked = replace(
            asked,
            kind="image",
            image_id=region.image_id,
            view=region.view,
            tier=region.tier,
            left=region.left,
            top=region.top,
            width=region.width,
            height=region.height,
            window=self.images.window(region),
        )

        def make(_: Fault | None) -> Answer:
            try:
                return Answer(200, self.images.body(region), self._doubts.content_type)
            except BadRequestError as error:
                if self._doubts.missing_expression == "html" and region.view != "image":
                    return page()
                return text(error.status, str(error))

        return asked, make

    def _grid(self, wanted: str, parameters: Parameters) -> Answer:
        found = self._grids.get(int(wanted)) if wanted.isdecimal() else None
        if found is None:
            return text(404, f"there are no grid data of {wanted}")
        if not isinstance(found, bytes):
            volumes = parameters.get("include", "").split(",")
            found = found([volume for volume in volumes if volume])
        return Answer(200, found, "application/zip")

    def _grid_file(self, wanted: str, parameters: Parameters) -> Answer:
        name, resolution = parameters.get("image", ""), parameters.get("resolution", "")
        found = None
        if wanted.isdecimal() and resolution.isdecimal():
            found = self._grid_files.get((int(wanted), name, int(resolution)))
        if found is None:
            missing = f"there is no grid file of {wanted}, {name} at {resolution} microns"
            return text(404, missing)
        return Answer(200, found, _BYTES)

    def _archived(self, path: str) -> Answer:
        found = self._archive.get(path)
        found = archive_file(path) if found is None else found
        if found is None:
            return text(404, f"the archive has no {path}")
        return Answer(200, found, _BYTES)

    def _query(self, rest: str, parameters: Parameters, fault: Fault | None) -> Answer:
        scramble = next(self._queries)
        try:
            name = rest.removesuffix(".json")
            model, _, what = name.rpartition("/")
            if name == rest:
                raise QueryError(f"only .json is answered here, not {rest!r}")
            if what != "query":
                parameters = {"criteria": f"[id$eq{what}]", **parameters}
            envelope = answer_query(
                parse_request(model or None, parameters),
                self._tables,
                self._doubts,
                phantom_rows=fault.rows if fault is not None and fault.kind == "rows" else 0,
                scramble=scramble,
            )
            status = 200
        except QueryError as error:
            envelope, status = _failure(error), self._doubts.rma_error_status
        named = (("Content-Disposition", 'inline; filename="query.json"'),)
        return Answer(status, json.dumps(envelope).encode(), _JSON, named)

    def _synchronise(self, rest: str, parameters: Parameters) -> Answer:
        try:
            place = dict(zip("xyz", self._pir(rest, parameters), strict=True))
            counts = {"start_row": 0, "num_rows": 1, "total_rows": 1}
            message = {"image_to_reference": place}
            envelope, status = {"success": True, "id": 0, **counts, "msg": message}, 200
        except SyncError as error:
            envelope, status = _failure(error), self._doubts.sync_error_status
        return Answer(status, json.dumps(envelope).encode(), _JSON)

    def _pir(self, rest: str, parameters: Parameters) -> Sequence[float | None]:
        """Return where a pixel of an image lies, as Allen's synchronisation service says [1]_.

        References
        ----------
        .. [1] "Image-to-image synchronization", https://community.brain-map.org/t/2863
        """
        number = rest.removesuffix(".json")
        if not number.isdecimal() or number == rest:
            raise SyncError(f"{rest!r} is not the id of anything, with .json")
        image = self._row("SectionImage", int(number))
        if image is None:
            raise SyncError(f"SectionImage {number} was not found")
        try:
            x, y = float(parameters["x"]), float(parameters["y"])
        except (KeyError, ValueError):
            raise SyncError("x and y must be numbers") from None
        dataset = self._row("SectionDataSet", image.get("data_set_id"))
        if dataset and dataset.get("alignment3d") and image.get("alignment2d"):
            return [float(each) for each in oracle.image_to_reference(dataset, image, x, y)]
        if self._doubts.unaligned == "error":
            raise SyncError(f"SectionImage {number} is not aligned")
        return None, None, None

    def _row(self, model: str, row_id: Any) -> Row | None:
        return next((row for row in self._tables.rows(model) if row.get("id") == row_id), None)


def _failure(error: Exception) -> dict[str, Any]:
    """Return the envelope of a question that cannot be answered."""
    counts = {"start_row": 0, "num_rows": 0, "total_rows": 0}
    return {"success": False, "id": 0, **counts, "msg": str(error)}
