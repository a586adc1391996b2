"""Running the notebooks from a clean kernel, against a stand-in for the Allen API.

``make notebooks`` runs all of them and stores them with their pictures.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from base64 import b64decode, b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from PIL import Image

import stand_in

if TYPE_CHECKING:
    import nbformat

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
LARGEST = 1_500_000
"""Most bytes of a stored notebook."""


@contextmanager
def served(
    folder: Path, annotation: Path | None = None, *, registered: bool = False
) -> Iterator[None]:
    """Serve what the notebooks read, to kernels that are started meanwhile in a folder.

    Parameters
    ----------
    folder
        Where the kernels work. The annotation is put there, under its own name.
    annotation
        Allen's own annotation, or None for a made-up one.
    registered
        Whether a published registration is there, and what it places.
    """
    if annotation is None:
        stand_in.write_annotation(folder)
    else:
        shutil.copy(annotation, folder / stand_in.ANNOTATION)
    if registered:
        stand_in.write_registration(folder)
    with stand_in.stand_in(registered=registered) as server:
        # What a user set on this machine is not what a notebook should show.
        own = {name: value for name, value in os.environ.items() if "ATLDLD_" not in name}
        own |= {
            "ATLDLD_API_URL": server.url,
            "ATLDLD_CACHE_DIR": str(folder / "cache"),
            "JUPYTER_PLATFORM_DIRS": "1",
        }
        with mock.patch.dict(os.environ, own, clear=True):
            yield


def is_registered(path: Path) -> bool:
    """Whether a notebook is about a published registration."""
    return stand_in.REGISTRATION in path.read_text(encoding="utf-8")


def run(path: Path, folder: Path) -> nbformat.NotebookNode:
    """Run a notebook in a folder and return it with its outputs."""
    # Imported late: they take seconds, and most tests of notebooks run none.
    import nbformat
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    NotebookClient(
        notebook,
        timeout=300,
        kernel_name="python3",
        resources={"metadata": {"path": str(folder)}},
        record_timing=False,
    ).execute()
    return notebook


def pictures(notebook: nbformat.NotebookNode) -> list[str]:
    """Return the pictures in its outputs, as base64 text."""
    return [
        output.data["image/png"]
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        if "image/png" in output.get("data", {})
    ]


def shrink(notebook: nbformat.NotebookNode) -> None:
    """Store pictures with 256 colours, which is a third of the bytes."""
    for cell in notebook.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                with Image.open(BytesIO(b64decode(output.data["image/png"]))) as picture:
                    few = picture.convert("RGB").quantize(256, Image.Quantize.MEDIANCUT)
                buffer = BytesIO()
                few.save(buffer, "png", optimize=True)
                output.data["image/png"] = b64encode(buffer.getvalue()).decode("ascii")


def main(names: list[str]) -> None:
    """Run notebooks, all or those named, and store each with what it shows."""
    import nbformat

    for path in NOTEBOOKS:
        if names and path.name not in names:
            continue
        with (
            tempfile.TemporaryDirectory() as name,
            served(Path(name), registered=is_registered(path)),
        ):
            notebook = run(path, Path(name))
        shrink(notebook)
        # The rest of what Jupyter notes differs from machine to machine.
        notebook.metadata = {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python"},
        }
        nbformat.write(notebook, path)
        size = path.stat().st_size
        print(f"{path.name}: {len(pictures(notebook))} pictures, {size / 1e3:.0f} kB")
        if size > LARGEST:
            sys.exit(f"{path.name} is larger than {LARGEST} bytes")


if __name__ == "__main__":
    main(sys.argv[1:])
