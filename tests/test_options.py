from __future__ import annotations

import asyncio
import inspect
import os
import pickle
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import dask
import pytest

import atldld
from atldld.options import Carried, Options, carry, current, set_options, using
from atldld.testing import AllenServer, phantom_dataset


@pytest.fixture(autouse=True)
def no_options_of_the_machine(monkeypatch):
    for name in list(os.environ):
        if name.startswith("ATLDLD_"):
            monkeypatch.delenv(name)


def test_defaults(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert current() == Options(
        cache_dir=current().cache_dir,
        max_connections=8,
        timeout=60.0,
        retries=4,
        api_url="https://api.brain-map.org/api/v2",
        progress=None,
    )
    assert current().cache_dir.name == "atldld"
    assert current().cache_dir.is_absolute()


def test_every_option_can_be_set_and_read_from_the_environment():
    assert set(inspect.signature(set_options).parameters) == set(Options.model_fields)


def test_a_block_brings_back_what_held_before():
    before = current()
    with set_options(timeout=5):
        with set_options(timeout=1, retries=0):
            assert (current().timeout, current().retries) == (1.0, 0)
        assert (current().timeout, current().retries) == (5.0, 4)
    assert current() == before


def test_a_block_brings_back_after_an_error():
    with pytest.raises(KeyError), set_options(retries=0):
        raise KeyError
    assert current().retries == 4


def test_a_plain_call_holds_for_every_thread():
    seen = []
    with set_options():
        set_options(retries=1)
        thread = threading.Thread(target=lambda: seen.append(current().retries))
        thread.start()
        thread.join()
        set_options(retries=None)
    assert seen == [1]
    assert current().retries == 4


def in_threads(*works):
    """Run some work in a thread each, one step of each in turn; return what they yield."""
    found = []
    begun = [iter(work()) for work in works]
    pools = [ThreadPoolExecutor(1) for _ in works]
    while begun:
        for thread, steps in zip(list(pools), list(begun), strict=True):
            try:
                found.append(thread.submit(next, steps).result())
            except StopIteration:
                begun.remove(steps)
                pools.remove(thread)
                thread.shutdown()
    return found


def test_blocks_of_two_threads_leave_nothing_behind():
    def block(retries):
        def work():
            with set_options(retries=retries):
                yield current().retries
                yield current().retries
            yield current().retries

        return work

    # A enters, B enters, A leaves, B leaves.
    assert in_threads(block(1), block(2)) == [1, 2, 1, 2, 4, 4]
    assert current().retries == 4


def test_calls_that_become_blocks_in_any_order_leave_nothing_behind():
    first, second = set_options(retries=1), set_options(retries=2)
    with first, second:
        assert current().retries == 2
    assert current().retries == 4


def test_a_block_of_a_thread_is_its_own():
    def inside():
        with set_options(retries=1):
            yield current().retries
            yield current().retries

    def outside():
        yield current().retries

    assert in_threads(inside, outside) == [1, 4, 1]
    with set_options(retries=2):
        # That of the main thread is for all that are in none.
        assert in_threads(inside, outside) == [1, 2, 1]
        set_options(timeout=7)
        assert current().timeout == 7
    assert current().timeout == 7
    set_options(timeout=None)


def test_a_plain_call_in_another_thread_does_not_reach_into_a_block():
    def other():
        yield set_options(retries=9)

    with set_options(retries=1):
        in_threads(other)
        assert current().retries == 1
    assert current().retries == 9
    set_options(retries=None)


def test_tasks_of_asyncio_have_blocks_of_their_own():
    async def block(retries, seen):
        with set_options(retries=retries):
            await asyncio.sleep(0)
            seen.append(current().retries)
            await asyncio.sleep(0)
        seen.append(current().retries)

    async def both():
        seen = []
        await asyncio.gather(block(1, seen), block(2, seen))
        return seen

    assert asyncio.run(both()) == [1, 2, 4, 4]


def test_what_threads_of_dask_compute_goes_by_the_block():
    """Else no block would reach a computation: dask's threads know nothing of it."""
    phantom = phantom_dataset(5, sections=2, resolution=40)
    with AllenServer([phantom]) as server:
        array = atldld.open_dataarray(5, resolution=200, source=server.url)
        with (
            dask.config.set(scheduler="threads", num_workers=2),
            set_options(max_image_pixels=10, retries=0),
            pytest.raises(atldld.ImageError, match="max_image_pixels"),
        ):
            array.compute()
        assert server.image_requests == []
        assert array.compute().any()


def test_environment_is_read_when_needed_and_yields_to_set_options(monkeypatch):
    monkeypatch.setenv("ATLDLD_RETRIES", "2")
    assert current().retries == 2
    monkeypatch.setenv("ATLDLD_RETRIES", "3")
    assert current().retries == 3
    with set_options(retries=1):
        assert current().retries == 1
        set_options(retries=None)
        assert current().retries == 3


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("cache_dir", "/a/b", Path("/a/b")),
        ("cache_limit", "1000", 1000),
        ("cache_limit", "20 GB", 20 * 10**9),
        ("cache_limit", "1.5gib", 3 * 2**29),
        ("cache_limit", "none", None),
        ("max_connections", " 3 ", 3),
        ("timeout", "2.5", 2.5),
        ("retries", "0", 0),
        ("api_url", "http://localhost:8000", "http://localhost:8000"),
        ("progress", "1", True),
        ("progress", "OFF", False),
        ("progress", "auto", None),
        ("retries", "", 4),
        ("max_image_pixels", "1000", 1000),
        ("metadata_max_age", "0", 0.0),
    ],
)
def test_environment_variables(monkeypatch, name, text, value):
    monkeypatch.setenv(f"ATLDLD_{name.upper()}", text)
    assert getattr(current(), name) == value


