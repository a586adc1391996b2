"""The peer's environment: atldld 0.3.4 from the package index, apart from everything of ours."""

from __future__ import annotations

import subprocess
import sys
import venv
from importlib.metadata import version
from pathlib import Path

from .measure import NotAvailableError

PEER = "atldld==0.3.4"


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
    folder = work / f"peer-{sys.version_info.major}.{sys.version_info.minor}-{opencv}"
    python, ready = folder / "bin" / "python", folder / "ready"
    if ready.is_file():
        return str(python)
    venv.create(folder, clear=True, with_pip=True)
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "--quiet", PEER, opencv],
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
