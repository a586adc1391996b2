"""The commands do what they say, and end as they should."""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import subprocess
import sys

import click
import cv2
import numpy as np
import pytest
from click.testing import CliRunner

import atldld
from atldld.arrays.accessor import AtlasAccessor
from atldld.cli import main
from atldld.errors import APIError, AtldldWarning
from atldld.testing import AllenServer, Fault, PhantomBrain, phantom_dataset

BRAIN = PhantomBrain(texture="smooth")


def a_dataset(dataset_id, plane="sagittal", **columns):
    return phantom_dataset(dataset_id, plane, brain=BRAIN, sections=4, resolution=32, **columns)


PROX1 = a_dataset(71, gene="Prox1")
UNPLACED = a_dataset(73, gene="Lost").altered(lambda row: row.update(alignment3d=None))
DATASETS = [PROX1, a_dataset(72, "coronal", gene="Prox2", products=(3,)), UNPLACED]


@pytest.fixture
def server():
    with AllenServer(DATASETS) as running, atldld.set_options(api_url=running.url, retries=0):
        yield running


@pytest.fixture
def run(server, tmp_path, monkeypatch):
    """Return a function that runs a command in a folder of its own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments, status=0):
        done = CliRunner().invoke(main, [str(each) for each in arguments])
        assert done.exit_code == status, done.output
        return done

    return run


def table(folder):
    text = (folder / "sections.csv").read_text(encoding="utf-8")
    return list(csv.DictReader(io.StringIO(text)))


def moved(path):
    """Write a registration of dataset 71, 200 microns further back than Allen's."""
    atldld.open_dataarray(71).atlas.to_quicknii(path)
    content = json.loads(path.read_text())
    for each in content["slices"]:
        each["anchoring"][1] -= 8  # voxels of 25 microns, to the back
    path.write_text(json.dumps(content))


def commands(group=main, path=()):
    for name, command in group.commands.items():
        yield (*path, name)
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))


class TestHelp:
    @pytest.mark.parametrize("path", [(), *commands()], ids=" ".join)
    def test_every_command_shows_an_example(self, path):
        text = CliRunner().invoke(main, [*path, "--help"]).output
        assert re.search(rf"Examples?:\n +atldld {' '.join(path)}".rstrip(), text)
        assert "\\b" not in text
        assert "\b" not in text

    def test_all_commands_are_there(self):
        assert set(main.commands) == {
            "cache", "catalogue", "demo", "doctor", "download", "info", "pack", "preview", "search",
            "serve", "verify", "volume",
        }  # fmt: skip


class TestSearch:
    def test_a_table(self, run):
        done = run("search", "prox*")
        lines = done.stdout.splitlines()
        assert lines[0].split() == ["dataset", "gene", "plane", "age", "product", "specimen"]
        assert [line.split()[0] for line in lines[1:]] == ["71", "72"]
        assert done.stderr == "2 datasets\n"

    def test_json(self, run):
        (found,) = json.loads(run("search", "Prox1", "--json").stdout)
        assert (found["dataset_id"], found["genes"], found["plane"]) == (71, ["Prox1"], "sagittal")
        assert json.loads(run("search", "nothing", "--json").stdout) == []

    @pytest.mark.parametrize(
        ("options", "found"),
        [
            (["Prox1", "Prox2"], [71, 72]),
            (["--plane", "coronal"], [72]),
            (["--product", "DevMouse"], [72]),
            (["--product", "3"], [72]),
            (["--specimen", "phantom-71"], [71]),
            (["--specimen", "500000071"], [71]),
            (["--dataset", "72", "--dataset", "71"], [71, 72]),
            (["--image", "71002"], [71]),
            (["*", "--failed"], [71, 72, 73]),
        ],
        ids=str,
    )
    def test_conditions(self, run, options, found):
        told = json.loads(run("search", *options, "--json").stdout)
        assert [each["dataset_id"] for each in told] == found

    def test_images(self, run):
        told = json.loads(run("search", "Prox1", "--images", "--json").stdout)
        assert [each["image_id"] for each in told] == PROX1.image_ids
        done = run("search", "--image", "71002", "--images")
        assert done.stderr == "1 section image\n"
        assert "71002" in done.stdout

    def test_wrong_names_are_answered_with_the_right_ones(self, run):
        done = run("search", "Prox1", "--plane", "sagital", status=2)
        assert done.stdout == ""
        assert done.stderr.startswith("Error: plane is 'sagital'; did you mean 'sagittal'?")
        assert done.stderr.count("\n") == 1
        assert "did you mean 'Mouse Brain'?" in run(
            "search", "--product", "Mouse Brian", status=2
        ).stderr  # fmt: skip

    def test_it_does_not_list_everything_by_accident(self, run, server):
        run("search", status=2)
        assert not server.requests