def test_cache_dir_is_made_absolute(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with set_options(cache_dir="here"):
        monkeypatch.chdir("/")
        assert current().cache_dir == tmp_path / "here"
    with set_options(cache_dir=Path("~/there")):
        assert current().cache_dir == Path.home() / "there"


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("cache_dir", 3, TypeError),
        ("cache_dir", b"/tmp", TypeError),
        ("cache_dir", " ", ValueError),
        ("cache_dir", "a\0b", ValueError),
        ("cache_limit", 0, ValueError),
        ("cache_limit", -5, ValueError),
        ("cache_limit", 0.5, ValueError),
        ("cache_limit", float("inf"), ValueError),
        ("cache_limit", float("nan"), ValueError),
        ("cache_limit", "5 GW", ValueError),
        ("cache_limit", "-5 GB", ValueError),
        ("cache_limit", "none", ValueError),
        ("cache_limit", True, TypeError),
        ("cache_limit", b"5", TypeError),
        ("max_connections", 0, ValueError),
        ("max_connections", 257, ValueError),
        ("max_connections", 2.0, TypeError),
        ("max_connections", True, TypeError),
        ("timeout", 0, ValueError),
        ("timeout", float("nan"), ValueError),
        ("timeout", float("inf"), ValueError),
        ("timeout", "5", TypeError),
        ("timeout", True, TypeError),
        ("retries", -1, ValueError),
        ("retries", 101, ValueError),
        ("api_url", "ftp://host/x", ValueError),
        ("api_url", "api.brain-map.org", ValueError),
        ("api_url", "http://[::1", ValueError),
        ("api_url", 5, TypeError),
        ("progress", 1, TypeError),
        ("max_image_pixels", 0, ValueError),
        ("metadata_max_age", -1, ValueError),
        ("metadata_max_age", float("nan"), ValueError),
    ],
)
def test_a_bad_value_says_what_would_be_right(name, value, error):
    with pytest.raises(error, match=rf"^{name} is .*; it must be"):
        set_options(**{name: value})
    assert getattr(current(), name) == getattr(Options(cache_dir=current().cache_dir), name)


def test_one_bad_value_leaves_the_others_unset():
    with pytest.raises(ValueError, match="retries"):
        set_options(timeout=1, retries=-1)
    assert current().timeout == 60.0


