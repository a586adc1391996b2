"""Allen's grid service: the 200 micron volumes of a dataset as a zip.

It stands beside the API, not in it: ``<host>/grid_data/download/<id>?include=...`` [1]_.

References
----------
.. [1] "Downloading 3-D expression grid data", https://community.brain-map.org/t/2859
"""

from __future__ import annotations

import io
import lzma
import zipfile
import zlib
from collections.abc import Callable, Sequence

from ..errors import APIError, DatasetNotFoundError
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
    try:
        return source.file(name, url, _LARGEST_ZIP, zip_fault)
    except APIError as error:
        if error.status == 404:
            raise DatasetNotFoundError(
                f"there are no grid volumes of dataset {dataset_id} ({error.url}); those of the "
                f"connectivity atlas go by other names: volumes=[{CONNECTIVITY[0]!r}]"
            ) from error
        raise


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

    try:
        return source.file(name, url, _LARGEST_NRRD, _nrrd_fault)
    except APIError as error:
        if error.status == 404:
            raise DatasetNotFoundError(
                f"there is no {volume} of dataset {dataset_id} ({error.url})"
            ) from error
        raise


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
