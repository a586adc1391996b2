from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder of recorded answers; what needs it is skipped where it is absent."""
    default = Path(__file__).parents[2].parent / "shared" / "real"
    folder = Path(os.environ.get("ATLDLD_REAL_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"no recorded data at {folder}; set ATLDLD_REAL_DATA")
    return folder
