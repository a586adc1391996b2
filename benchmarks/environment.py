"""The environments of peers, from the package index, apart from everything of ours."""

from __future__ import annotations

import subprocess
import sys
import venv
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from .measure import NotAvailableError

PEER = "atldld==0.3.4"
MAPS = (
    "spatial_brain_maps==0.1.2",
    "pynutil==0.3.3",
    "antspyx==0.6.1",
    # It imports these, and does not name them.
    "imageio",
    "scikit-image",
    "sympy",
)
"""What reads a published registration as its authors do."""


def peer_python(work: Path) -> str:
    """Return the interpreter of the peer's environment, made at the first call.

    Its OpenCV has the version of ours, so that both sides decode and warp with the same code.

    Parameters
    ----------
    work
        Folder that keeps the environment from one time to the next.

    Raises
    ------
    NotAvailableError
        If it cannot be made, for want of a package index for instance.
    """
    opencv = f"opencv-python=={version('opencv-python-headless')}"
    return _python(work, f"peer-{_THIS}-{opencv}", [PEER, opencv])


def maps_python(work: Path) -> str:
    """Return the interpreter of the environment of spatial_brain_maps; see `peer_python`."""
    return _python(work, f"maps-{_THIS}", MAPS)


_THIS = f"{sys.version_info.major}.{sys.version_info.minor}"


def _python(work: Path, name: str, requirements: Sequence[str]) -> str:
    folder = work / name
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.is_file():
        return str(python)
    venv.create(folder, clear=True, with_pip=True)
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", *requirements],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        said = done.stderr.strip().splitlines()
        raise NotAvailableError(
            f"the peer cannot be installed: {said[-1] if said else 'no reason'}"
        )
    ready.touch()
    return str(python)
