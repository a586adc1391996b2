"""QuickNII files: out with every section in its place, and in again to move them."""

import hashlib
import json

import numpy as np
import pytest
import xarray as xr

import atldld
from atldld.errors import AtldldWarning, RegistrationError
from atldld.export import read_quicknii, to_quicknii
from atldld.testing import AllenServer, oracle, phantom_dataset

PLANES = ("coronal", "sagittal", "transverse")


def place(anchoring, across, down):
    """Return p, i, r of a share of the width and height of a picture, in plain arithmetic.

    QuickNII counts voxels of 25 microns to the right, to the front and to the top, of which
    there are 456 x 528 x 320.
    """
    ox, oy, oz, ux, uy, uz, vx, vy, vz = anchoring
    x = ox + across * ux + down * vx
    y = oy + across * uy + down * vy
    z = oz + across * uz + down * vz
    return (528 - y) * 25, (320 - z) * 25, x * 25


def edges(phantom, image, tier=0):
    """Return p, i, r of the corners of a picture: of the outer edges of its pixels."""
    step = 2**tier
    first = [-(image[side] % step) - step / 2 for side in ("x", "y")]
    last = [
        low + max(image[side] // step, 1) * step
        for low, side in zip(first, ("width", "height"), strict=True)
    ]
    corners = [(first[0], first[1]), (last[0], first[1]), (first[0], last[1])]
    return [np.ravel(phantom.pir(image["id"], x, y)) for x, y in corners]


def anchoring(phantom, image, tier=0, moved=(0, 0, 0), mirrored=False):
    """Return the nine numbers of where an image truly is."""
    o, u, v = (corner + moved for corner in edges(phantom, image, tier))
    voxels = []
    for p, i, r in (o, u, v):
        voxels.append(np.array([(11400 - r if mirrored else r) / 25, 528 - p / 25, 320 - i / 25]))
    return [*voxels[0], *(voxels[1] - voxels[0]), *(voxels[2] - voxels[0])]


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("tier", [0, 3])
def test_every_section_is_written_where_it_lies(tmp_path, opened, phantoms, plane, tier):
    phantom, sections = phantoms[plane], opened(plane).isel(section=slice(1, 5))
    sections.atlas.to_quicknii(tmp_path / "q.json", tier=tier)
    content = json.loads((tmp_path / "q.json").read_text())
    assert content["target"] == "ABA_Mouse_CCFv3_2017_25um.cutlas"
    assert content["target-resolution"] == [456, 528, 320]
    assert [each["nr"] for each in content["slices"]] == sections.section.values.tolist()
    for each, image_id in zip(content["slices"], sections.image_id.values, strict=True):
        image = phantom.image(int(image_id))
        assert each["filename"] == f"image_{image_id}_s{each['nr']}.jpg"
        size = each["width"], each["height"]
        assert size == (image["width"] >> tier, image["height"] >> tier)
        # The middle of a pixel of the tier, which the service centres on k * 2**tier counted from
        # where the slide begins.
        for column, row in ((0, 0), (7, 3), (size[0] - 1, size[1] - 1)):
            x, y = (
                number * 2**tier - image[side] % 2**tier
                for number, side in ((column, "x"), (row, "y"))
            )
            p, i, r = place(each["anchoring"], (column + 0.5) / size[0], (row + 0.5) / size[1])
            back = oracle.reference_to_image(phantom.row, image, p, i, r)
            np.testing.assert_allclose(np.ravel(back)[:2], [x, y], atol=1e-6)
            # The service's two directions agree to a tenth of a micron only.
            there = np.ravel(phantom.pir(image["id"], x, y))
            np.testing.assert_allclose([p, i, r], there, atol=0.3)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("tier", [0, 2])
def test_what_nobody_moved_comes_back_as_it_was(tmp_path, opened, plane, tier):
    sections = opened(plane)
    sections.atlas.to_quicknii(tmp_path / "q.json", tier=tier)
    again = opened(plane, registration=tmp_path / "q.json")
    assert int(again.reference_space) == int(sections.reference_space)
    for axis in "pir":
        np.testing.assert_allclose(again[axis].values, sections[axis].values, atol=1e-6)
        np.testing.assert_allclose(
            again.atlas.pir()[axis].values, sections.atlas.pir()[axis].values, atol=1e-6
        )
    np.testing.assert_array_equal(again.section.values, sections.section.values)
    np.testing.assert_array_equal(again.tier.values, sections.tier.values)
    off = np.abs(again.values.astype(int) - sections.values.astype(int))
    assert np.percentile(off, 99.9) <= 1
    digits = hashlib.sha256((tmp_path / "q.json").read_bytes()).hexdigest()
    assert again.attrs[
        "registration"
    ] == f"a user's: q.json (SHA-256 {digits[:16]}), to P56 Brain" + (
        ", L/R Flipped" if plane == "sagittal" else ""
    )


def test_moved_sections_are_in_the_atlas_of_the_tool(tmp_path, opened):
    sections = opened()
    sections.atlas.to_quicknii(tmp_path / "q.json")
    content = json.loads((tmp_path / "q.json").read_text())
    for each in content["slices"]:
        each["anchoring"][1] -= 4  # four voxels to the back
    moved = opened(registration=content)
    np.testing.assert_allclose(moved.p.values, sections.p.values + 100, atol=1e-6)
    assert moved.reference_space.item() == "CCFv3"
    assert moved.attrs["reference_space"] == "CCFv3"
    assert moved.attrs["reference_space_name"] == "Allen CCFv3 (2017)"
    assert moved.attrs["registration"].endswith("to Allen CCFv3 (2017)")
    with pytest.raises(ValueError, match="cannot be combined"):
        _ = moved + sections
    with pytest.raises(ValueError, match="cannot be turned into reference_space=9"):
        opened(registration=content, reference_space=9)


@pytest.mark.parametrize("plane", PLANES)
@pytest.mark.parametrize("mapping", ["oblique", "parallel"])
@pytest.mark.parametrize("tier", [0, 2])
def test_a_better_registration_puts_the_brain_right(tmp_path, phantoms, plane, mapping, tier):
    phantom = phantoms[plane]

    def spoil(row):
        for number, image in enumerate(row["section_images"]):
            matrices, off = image["alignment2d"], 500 + 90 * number
            matrices["tsv_04"] += off
            matrices["tvs_04"] -= matrices["tvs_00"] * off
            matrices["tvs_05"] -= matrices["tvs_02"] * off

    spoiled = phantom.altered(spoil)
    images = [phantom.image(image_id) for image_id in phantom.image_ids]
    slices = [
        {
            "filename": f"x_s{image['section_number']}.png",
            "width": image["width"] >> tier,
            "height": image["height"] >> tier,
            "anchoring": anchoring(phantom, image, tier),
        }
        for image in images
    ]
    path = tmp_path / "right.json"
    path.write_text(json.dumps({"target": "ABA_Mouse_CCFv3_2017_25um.cutlas", "slices": slices}))
    with AllenServer([spoiled]) as server, atldld.set_options(cache_dir=tmp_path / "cache"):
        options = {"resolution": 60, "tier": 0, "mapping": mapping, "source": server.url}
        wrong = atldld.open_dataarray(phantom.id, **options)
        right = atldld.open_dataarray(phantom.id, registration=path, **options)
        errors = []
        for array in (wrong, right):
            section = array.isel(section=2)
            found = section.atlas.pir()
            # The brain is defined in space 9.
            r = found.r if plane != "sagittal" else 11350 - found.r
            colour = phantom.brain.colour(found.p.values, found.i.values, r.values)
            inside = (section.values != section.value_where_not_covered).any(axis=-1)
            assert inside.mean() > 0.05
            errors.append(np.median(np.abs(section.values[inside] - colour[inside])))
    assert errors[0] > 4
    assert errors[1] <= 1
    along = {"coronal": "p", "sagittal": "r", "transverse": "i"}[plane]
    # The middle line of the space is met where Allen's true matrices say.
    with AllenServer([phantom]) as server, atldld.set_options(cache_dir=tmp_path / "cache"):
        true = atldld.open_dataarray(phantom.id, source=server.url)
    np.testing.assert_allclose(right[along].values, true[along].values, atol=0.3)


def test_mirrors_are_told_and_turned_over(opened, phantoms):
    phantom = phantoms["coronal"]
    content = {
        "target": "ABA_Mouse_CCFv3_2017_25um.cutlas",
        "slices": [
            {"nr": image["section_number"], "anchoring": anchoring(phantom, image, mirrored=True)}
            for image in map(phantom.image, phantom.image_ids)
        ],
    }
    with pytest.warns(AtldldWarning, match="as a mirror would"):
        opened(registration=content)
    turned = opened(registration=read_quicknii(content, mirror=True))
    places, true = turned.atlas.pir(), opened().atlas.pir()
    np.testing.assert_allclose(places.p.values, true.p.values, atol=0.3)
    np.testing.assert_allclose(turned.values, opened().values, atol=40)


def test_sections_that_are_not_placed_are_left_out(opened, phantoms):
    phantom = phantoms["coronal"]
    image = phantom.image(phantom.image_ids[3])
    number = image["section_number"]
    with pytest.warns(AtldldWarning, match="does not place them"):
        one = opened(registration={number: anchoring(phantom, image)})
    assert one.section.values.tolist() == [number]
    with pytest.warns(AtldldWarning, match="does not place them"):
        same = opened(registration={image["id"]: anchoring(phantom, image)})
    np.testing.assert_array_equal(one.p.values, same.p.values)


def test_detection_and_region_use_the_new_place(opened, phantoms):
    phantom = phantoms["coronal"]
    whole = {
        image["id"]: anchoring(phantom, image, moved=(700, 0, 0))
        for image in map(phantom.image, phantom.image_ids)
    }
    moved = opened(registration=whole, detection_xy=(10.0, 20.0))
    for image_id, p in zip(moved.image_id.values, moved.p.values, strict=True):
        np.testing.assert_allclose(p, float(phantom.pir(int(image_id), 10, 20)[0]) + 700, atol=1e-6)
    middle = float(moved.p[2])
    cut = opened(
        registration=whole, detection_xy=(10.0, 20.0), region={"p": (middle - 1, middle + 1)}
    )
    assert cut.image_id.values.tolist() == [int(moved.image_id[2])]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["slices"][0].update(anchoring=[1, 2]), "not nine numbers"),
        (lambda c: c["slices"][0].update(anchoring=[0] * 9), "is no plane"),
        (lambda c: c["slices"][0].update(nr=9999, filename="a.png"), "has no section 9999"),
        (lambda c: c["slices"][0].update(c["slices"][1]), "are both image"),
        (lambda c: c["slices"][0].update(width=100, height=500), "another shape"),
        (lambda c: c.update(target="WHS_SD_Rat_v4_39um.cutlas"), "known are Allen's CCFv3"),
        (lambda c: c.update({"target-resolution": [456, 320, 528]}), "target-resolution is"),
        (lambda c: c.update(slices=3), "slices is no list"),
        (lambda c: c.update(slices=[]), "no section is registered"),
        (lambda c: c["slices"].insert(0, 7), "slice 0 is no object"),
        (
            lambda c: [c["slices"][0].pop(key) for key in ("nr", "filename")],
            "does not say which section",
        ),
        (
            lambda c: c["slices"][0].update(anchoring=[0, 0, 0, 0, 400, 0, 0, 0, -300]),
            "placed across r, but the sections are coronal, across p",
        ),
    ],
)
def test_files_that_do_not_fit_are_refused_by_name(tmp_path, opened, change, message):
    opened().atlas.to_quicknii(tmp_path / "q.json")
    content = json.loads((tmp_path / "q.json").read_text())
    change(content)
    (tmp_path / "q.json").write_text(json.dumps(content))
    with pytest.raises(RegistrationError, match=message) as caught:
        opened(registration=tmp_path / "q.json")
    assert "q.json" in str(caught.value)


