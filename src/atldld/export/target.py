"""Files and folders that appear whole or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
