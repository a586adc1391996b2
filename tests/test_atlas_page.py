"""The code blocks of the page about the whole atlas run as they stand."""

import atldld
from atldld.testing import AllenServer, SyntheticAtlas
from pages import page, run_command

PAGE = page("docs/atlas.md")


def test_blocks_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    atlas = SyntheticAtlas(30)
    with (
        AllenServer(atlas, grids=atlas.grids) as server,
        atldld.set_options(api_url=server.url, cache_dir=tmp_path / "cache"),
    ):
        names = PAGE.run_python()
        for line in PAGE.commands():
            run_command(line)
    assert len(names["coronal"]) == names["mirror"].sizes["dataset"] > 2
    assert names["how_often"].max() == len(names["coronal"])
    assert names["failed"].empty
    assert names["nearest"].correlation[0] > 0.999
    assert (tmp_path / "atlas-tables" / "manifest.json").is_file()
    assert len(names["found"]) >= 5
