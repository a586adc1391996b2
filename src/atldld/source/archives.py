"""Files that stand beside the API: volumes of its grid service, Allen's annotations, the ontology.

The grid service is at ``<host>/grid_data/download/<id>?include=...`` [1]_, the annotations lie in
Allen's archive [2]_. Each file is looked at before it is kept.

References
----------
.. [1] "Downloading 3-D expression grid data", https://community.brain-map.org/t/2859
.. [2] "Atlas drawings and ontologies", https://community.brain-map.org/t/2864
"""

from __future__ import annotations

import io
import json
import lzma
import re
import zipfile
import zlib
from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from ..errors import APIError, AtldldError, DatasetNotFoundError
from ..urls import API_PATH
from .allen import AllenSource

VOLUMES = ("energy", "density", "intensity")
"""What the grid service has of an expression dataset."""

CONNECTIVITY = (
    "projection_density", "projection_energy", "injection_fraction", "injection_density",
    "injection_energy", "data_mask",
)  # fmt: skip
"""What it has of a dataset of the connectivity atlas."""

RESOLUTIONS = (10, 25, 50, 100)
"""Microns of the voxels of connectivity volumes."""

_LARGEST_ZIP = 2**26
_LARGEST_CONTENT = 2**26
_MOST_MEMBERS = 64
"""Bounds of a grid zip: those of the adult brain hold 2 MB, the largest of all ages 9."""

_LARGEST_NRRD = 2**32
"""Bytes of a connectivity volume as it is sent, packed; of 10 micron voxels there are 1.2e9."""

_ENCRYPTED = 0x1
_METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""How members may be packed: other methods cannot be unpacked within a bound."""


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
_LARGEST_ANNOTATION: Final = 2**28
_LARGEST_ONTOLOGY: Final = 2**24
_MOST_VOXEL_BYTES: Final = 2**33
_PIECE: Final = 2**22


def grid_url(base: str, dataset_id: int, volumes: Sequence[str] = VOLUMES) -> str:
    """Return where the grid service keeps the volumes of a dataset.

    Examples
    --------
    >>> grid_url("https://api.brain-map.org/api/v2", 7, ["energy"])
    'https://api.brain-map.org/grid_data/download/7?include=energy'
    """
    root = base.removesuffix(API_PATH)
    return f"{root}/grid_data/download/{dataset_id:d}?include={','.join(volumes)}"


def grid_archive(source: AllenSource, dataset_id: int, volumes: Sequence[str] = VOLUMES) -> bytes:
    """Return the zip of a dataset's volumes, from the cache, or fetched once and kept there.

    Every member is held against its checksum before the zip is kept.

    Raises
    ------
    DatasetNotFoundError
        If the service has no volumes of such a dataset.
    APIError
        If it does not answer as it should.
    """
    # The words are known ones: no name can lead out of the folder of the cache.
    chosen = [volume for volume in VOLUMES if volume in volumes]
    name = f"grids/{dataset_id:d}-{'-'.join(chosen)}.zip"
    url = grid_url(source.base, dataset_id, chosen)

    def missing(error: APIError) -> DatasetNotFoundError:
        return DatasetNotFoundError(
            f"there are no grid volumes of dataset {dataset_id} ({error.url}); those of the "
            f"connectivity atlas go by other names: volumes=[{CONNECTIVITY[0]!r}]"
        )

    return _kept_file(source, name, url, _LARGEST_ZIP, zip_fault, missing)


def connectivity_volume(
    source: AllenSource, dataset_id: int, volume: str, resolution: int
) -> bytes:
    """Return the NRRD of a volume of the connectivity atlas, from the cache, or fetched once.

    Raises
    ------
    DatasetNotFoundError
        If the service has no such volume.
    APIError
        If it does not answer as it should.
    """
    word = CONNECTIVITY[CONNECTIVITY.index(volume)].replace("_", "-")
    name = f"grids/{dataset_id:d}-{word}-{resolution:d}.nrrd"
    root = source.base.removesuffix(API_PATH)
    url = f"{root}/grid_data/download_file/{dataset_id:d}?image={volume}&resolution={resolution:d}"

    def missing(error: APIError) -> DatasetNotFoundError:
        return DatasetNotFoundError(f"there is no {volume} of dataset {dataset_id} ({error.url})")

    return _kept_file(source, name, url, _LARGEST_NRRD, _nrrd_fault, missing)


def _nrrd_fault(content: bytes) -> str | None:
    return None if content.startswith(b"NRRD") else "the body is not an NRRD volume"


def zip_members(
    content: bytes, is_wanted: Callable[[str], bool] = lambda name: True
) -> dict[str, bytes]:
    """Return the files of a small zip by name, each held against its checksum.

    No more is unpacked than 64 MiB in all, whatever the zip says of itself.

    Parameters
    ----------
    content
        Its bytes.
    is_wanted
        Whether a file is wanted, by its name.

    Raises
    ------
    ValueError
        If it is no zip, damaged, encrypted, packed in an unusual way, or larger than that.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            infos = [info for info in archive.infolist() if not info.is_dir()]
            size = sum(info.file_size for info in infos)
            if size > _LARGEST_CONTENT or len(infos) > _MOST_MEMBERS:
                raise ValueError(
                    f"it holds {len(infos)} files of {size} bytes, more than the "
                    f"{_MOST_MEMBERS} files and {_LARGEST_CONTENT} bytes that grids may have"
                )
            return {
                info.filename: _member(archive, info) for info in infos if is_wanted(info.filename)
            }
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        OSError,
        EOFError,
        RuntimeError,
        NotImplementedError,
        UnicodeDecodeError,
    ) as error:
        raise ValueError(f"it is not a sound zip: {error}") from error


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    if info.flag_bits & _ENCRYPTED:
        raise ValueError(f"{info.filename} is encrypted")
    if info.compress_type not in _METHODS:
        raise ValueError(f"{info.filename} is neither stored nor deflated")
    with archive.open(info) as member:
        # Told how much to read, it unpacks no more than that at once.
        content = member.read(info.file_size)
    if len(content) != info.file_size:
        raise ValueError(f"{info.filename} ends early")
    return content


