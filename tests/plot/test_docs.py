"""The code blocks of the page on pictures run as they stand."""

import zipfile
from importlib.util import find_spec

import pytest
from matplotlib.figure import Figure

import atldld
from atlases import labels
from atldld.testing import AllenServer, phantom_dataset
from measure_files import HEADER
from pages import page

if find_spec("panel") is None:
    pytest.skip("needs panel", allow_module_level=True)

PAGE = page("docs/plotting.md")


def test_python_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert len(PAGE.blocks("python")) == 8
    with zipfile.ZipFile("P56_Mouse_gridAnnotation.zip", "w") as archive:
        archive.writestr("a.mhd", HEADER.format(kind="MET_UINT", name="a"))
        archive.writestr("a.raw", labels(200, "node", (67, 41, 58)).tobytes(order="F"))
    phantom = phantom_dataset(69289763, plane="sagittal", tilt=1, resolution=30)
    with AllenServer([phantom]) as server, atldld.set_options(api_url=server.url):
        names = PAGE.run_python()
    assert isinstance(names["figure"], Figure)
    assert (tmp_path / "sections.png").stat().st_size > 10_000


def test_the_numbers_are_those_of_the_code():
    from inspect import signature

    from atldld.plot.plotting import plot

    defaults = {name: each.default for name, each in signature(plot).parameters.items()}
    flat = " ".join(PAGE.text.split())
    assert f"at most {defaults['panels']} panels" in flat
    assert f"more than {defaults['max_bytes'] / 1e6:.0f} MB" in flat