def test_what_is_no_registration_is_refused(tmp_path, opened):
    with pytest.raises(FileNotFoundError, match="no registration file"):
        opened(registration=tmp_path / "none.json")
    with pytest.raises(TypeError, match="registration is int"):
        opened(registration=7)
    (tmp_path / "a.json").write_text("no JSON")
    with pytest.raises(RegistrationError, match=r"a\.json is no JSON"):
        opened(registration=tmp_path / "a.json")
    (tmp_path / "b.json").write_text("{}")
    with pytest.raises(RegistrationError, match=r"b\.json has no slices"):
        opened(registration=str(tmp_path / "b.json"))
    with pytest.raises(RegistrationError, match="keyed by section number"):
        opened(registration={"s1": [0] * 9})


def test_writing_checks_its_arguments(tmp_path, opened, volume):
    with pytest.raises(ValueError, match=r"named \.json"):
        to_quicknii(opened(), tmp_path / "q.xml")
    with pytest.raises(ValueError, match="from 0 to 4"):
        to_quicknii(opened(), tmp_path / "q.json", tier=5)
    with pytest.raises(ValueError, match="from 0 to 4"):
        to_quicknii(opened(), tmp_path / "q.json", tier=-1)
    with pytest.raises(ValueError, match="target is"):
        to_quicknii(opened(), tmp_path / "q.json", target="CCF")
    with pytest.raises(ValueError, match="place is known"):
        to_quicknii(volume(), tmp_path / "q.json")
    with pytest.raises(TypeError, match="has no sections"):
        to_quicknii(7, tmp_path / "q.json")
    assert not (tmp_path / "q.json").exists()