def zip_fault(content: bytes) -> str | None:
    """Return what is wrong with the bytes of a grid zip, or None."""
    try:
        zip_members(content)
    except ValueError as error:
        return f"the body is of no use: {error}"
    return None


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
    fault = _annotation_zip_fault if suffix == "zip" else _annotation_nrrd_fault
    url = annotation_url(source.base, name, resolution)
    kept = f"atlases/{name}-{resolution:d}.{suffix}"
    return _kept_file(source, kept, url, _LARGEST_ANNOTATION, fault, _no_atlas)


def ontology_rows(source: AllenSource) -> list[dict[str, Any]]:
    """Return Allen's ontology of the mouse brain: the roots, each with nested ``children``.

    Raises
    ------
    APIError
        If the service does not answer as it should.
    """
    url = f"{source.base}/structure_graph_download/1.json"
    kept = "atlases/ontology-1.json"
    content = _kept_file(source, kept, url, _LARGEST_ONTOLOGY, _ontology_fault, _no_atlas)
    rows: list[dict[str, Any]] = json.loads(content)["msg"]
    return rows


def _kept_file(
    source: AllenSource,
    name: str,
    url: str,
    most: int,
    fault: Callable[[bytes], str | None],
    missing: Callable[[APIError], AtldldError],
) -> bytes:
    """Return a file as `AllenSource.file` does, with an error of its own where there is none."""
    try:
        return source.file(name, url, most, fault)
    except APIError as error:
        if error.status == 404:
            raise missing(error) from error
        raise


def _no_atlas(error: APIError) -> APIError:
    return APIError("there is no such file of Allen's atlases there", url=error.url, status=404)


def _annotation_zip_fault(content: bytes) -> str | None:
    """Return what is wrong with a zip, unpacked within bounds, or None."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(each.file_size for each in archive.infolist()) > _MOST_VOXEL_BYTES:
                return "the zip holds more than any annotation has"
            bad = archive.testzip()
    except (zipfile.BadZipFile, zlib.error, OSError, RuntimeError, NotImplementedError) as error:
        return f"the body is not a sound zip: {error}"
    return None if bad is None else f"{bad} in the zip is damaged"


def _annotation_nrrd_fault(content: bytes) -> str | None:
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
