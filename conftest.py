"""Where the tests find the recorded data, and a cache of its own for each of them."""

import itertools
import os
import signal
import threading
from pathlib import Path

import hypothesis
import pytest

ROOT = Path(__file__).parent
_NUMBERS = itertools.count()


def pytest_configure(config):
    """Let no option of the person who runs the tests reach into them."""
    for name in [name for name in os.environ if name.startswith("ATLDLD_")]:
        if name != "ATLDLD_REAL_DATA":
            del os.environ[name]
    if threading.current_thread() is threading.main_thread():
        # Jobs in the background of a shell ignore Ctrl-C, and so would the processes of tests.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # How long a case takes depends on what else the machine does.
    hypothesis.settings.register_profile("patient", deadline=None)
    hypothesis.settings.load_profile("patient")
    # Tests that forget to name a source must not reach the real service.
    os.environ["ATLDLD_API_URL"] = "http://127.0.0.1:9/api/v2"


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Give each test a cache folder of its own; a hook, so that hypothesis tests have it too."""
    base = item.session.config._tmp_path_factory.getbasetemp()
    # Made by whoever writes there: most tests keep nothing.
    os.environ["ATLDLD_CACHE_DIR"] = str(base / "caches" / str(next(_NUMBERS)))
    # Where the locks of connections are.
    os.environ["XDG_RUNTIME_DIR"] = str(base)


@pytest.fixture(scope="session")
def real():
    """Return the folder of recorded data of the real service."""
    folder = Path(os.environ.get("ATLDLD_REAL_DATA", ROOT.parent / "shared" / "real"))
    if not (folder / "sync_points.json").is_file():
        pytest.skip(f"recorded data of the real service are not at {folder} (ATLDLD_REAL_DATA)")
    return folder