class TestInfo:
    def test_words(self, run):
        text = run("info", 71).stdout
        assert "gene: Prox1" in text
        assert "plane: sagittal" in text
        assert "71002" in run("info", 71, "--images").stdout

    def test_json(self, run):
        told = json.loads(run("info", 73, "--json").stdout)
        assert "alignment3d" in told["unregistered"]
        assert len(told["images"]) == 4

    def test_there_is_none(self, run):
        done = run("info", 99, status=1)
        assert re.fullmatch(r"Error: there is no section dataset 99 at http.*\n", done.stderr)


class TestDownload:
    def test_native_images(self, run, server, tmp_path):
        done = run(
            "download", 71, "-o", "out", "--tier", 1, "--view", "image", "--view", "expression"
        )
        assert "out holds 8 images of dataset 71" in done.stdout
        rows = table(tmp_path / "out")
        assert len(rows) == 8
        for row in rows:
            picture = cv2.imread(str(tmp_path / "out" / row["file"]))
            assert picture.shape[:2] == (int(row["height"]), int(row["width"]))
        first = rows[0]
        assert first["file"] == f"0000_{first['image_id']}.jpg"
        true = PROX1.image(int(first["image_id"]))
        assert (int(first["width"]), float(first["microns_per_pixel"])) == (true["width"] // 2, 64)
        described = json.loads((tmp_path / "out" / "dataset.json").read_text())
        assert described["genes"] == ["Prox1"]
        assert "citation" in described
        sections = atldld.open_dataarray(71)
        places = {int(row["image_id"]): float(row["slice_coordinate"]) for row in rows}
        for image_id, r in zip(sections.image_id.values, sections.r.values, strict=True):
            assert places[image_id] == pytest.approx(r, abs=1e-3)

    def test_a_tier_that_images_lack_is_said(self, run, server, tmp_path):
        last = PROX1.row["section_images"][0]["tier_count"] - 1
        count = len(PROX1.image_ids)
        done = run("download", 71, "-o", "out", "--tier", last + 2)
        assert f"{count} of them at tier {last}, the last that they have" in done.stdout
        assert "of them at tier" not in run("download", 71, "-o", "out", "--tier", last).stdout
        told = json.loads(run("download", 71, "-o", "out", "--tier", last + 2, "--json").stdout)
        assert told["tiers"] == {str(last): count}

    def test_the_table_knows_every_file_of_earlier_downloads(self, run, tmp_path):
        out = tmp_path / "out"
        run("download", 71, "-o", out, "--tier", 1)
        run("download", 71, "-o", out, "--tier", 0, "--view", "expression")
        run("download", "--image", PROX1.image_ids[0], "-o", out, "--tier", 0)
        run("download", 72, "-o", out, "--warped", "--resolution", 400)
        run("download", 72, "-o", out, "--warped", "--resolution", 500, "--region", "p=0:7000")
        (out / f"0000_{PROX1.image_ids[0]}_expression.jpg").unlink()
        rows = {row["file"]: row for row in table(out)}
        pictures = {path.name for path in out.iterdir() if path.suffix in (".jpg", ".png")}
        assert pictures == set(rows) - {f"0000_{PROX1.image_ids[0]}_expression.jpg"}
        assert len(pictures) == 11
        for name in pictures:
            height, width = cv2.imread(str(out / name)).shape[:2]
            if name.endswith(".jpg"):
                assert (height, width) == (int(rows[name]["height"]), int(rows[name]["width"]))
            else:
                assert width == 11400 // float(rows[name]["step"])
        assert {row["tier"] for row in rows.values() if row["view"] == "image"} == {"0", "1"}
        assert {row["step"] for row in rows.values()} == {"", "400.0", "500.0"}
        run("download", 71, "-o", out, "--tier", 0)
        assert len(table(out)) == 11

    def test_it_goes_on_where_it_stopped(self, run, server, tmp_path):
        bad = PROX1.image_ids[2]
        server.add_fault(Fault("404", image_ids=bad))
        done = run("download", 71, "-o", "out", "--tier", 2, status=1)
        assert "holds 3 images" in done.stdout
        assert re.fullmatch(rf"Error: image {bad} .*404.*\n", done.stderr)
        assert len(table(tmp_path / "out")) == 3
        server.clear_faults()
        (tmp_path / "out" / f"0000_{PROX1.image_ids[0]}.jpg").write_bytes(b"\xff\xd8cut")
        server.reset_log()
        with atldld.set_options(cache_dir=tmp_path / "another"):
            told = json.loads(run("download", 71, "-o", "out", "--tier", 2, "--json").stdout)
        assert (len(told["files"]), told["kept"], told["errors"]) == (4, 2, [])
        assert {each.image_id for each in server.image_requests} == {bad, PROX1.image_ids[0]}

    def test_a_damaged_one_is_fetched_again(self, run, server):
        server.add_fault(Fault("damaged", image_ids=PROX1.image_ids[1], times=1))
        told = json.loads(run("download", 71, "-o", "out", "--tier", 2, "--json").stdout)
        assert len(told["files"]) == 4

    def test_images_by_id(self, run, tmp_path):
        run("download", "--image", 71002, "--tier", 3, "-o", "out")
        names = {path.name for path in (tmp_path / "out").iterdir()}
        assert len([name for name in names if name.endswith("_71002.jpg")]) == 1
        assert len(names) == 3
        assert "no section dataset with image 5" in run(
            "download", "--image", 5, "-o", "out", status=1
        ).stderr  # fmt: skip
        assert "belong to datasets 71, 72" in run(
            "download", "--image", 71001, "--image", 72001, "-o", "out", status=2
        ).stderr  # fmt: skip
        assert "has no image 72001" in run(
            "download", 71, "--image", 72001, "-o", "out", status=2
        ).stderr  # fmt: skip

    def test_without_a_registration(self, run):
        told = json.loads(run("download", 73, "--tier", 3, "-o", "out", "--json").stdout)
        assert len(told["files"]) == 4

    def test_warped(self, run, tmp_path):
        run("download", 71, "-o", "out", "--warped", "--resolution", 200, "--region", "p=4000:9000")
        rows = table(tmp_path / "out")
        sections = atldld.open_dataarray(71, resolution=200, region={"p": (4000, 9000)})
        assert len(rows) == sections.sizes["section"]
        for row in rows:
            expected = sections.sel(section=int(row["section_number"]))
            picture = cv2.imread(str(tmp_path / "out" / row["file"]))[..., ::-1]
            np.testing.assert_array_equal(picture, expected.values)
            assert float(row["slice_coordinate"]) == pytest.approx(float(expected.r), abs=1e-3)
            assert (row["row_axis"], row["column_axis"], row["slice_axis"]) == ("i", "p", "r")
            assert float(row["first_column"]) == float(expected.p[0]) == 4000
            assert float(row["step"]) == 200

    def test_warped_by_another_registration(self, run, tmp_path):
        moved(tmp_path / "q.json")
        ways = ("--warped", "--resolution", 200, "--registration", "q.json")
        run("download", 71, "-o", "out", *ways)
        sections = atldld.open_dataarray(71, resolution=200, registration=tmp_path / "q.json")
        plain = atldld.open_dataarray(71, resolution=200)
        for row in table(tmp_path / "out"):
            number = int(row["section_number"])
            picture = cv2.imread(str(tmp_path / "out" / row["file"]))[..., ::-1]
            np.testing.assert_array_equal(picture, sections.sel(section=number).values)
            assert (picture != plain.sel(section=number).values).any()
            assert row["reference_space"] == "CCFv3"
        told = json.loads((tmp_path / "out" / "dataset.json").read_text())
        assert told["reference_space_name"] == sections.attrs["reference_space_name"]
        assert told["registration"] == sections.attrs["registration"]
        assert "q.json" in told["registration"]

    @pytest.mark.filterwarnings("default::atldld.errors.AtldldWarning")
    def test_warped_with_an_image_that_cannot_be_had(self, run, server, tmp_path):
        server.add_fault(Fault("404", image_ids=PROX1.image_ids[2]))
        done = run("download", 71, "-o", "out", "--warped", "--resolution", 400, status=1)
        assert "holds 3 images" in done.stdout
        assert "Error: " in done.stderr
        assert len(list((tmp_path / "out").glob("*.png"))) == 3

    @pytest.mark.parametrize(
        "options",
        [
            ["--resolution", "25"],
            ["--region", "p=1:2"],
            ["--registration", "q.json"],
            ["--warped", "--image", "71001"],
            ["--tier", "-1"],
            ["--view", "picture"],
        ],
        ids=str,
    )
    def test_what_does_not_go_together(self, run, server, options):
        run("download", 71, "-o", "out", *options, status=2)
        assert not server.requests

    def test_which_one(self, run):
        assert "name a DATASET" in run("download", "-o", "out", status=2).stderr


class TestVolume:
    @pytest.mark.parametrize("name", ["v.nii.gz", "v.nii", "v.nrrd", "v.zarr"])
    def test_each_format_opens_again(self, run, tmp_path, name):
        done = run("volume", 71, "-o", name, "--resolution", 400, "--region", "p=4000:9000")
        assert "13 x 20 x 28 voxels of 400 um" in done.stdout
        expected = atldld.open_volume(71, resolution=400, region={"p": (4000, 9000)}).image
        assert tuple(self.shape(tmp_path / name)) == expected.shape[:3]

    @staticmethod
    def shape(path):
        if path.suffix == ".zarr":
            import zarr

            return zarr.open_group(path, mode="r")["scale0/image"].shape[1:]
        if path.suffix == ".nrrd":
            import nrrd

            return nrrd.read_header(str(path))["sizes"][:0:-1].tolist()
        import nibabel

        return nibabel.load(path).shape[2::-1]

    @pytest.mark.parametrize("name", ["v.nii.gz", "v.nrrd", "v.zarr"])
    def test_another_registration_leads_elsewhere(self, run, tmp_path, name):
        moved(tmp_path / "q.json")
        run("volume", 71, "-o", name, "--resolution", 400, "--registration", "q.json")
        expected = atldld.open_volume(71, resolution=400, registration=tmp_path / "q.json").image
        assert expected.reference_space.item() == "CCFv3"
        assert tuple(self.shape(tmp_path / name)) == expected.shape[:3]

    def test_what_is_there_stays(self, run, tmp_path):
        (tmp_path / "v.nrrd").write_text("mine")
        done = run("volume", 71, "-o", "v.nrrd", "--resolution", 800, status=2)
        assert "--overwrite replaces it" in done.stderr
        assert (tmp_path / "v.nrrd").read_text() == "mine"
        run("volume", 71, "-o", "v.nrrd", "--resolution", 800, "--overwrite")
        assert (tmp_path / "v.nrrd").read_bytes().startswith(b"NRRD")

    def test_an_ending_that_is_none(self, run, server):
        assert "must end in one of .zarr, .nii" in run("volume", 71, "-o", "v.tif", status=2).stderr
        assert not server.requests

    @pytest.mark.filterwarnings("default::atldld.errors.AtldldWarning")
    def test_an_image_that_cannot_be_had(self, run, server, tmp_path):
        server.add_fault(Fault("404", image_ids=PROX1.image_ids[2]))
        done = run("volume", 71, "-o", "v.nii", "--resolution", 800, status=1)
        assert "1 of 4 images cannot be had (--skip-failed" in done.stderr
        assert not (tmp_path / "v.nii").exists()
        done = run("volume", 71, "-o", "v.nii", "--resolution", 800, "--skip-failed")
        assert "could not be had: " in done.stderr
        assert (tmp_path / "v.nii").exists()


class TestPreview:
    @pytest.mark.parametrize("name", ["p.tif1", "p", "p.exe"])
    def test_a_picture_that_cannot_be_written_is_refused_first(self, run, server, name):
        assert "must end in one of" in run("preview", 71, "-o", name, status=2).stderr
        assert not server.requests

    def test_a_picture_by_another_registration_says_its_space(self, run, tmp_path):
        moved(tmp_path / "q.json")
        done = run(
            "preview", 71, "-o", "p.svg", "--resolution", 200, "--registration", "q.json",
        )  # fmt: skip
        assert "4 sections of dataset 71, in Allen CCFv3" in done.stdout
        run("preview", 71, "-o", "q.svg", "--resolution", 200)
        assert (tmp_path / "p.svg").read_text() != (tmp_path / "q.svg").read_text()

    @pytest.mark.skipif(not hasattr(AtlasAccessor, "plot"), reason=".atlas has no plot")
    def test_a_picture(self, run, server, tmp_path):
        done = run("preview", 71, "-o", "new/p.png", "--resolution", 200)
        assert "new/p.png: 4 sections of dataset 71" in done.stdout
        picture = cv2.imread(str(tmp_path / "new" / "p.png"))
        assert picture.std() > 10
        assert {each.image_id for each in server.image_requests} == set(PROX1.image_ids)
        assert [path.name for path in (tmp_path / "new").iterdir()] == ["p.png"]


class TestEndings:
    def failing(self, error):
        @click.command()
        def command():
            raise error

        group = type(main)("x", commands={"go": command})
        return CliRunner().invoke(group, ["go"])

    @pytest.mark.parametrize(
        ("error", "status", "said"),
        [
            (APIError("it\nfailed", url="http://x"), 1, "Error: it failed (http://x)\n"),
            (ValueError("tier is 'x'"), 2, "Error: tier is 'x'\n"),
            (TypeError("no"), 2, "Error: no\n"),
            (ImportError("pip install matplotlib"), 1, "Error: pip install matplotlib\n"),
            (PermissionError(13, "denied", "/x"), 1, "Error: [Errno 13] denied: '/x'\n"),
            (
                KeyboardInterrupt(),
                130,
                "Stopped. The same command goes on where this one stopped.\n",
            ),
            (click.Abort(), 130, "Stopped. The same command goes on where this one stopped.\n"),
            (
                click.UsageError("name one"),
                2,
                "Usage: x go [OPTIONS]\nTry 'x go --help' for help.\n\nError: name one\n",
            ),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_status_and_words(self, error, status, said):
        done = self.failing(error)
        assert (done.exit_code, done.stdout, done.stderr) == (status, "", said)

    def test_mistakes_of_ours_are_not_hidden(self):
        assert isinstance(self.failing(ZeroDivisionError()).exception, ZeroDivisionError)

    def test_warnings_are_a_line(self):
        @click.command()
        def command():
            import warnings

            warnings.warn("a\nb", AtldldWarning, stacklevel=1)

        group = type(main)("x", commands={"go": command})
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.filters", [("default", None, AtldldWarning, None, 0)])
            done = CliRunner().invoke(group, ["go"])
        assert done.stderr == "Warning: a b\n"

    def test_colours_only_where_they_are_wanted(self, monkeypatch):
        @click.command()
        def command():
            raise APIError("no")

        group = type(main)("x", commands={"go": command})
        assert "\x1b[31m" in CliRunner().invoke(group, ["go"], color=True).stderr
        monkeypatch.setenv("NO_COLOR", "1")
        assert CliRunner().invoke(group, ["go"], color=True).stderr == "Error: no\n"


def test_a_made_up_brain_is_served_until_ctrl_c(tmp_path):
    command = [sys.executable, "-m", "atldld.cli", "serve", "--port", "0"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        url = process.stdout.readline().split()[-1]
        with atldld.set_options(api_url=url, cache_dir=tmp_path):
            found = atldld.search(gene="Prox1")
            assert found.dataset_id.tolist() == [1002, 69289763]
            assert atldld.open_dataarray(69289763).sizes["section"] == 18
            assert len(atldld.structures()) > 10
        process.send_signal(signal.SIGINT)
        out, err = process.stdout.read(), process.stderr.read()
    assert process.returncode == 0
    assert f"export ATLDLD_API_URL={url}" in out
    assert err == "Ended.\n"


@pytest.mark.exhaustive
def test_ctrl_c_leaves_what_is_done(tmp_path):
    """A real process, stopped by a real signal while the last image hangs."""
    hanging = PROX1.image_ids[-1]
    with AllenServer([PROX1], faults=[Fault("hang", image_ids=hanging, seconds=600)]) as server:
        command = [
            sys.executable, "-m", "atldld.cli", "download", "71", "-o", "out", "--tier", "2",
            "--source", server.url,
        ]  # fmt: skip
        environment = {**os.environ, "ATLDLD_CACHE_DIR": str(tmp_path / "cache")}
        process = subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        while process.poll() is None and len(list((tmp_path / "out").glob("*.jpg"))) < 3:
            pass
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=300)
        assert (process.returncode, out) == (130, "")
        assert err == "Stopped. The same command goes on where this one stopped.\n"
        assert not [path for path in (tmp_path / "out").iterdir() if path.suffix == ".partial"]
        server.clear_faults()
        server.reset_log()
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        assert "holds 4 images" in done.stdout
        assert "(3 were there before)" in done.stdout
        assert {each.image_id for each in server.image_requests} == {hanging}
        assert done.stderr == ""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pseudo-terminals")
def test_progress_is_shown_on_a_terminal(tmp_path):
    import pty

    with AllenServer([PROX1]) as server:
        command = [
            sys.executable, "-m", "atldld.cli", "download", "71", "-o", "out", "--tier", "3",
            "--source", server.url,
        ]  # fmt: skip
        terminal, end = pty.openpty()
        environment = {
            **os.environ, "ATLDLD_CACHE_DIR": str(tmp_path / "cache"), "NO_COLOR": "1",
            "TERM": "xterm",
        }  # fmt: skip
        process = subprocess.run(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=end
        )
        os.close(end)
        shown = os.read(terminal, 100_000).decode()
        os.close(terminal)
    assert process.returncode == 0
    assert b"Downloading" not in process.stdout
    assert "Downloading images" in shown
    assert "4/4" in shown
    assert "\x1b[3" not in shown


def test_bundles_in_json(run):
    told = json.loads(run("pack", 71, "b.zip", "--resolution", 400, "--json").stdout)
    assert (told["dataset_id"], told["fetched"], told["failed"]) == (71, 4, [])
    report = json.loads(run("verify", "b.zip", "--json").stdout)
    assert (report["ok"], report["missing"]) == (True, [])