def test_sections_of_another_age_are_not_placed_in_the_adult_atlas(tmp_path):
    young = phantom_dataset(dataset_id=301, sections=3, resolution=60).altered(
        lambda row: row.update(reference_space_id=6)
    )
    with AllenServer([young]) as server:
        sections = atldld.open_dataarray(301, resolution=200, source=server.url)
        with pytest.raises(ValueError, match="in reference space 6, that of another age"):
            sections.atlas.to_quicknii(tmp_path / "q.json")
    assert not (tmp_path / "q.json").exists()


def test_two_images_of_one_section_need_their_ids(tmp_path):
    phantom = phantom_dataset(dataset_id=300, sections=3, resolution=60, seed=4)

    def double(row):
        images = row["section_images"]
        images[1]["section_number"] = images[0]["section_number"]

    with (
        AllenServer([phantom.altered(double)]) as server,
        atldld.set_options(cache_dir=tmp_path / "cache"),
    ):
        sections = atldld.open_dataarray(300, source=server.url)
        sections.atlas.to_quicknii(tmp_path / "q.json")
        again = atldld.open_dataarray(300, registration=tmp_path / "q.json", source=server.url)
        assert sorted(again.image_id.values) == sorted(sections.image_id.values)
        content = json.loads((tmp_path / "q.json").read_text())
        for each in content["slices"]:
            each["filename"] = "a.png"
        with pytest.raises(RegistrationError, match="more than one section"):
            atldld.open_dataarray(300, registration=content, source=server.url)


def test_registered_arrays_survive_files_and_tell_how_they_lie(tmp_path, opened, phantoms):
    phantom = phantoms["coronal"]
    whole = {
        image["id"]: anchoring(phantom, image) for image in map(phantom.image, phantom.image_ids)
    }
    stack = opened(registration=whole)
    section = stack.isel(section=1).to_dataset(name="image")
    section.to_netcdf(tmp_path / "s.nc", engine="h5netcdf")
    section.to_zarr(tmp_path / "s.zarr", consolidated=False)
    with xr.open_dataset(tmp_path / "s.nc", engine="h5netcdf") as kept:
        assert kept.reference_space.item() == "CCFv3"
    assert xr.open_zarr(tmp_path / "s.zarr", consolidated=False).reference_space.item() == "CCFv3"
    lies, true = stack.atlas.geometry(), opened().atlas.geometry()
    np.testing.assert_allclose(lies.tilt, true.tilt, atol=1e-3)
    np.testing.assert_allclose(lies.outside, true.outside, atol=1e-3)
    engine = xr.open_dataset(
        f"allen://{phantom.id}", engine="atldld", source=stack.source, registration=whole, chunks={}
    )
    np.testing.assert_array_equal(engine.p.values, stack.p.values)
