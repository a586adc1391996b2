"""Files and folders that appear whole or not at all, written a block at a time."""

from __future__ import annotations

import gzip
import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import xarray as xr

from ..errors import library
from .placed import stored_dtype

if TYPE_CHECKING:
    import pandas as pd


def check_ending(path: str | os.PathLike[str], what: str, *endings: str) -> None:
    """Refuse the name of a file that does not end as files of its format do."""
    if not os.fspath(path).endswith(endings):
        raise ValueError(f"{os.fspath(path)}: {what} is named {' or '.join(endings)}")


@contextmanager
def replacing(path: str | os.PathLike[str], *, overwrite: bool) -> Iterator[Path]:
    """Give a path to write to; what is there afterwards takes the place of `path`.

    Parameters
    ----------
    path
        Where the file or folder is to be.
    overwrite
        Whether something that is there already may be replaced.

    Yields
    ------
    temporary
        A path that does not exist yet, in the same folder. If the block fails, whatever is
        there is removed, and `path` is as it was.

    Raises
    ------
    FileExistsError
        If something is at `path` and may not be replaced.
    FileNotFoundError
        If the folder that is to hold it does not exist.
    """
    final = Path(path)
    _check(final, overwrite)
    # A folder of its own, so that the name in it (and its suffix) can be the final one.
    room = Path(tempfile.mkdtemp(prefix=f".{final.name}.", suffix=".partial", dir=final.parent))
    try:
        made = room / final.name
        yield made
        _check(final, overwrite)
        if final.is_dir():
            # A folder that holds something cannot be replaced in one step.
            final.rename(room / "replaced")
            try:
                made.rename(final)
            except OSError:
                (room / "replaced").rename(final)
                raise
        else:
            made.replace(final)
    finally:
        shutil.rmtree(room, ignore_errors=True)


def _check(final: Path, overwrite: bool) -> None:
    if not final.parent.is_dir():
        raise FileNotFoundError(f"there is no folder {final.parent} to write {final.name} into")
    if final.exists() and not overwrite:
        raise FileExistsError(f"{final} is there already; overwrite=True replaces it")


def write_parquet(
    parts: Iterator[pd.DataFrame],
    path: str | os.PathLike[str],
    attributes: Mapping[Any, Any],
    *,
    overwrite: bool,
) -> None:
    """Write a table that comes part by part, all of the same columns, as Parquet."""
    pa, pq = library("pyarrow", "Parquet"), library("pyarrow.parquet", "Parquet")
    if Path(path).is_dir():
        raise FileExistsError(f"{path} is a folder; overwrite=True replaces files")
    with replacing(path, overwrite=overwrite) as made:
        first = next(parts)
        said = {str(name): str(value) for name, value in attributes.items()}
        schema = pa.Schema.from_pandas(first, preserve_index=False).with_metadata(said)
        with pq.ParquetWriter(made, schema) as writer:
            for part in itertools.chain([first], parts):
                if len(part):
                    writer.write_table(pa.Table.from_pandas(part, schema, preserve_index=False))


_BLOCK = 64 * 2**20
"""Bytes of a block of an array that has no chunks."""


def blocks(array: xr.DataArray) -> Iterator[npt.NDArray[Any]]:
    """Yield consecutive blocks along the first dimension, little-endian and in C order.

    A block is a row of chunks: as long as the chunks are along the first dimension, and whole
    along the others. Nothing is computed twice, and no more than a block is held.
    """
    dtype = stored_dtype(array.dtype).newbyteorder("<")
    first = 0
    for count in _lengths(array):
        block = array.isel({array.dims[0]: slice(first, first + count)})
        yield np.ascontiguousarray(block.values, dtype=dtype)
        first += count


def write_values(file: IO[bytes] | gzip.GzipFile, array: xr.DataArray) -> None:
    """Write the values of an array in C order where a file is now."""
    for block in blocks(array):
        file.write(block.data)


def write_planar(file: IO[bytes], array: xr.DataArray) -> None:
    """Write all values of the first channel where a file is now, then all of the next.

    The file must be one that can be sought in; ``channel`` is the last dimension.
    """
    start, size = file.tell(), stored_dtype(array.dtype).itemsize
    whole = int(np.prod(array.shape[:-1])) * size
    done = 0
    for block in blocks(array):
        for channel in range(block.shape[-1]):
            file.seek(start + channel * whole + done)
            file.write(np.ascontiguousarray(block[..., channel]).data)
        done += block[..., 0].size * size


@contextmanager
def packed(raw: IO[bytes]) -> Iterator[gzip.GzipFile]:
    """Give a file whose bytes go, compressed by gzip, where another one is now."""
    # Without the time in it, one array always gives one file.
    with gzip.GzipFile(filename="", mode="wb", compresslevel=6, fileobj=raw, mtime=0) as file:
        yield file


def pack_file(plain: Path, path: Path) -> None:
    """Compress a file into a new one, and remove it."""
    with plain.open("rb") as source, path.open("xb") as raw, packed(raw) as file:
        while piece := source.read(_BLOCK // 16):
            file.write(piece)
    plain.unlink()


def _lengths(array: xr.DataArray) -> tuple[int, ...]:
    """Return how long the blocks are along the first dimension."""
    if array.chunks is not None:
        return tuple(array.chunks[0])
    each = max(array.nbytes // max(array.shape[0], 1), 1)
    most = max(_BLOCK // each, 1)
    whole, rest = divmod(array.shape[0], most)
    return (most,) * whole + ((rest,) if rest else ())