@pytest.mark.parametrize(
    ("variable", "text"),
    [("ATLDLD_TIMEOUT", "soon"), ("ATLDLD_RETRIES", "1.5"), ("ATLDLD_PROGRESS", "perhaps"),
     ("ATLDLD_MAX_CONNECTIONS", "0"), ("ATLDLD_API_URL", "brain"), ("ATLDLD_TIMEOUT", "1e9")],
)  # fmt: skip
def test_a_bad_environment_variable_is_named(monkeypatch, variable, text):
    monkeypatch.setenv(variable, text)
    with pytest.raises(ValueError, match=rf"^{variable} is .*{text}.*; it must be"):
        current()


def test_a_password_is_not_shown():
    with pytest.raises(ValueError, match="api_url") as caught:
        set_options(api_url="ftp://me:secret@host")
    assert "secret" not in str(caught.value)


def test_an_unknown_option_is_refused():
    with pytest.raises(TypeError, match="colour"):
        set_options(colour="red")


def test_carried_options_count_for_nothing_where_they_were_made():
    with set_options(timeout=5):
        carried = carry()
    again = pickle.loads(pickle.dumps(carried))
    with set_options(timeout=7):
        assert again.options().timeout == 7.0
        with using(again):
            assert current().timeout == 7.0


def elsewhere(carried: Carried) -> Carried:
    """Return carried options as they look in a process that did not make them."""
    return Carried("another process", carried.chosen)


def test_carried_options_stand_between_defaults_and_what_holds_elsewhere(monkeypatch):
    with set_options(timeout=5, retries=1, max_connections=2):
        carried = elsewhere(carry())
    monkeypatch.setenv("ATLDLD_RETRIES", "9")
    with set_options(max_connections=3):
        found = carried.options()
        assert (found.timeout, found.retries, found.max_connections) == (5.0, 9, 3)
        with using(carried):
            assert current() == found
        assert current() != found


def test_what_is_carried_is_what_was_set_on_purpose(monkeypatch):
    assert carry().chosen == ()
    monkeypatch.setenv("ATLDLD_TIMEOUT", "3")
    with set_options(cache_dir="/somewhere"):
        assert carry().chosen == (("cache_dir", "/somewhere"), ("timeout", 3.0))


def test_a_path_of_another_system_is_left_aside():
    carried = Carried("another process", (("cache_dir", "C:\\Users\\me\\cache"),))
    assert carried.options().cache_dir == current().cache_dir


def test_using_holds_in_one_thread_only():
    seen = []
    with using(Carried("another process", (("retries", 1),))):
        thread = threading.Thread(target=lambda: seen.append(current().retries))
        thread.start()
        thread.join()
        assert current().retries == 1
    assert seen == [4]


LOOK = """
import pickle, sys
from atldld.options import current, set_options, using
carried = pickle.loads(bytes.fromhex(sys.argv[1]))
with using(carried):
    first = current().retries
with set_options(retries=8), using(carried):
    second = current().retries
print(first, second, current().retries)
"""


def test_a_new_process_goes_by_the_opening():
    with set_options(retries=1):
        carried = carry()
    with set_options(retries=2):
        done = subprocess.run(
            [sys.executable, "-c", LOOK, pickle.dumps(carried).hex()],
            capture_output=True,
            text=True,
            check=True,
        )
    assert done.stdout.split() == ["1", "8", "4"]


def look_into(carried, connection):
    with using(carried):
        first = current().retries
    with set_options(retries=8), using(carried):
        second = current().retries
    connection.send((first, second, current().retries))


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_a_forked_process_goes_by_the_opening():
    with set_options(retries=1):
        carried = carry()
    here, there = get_context("fork").Pipe()
    with set_options(retries=2):
        child = get_context("fork").Process(target=look_into, args=(carried, there))
        child.start()
        there.close()
        seen = here.recv()
        child.join()
    # What the parent has set by then was not set in the child; it holds where nothing was
    # carried.
    assert seen == (1, 8, 2)


def test_importing_is_cheap():
    code = (
        "import sys, atldld.options, atldld.source;"
        "print([m for m in ('numpy', 'urllib3', 'platformdirs', 'certifi') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
