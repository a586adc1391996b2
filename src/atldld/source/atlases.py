"""Allen's annotations and their ontology: files of its archive, and one of its API.

References
----------
.. [1] "Atlas drawings and ontologies", https://community.brain-map.org/t/2864
"""

from __future__ import annotations

import json
import re
import zipfile
import zlib
from collections.abc import Callable
from io import BytesIO
from typing import Any, Final
from urllib.parse import urlsplit

from ..errors import APIError
from ..urls import API_PATH
from .allen import AllenSource

FILES: Final = {
    ("P56", 200): "mouse_annotation/P56_Mouse_gridAnnotation.zip",
    ("P56", 25): "mouse_annotation/P56_Mouse_annotation.zip",
    **{
        ("CCFv3", step): f"mouse_ccf/annotation/ccf_2017/annotation_{step}.nrrd"
        for step in (10, 25, 50, 100)
    },
}
"""Files of the archive, by the name of the atlas and microns between its voxels."""

_ARCHIVE: Final = "https://download.alleninstitute.org"
_FOLDER: Final = "informatics-archive/current-release"
_LARGEST: Final = 2**28
_LARGEST_ONTOLOGY: Final = 2**24
_MOST_VOXEL_BYTES: Final = 2**33
_PIECE: Final = 2**22


def annotation_url(base: str, name: str, resolution: int) -> str:
    """Return where an annotation is: in Allen's archive, or beside an API that is another's.

    Examples
    --------
    >>> annotation_url("https://api.brain-map.org/api/v2", "CCFv3", 25)[35:]
    '/informatics-archive/current-release/mouse_ccf/annotation/ccf_2017/annotation_25.nrrd'
    """
    host = urlsplit(base).hostname or ""
    allens = host == "brain-map.org" or host.endswith(".brain-map.org")
    root = _ARCHIVE if allens else base.removesuffix(API_PATH)
    return f"{root}/{_FOLDER}/{FILES[name, resolution]}"


def annotation_file(source: AllenSource, name: str, resolution: int) -> bytes:
    """Return the file of an annotation, from the cache, or fetched once and kept there.

    It is unpacked once, without keeping it, before it is kept.

    Raises
    ------
    APIError
        If the archive does not answer as it should.
    """
    suffix = FILES[name, resolution].rpartition(".")[2]
    fault = _zip_fault if suffix == "zip" else _nrrd_fault
    url = annotation_url(source.base, name, resolution)
    return _file(source, f"{name}-{resolution:d}.{suffix}", url, _LARGEST, fault)


def ontology_rows(source: AllenSource) -> list[dict[str, Any]]:
    """Return Allen's ontology of the mouse brain: the roots, each with nested ``children``.

    Raises
    ------
    APIError
        If the service does not answer as it should.
    """
    url = f"{source.base}/structure_graph_download/1.json"
    content = _file(source, "ontology-1.json", url, _LARGEST_ONTOLOGY, _ontology_fault)
    rows: list[dict[str, Any]] = json.loads(content)["msg"]
    return rows


def _file(
    source: AllenSource, name: str, url: str, most: int, fault: Callable[[bytes], str | None]
) -> bytes:
    try:
        return source.file(f"atlases/{name}", url, most, fault)
    except APIError as error:
        if error.status == 404:
            missing = "there is no such file of Allen's atlases there"
            raise APIError(missing, url=error.url, status=404) from error
        raise


def _zip_fault(content: bytes) -> str | None:
    """Return what is wrong with a zip, unpacked within bounds, or None."""
    try:
        with zipfile.ZipFile(BytesIO(content)) as archive:
            if sum(each.file_size for each in archive.infolist()) > _MOST_VOXEL_BYTES:
                return "the zip holds more than any annotation has"
            bad = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError) as error:
        return f"the body is not a sound zip: {error}"
    return None if bad is None else f"{bad} in the zip is damaged"


def _nrrd_fault(content: bytes) -> str | None:
    """Return what is wrong with an NRRD file packed by gzip, or None."""
    end = re.search(rb"\r?\n\r?\n", content[:65_536])
    if not content.startswith(b"NRRD") or end is None:
        return "the body is not an NRRD file"
    if b"encoding: gz" not in content[: end.start()]:
        return None
    unpacked, size = zlib.decompressobj(31), 0
    rest = content[end.end() :]
    try:
        # The checksum at the end of the stream is held against all that was unpacked.
        while rest and not unpacked.eof and size <= _MOST_VOXEL_BYTES:
            size += len(unpacked.decompress(rest, _PIECE))
            rest = unpacked.unconsumed_tail
    except zlib.error as error:
        return f"the NRRD file is damaged: {error}"
    return None if unpacked.eof else "the NRRD file ends early, or holds more than it may"


def _ontology_fault(content: bytes) -> str | None:
    try:
        answer = json.loads(content)
    except ValueError:
        return "the body is not JSON"
    rows = answer.get("msg") if isinstance(answer, dict) else None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        return "the answer holds no structures"
    return None
