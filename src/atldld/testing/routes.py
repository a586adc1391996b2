"""From the URL of a request to its answer."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from urllib.parse import parse_qsl, unquote, urlsplit

from . import queries, rma
from . import synchronisation as sync
from .bodies import Bodies
from .doubts import Doubts
from .image_service import BadRequestError, Images, Region
from .tables import Tables
from .traffic import Fault, Subject
from .volume_files import ARCHIVE, archive_file, ontology
from .wire import Answer, page, text

_JSON = "application/json; charset=utf-8"
_DOWNLOADS = ("section_image_download", "image_download", "projection_image_download")

Make = Callable[[Fault | None], Answer]
Grid = bytes | Callable[[Sequence[str]], bytes]


class Routes:
    """What a server answers to which URL.

    Parameters
    ----------
    origin
        Scheme, host and port, for redirects.
    images
        The images.
    tables
        The rows.
    doubts
        How what is not known about the service is read.
    bodies
        Where encoded images are kept.
    centres
        p, i, r by structure id and reference space.
    grids
        What the grid service sends, by dataset id: a zip, or what makes one of the names of the
        volumes that are asked for.
    grid_files
        What it sends of the connectivity atlas, by dataset id, name and resolution in microns.
    archive
        Files of the archive by their path in it, in place of the made-up ones.
    structures
        The structure graph, in place of the made-up one.
    """

    def __init__(
        self,
        origin: str,
        images: Images,
        tables: Tables,
        doubts: Doubts,
        bodies: Bodies,
        centres: Mapping[tuple[int, int], sync.Point],
        grids: Mapping[int, Grid],
        grid_files: Mapping[tuple[int, str, int], bytes],
        archive: Mapping[str, bytes],
        structures: bytes | None,
    ) -> None:
        self.origin = origin
        self.images = images
        self.tables = tables
        self.doubts = doubts
        self._bodies = bodies
        self._centres = centres
        self._grids = grids
        self._grid_files = grid_files
        self._archive = archive
        self._structures = structures
        self._queries = 0

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
            if path.startswith("/grid_data/download/"):
                return subject, lambda _: self._grid(path.rpartition("/")[2], parameters)
            if path.startswith("/grid_data/download_file/"):
                return subject, lambda _: self._grid_file(path.rpartition("/")[2], parameters)
            if path.startswith(ARCHIVE):
                return subject, lambda _: self._archived(path.removeprefix(ARCHIVE))
            if path == "/api/v2/structure_graph_download/1.json":
                graph = ontology() if self._structures is None else self._structures
                return subject, lambda _: Answer(200, graph, _JSON)
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
            refusal = text(error.status, str(error))
            return subject, lambda _: refusal
        missing = text(404, f"there is nothing at {path}")
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

    def _grid(self, wanted: str, parameters: Mapping[str, str]) -> Answer:
        found = self._grids.get(int(wanted)) if wanted.isdecimal() else None
        if found is None:
            return text(404, f"there are no grid data of {wanted}")
        if not isinstance(found, bytes):
            volumes = parameters.get("include", "").split(",")
            found = found([volume for volume in volumes if volume])
        return Answer(200, found, "application/zip")

    def _grid_file(self, wanted: str, parameters: Mapping[str, str]) -> Answer:
        resolution = parameters.get("resolution", "")
        if not (wanted.isdecimal() and resolution.isdecimal()):
            return text(404, f"there is no grid file of {wanted} at {resolution}")
        key = int(wanted), parameters.get("image", ""), int(resolution)
        found = self._grid_files.get(key)
        if found is None:
            return text(404, "there is no grid file of {}, {} at {} microns".format(*key))
        return Answer(200, found, "application/octet-stream")

    def _archived(self, path: str) -> Answer:
        found = self._archive.get(path)
        found = archive_file(path) if found is None else found
        if found is None:
            return text(404, f"the archive has no {path}")
        return Answer(200, found, "application/octet-stream")

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
                return text(error.status, str(error))

        return subject, make

    def _body(self, region: Region) -> bytes:
        return self._bodies.get(region, lambda: self.images.body(region))

    def _query(self, rest: str, parameters: Mapping[str, str], fault: Fault | None) -> Answer:
        self._queries += 1
        try:
            name = rest.removesuffix(".json")
            model, _, what = name.rpartition("/")
            if name == rest:
                raise queries.QueryError(f"only .json is answered here, not {rest!r}")
            if what == "query":
                query = queries.parse_request(model or None, parameters)
            else:
                asked = {"criteria": f"[id$eq{what}]", **parameters}
                query = queries.parse_request(model, asked)
            envelope = rma.answer(
                query,
                self.tables,
                self.doubts,
                phantom_rows=fault.rows if fault is not None and fault.kind == "rows" else 0,
                scramble=self._queries,
            )
            status = 200
        except queries.QueryError as error:
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
