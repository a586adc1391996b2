"""A published registration: affines and fields of ANTs, fetched section by section."""

import fsspec
import nibabel
import numpy as np
import pandas as pd
import pytest

import atldld
import published_set
from atldld.errors import AtldldWarning, RegistrationError
from atldld.testing import AllenServer, PhantomBrain, phantom_dataset
from published_set import of_animal

BRAIN = PhantomBrain(texture="fine", fine_period=1600)
ANIMAL = "04-0283"


PHANTOMS = [
    phantom_dataset(
        dataset_id=number,
        plane="coronal",
        tilt=3,
        sections=3,
        brain=BRAIN,
        resolution=20,
        seed=number,
        slides=True,
        tier_count=4,
    ).altered(of_animal(ANIMAL))
    for number in (1435, 584)
]
MICRONS = 20.0
"""Of a full-resolution pixel."""


def write(folder, phantoms=PHANTOMS):
    """Write the set of the animal into a folder."""
    return published_set.write(folder, phantoms, ANIMAL, MICRONS)


@pytest.fixture(scope="module")
def published(tmp_path_factory):
    return write(tmp_path_factory.mktemp("published"))


@pytest.fixture(scope="module")
def server():
    with AllenServer(PHANTOMS) as running:
        yield running


@pytest.fixture
def opened(server, tmp_path):
    with atldld.set_options(cache_dir=tmp_path / "cache"):

        def opened(registration, dataset_id=1435, **options):
            options = {"resolution": 100, "source": server.url, "tier": 0, **options}
            return atldld.open_dataset(dataset_id, registration=str(registration), **options)

        yield opened


def truth(phantom, image, step=100):
    """Return the full-resolution pixel of each grid point, and whether the field says it."""
    i, r = np.meshgrid(np.arange(0, 7901, step), np.arange(0, 11301, step), indexing="ij")
    return published_set.bent_pixels(phantom, image, i, r, MICRONS)


@pytest.mark.parametrize("phantom", PHANTOMS, ids=lambda phantom: str(phantom.id))
def test_every_pixel_shows_what_affine_and_field_put_there(opened, published, phantom):
    dataset = opened(published, phantom.id)
    assert dataset.reference_space.item() == "CCFv3"
    assert "Carey" in dataset.image.attrs["citation"]
    assert sorted(dataset.image_id.values) == sorted(phantom.image_ids)
    for place in range(3):
        image = phantom.image(int(dataset.image_id[place]))
        x, y, known = truth(phantom, image)
        inward = np.minimum.reduce([x, y, image["width"] - 1 - x, image["height"] - 1 - y])
        inside = (inward >= 0) & known
        sure = np.abs(inward) > 1e-3
        covered = dataset.covered[place].values
        np.testing.assert_array_equal(covered[sure], inside[sure])
        assert inside.mean() > 0.1
        some = inside & (inward > 6)
        colour = BRAIN.colour(*phantom.pir(image["id"], x[some], y[some]))
        off = np.abs(dataset.image[place].values[some] - colour)
        # Half a full-resolution pixel is 10 microns and 1.4 grey levels on average.
        assert off.mean() < 0.75
        assert off.max() < 7


def test_pixels_go_to_their_places_and_back(published):
    from atldld.source.published import PublishedRegistration

    phantom = PHANTOMS[0]
    found = PublishedRegistration.at(str(published)).of_animal(ANIMAL, 1435)
    for placement in found.placements[:3]:
        image = phantom.image(placement.named.images[0])
        size = image["width"], image["height"]
        bend = found.fields.of(placement, 1435, size).load()
        random = np.random.default_rng(image["id"])
        x, y = random.random((2, 500)) * (np.array(size)[:, None] - 1)
        bent = bend.to_bent(x, y)
        back = bend.to_straight(*bent)
        assert np.hypot(back[0] - x, back[1] - y).max() < 0.1
        assert np.hypot(bent[0] - x, bent[1] - y).max() > 3


def test_one_value_to_the_bit_however_it_is_cut(opened, published):
    whole = opened(published, resolution=40, tier="auto").compute()
    cut = opened(published, resolution=40, tier="auto", chunks={"section": 1, "y": 70, "x": 90})
    np.testing.assert_array_equal(cut.image.values, whole.image.values)
    np.testing.assert_array_equal(cut.covered.values, whole.covered.values)
    masked = opened(published, resolution=40, tier="auto", masked=True).image
    np.testing.assert_array_equal(masked.isnull().all("channel").values, ~whole.covered.values)


def test_files_are_fetched_section_by_section_and_kept(opened, published, server, tmp_path):
    memory = fsspec.filesystem("memory")
    for path in published.rglob("*.*"):
        memory.pipe_file(f"/set/{path.relative_to(published)}", path.read_bytes())
    with atldld.set_options(cache_dir=tmp_path / "kept"):
        dataset = opened("memory://set")
        kept = tmp_path / "kept"

        def names():
            return sorted(p.name for p in kept.rglob("registrations/*") if p.suffix != ".json")

        assert names() == []  # opening takes the anchorings alone
        section = dataset.isel(section=1)
        there = section.compute()
        image = int(section.image_id)
        assert len(names()) == 2
        assert all(str(image) in name for name in names())
        memory.rm("/set", recursive=True)
        from atldld.source import published as module

        module._loaded.cache_clear()
        again = opened("memory://set").isel(section=1).compute()
        np.testing.assert_array_equal(again.image.values, there.image.values)
        with pytest.warns(AtldldWarning, match="has no affine"):
            opened("memory://set").isel(section=0).compute()


def test_a_section_whose_field_is_missing_is_straight(opened, tmp_path):
    folder = write(tmp_path / "set" if (tmp_path / "set").mkdir() is None else None)
    missing = PHANTOMS[0].image_ids[1]
    (gone,) = folder.glob(f"nonlinear*/{ANIMAL}/1435/{missing}_*")
    gone.unlink()
    dataset = opened(folder, on_error="raise")
    place = int(np.flatnonzero(dataset.image_id.values == missing)[0])
    with pytest.warns(AtldldWarning, match="not bent"):
        there = dataset.isel(section=place).compute()
    plain = opened(folder / "QUINT_registration_jsons" / f"{ANIMAL}.json").isel(section=place)
    off = np.abs(there.image.values.astype(int) - plain.image.values)
    assert off.max() <= 1


def test_sections_that_are_not_published_are_left_out(opened, tmp_path):
    (tmp_path / "set").mkdir()
    folder = write(tmp_path / "set")
    path = folder / "QUINT_registration_jsons" / f"{ANIMAL}.json"
    import json

    content = json.loads(path.read_text())
    content["slices"] = [each for each in content["slices"] if each["nr"]]
    path.write_text(json.dumps(content))
    numbers = [PHANTOMS[0].image(each)["section_number"] for each in PHANTOMS[0].image_ids]
    assert 0 in numbers
    with pytest.warns(AtldldWarning, match="does not place them: 0"):
        dataset = opened(folder)
    assert sorted(dataset.section.values) == sorted(set(numbers) - {0})


def test_files_that_were_replaced_are_read_anew(opened, tmp_path):
    (tmp_path / "set").mkdir()
    folder = write(tmp_path / "set", PHANTOMS[:1])
    image = PHANTOMS[0].image_ids[1]
    before = opened(folder)
    place = int(np.flatnonzero(before.image_id.values == image)[0])
    shown = before.image.isel(section=place).compute()
    (path,) = folder.glob(f"nonlinear*/{ANIMAL}/1435/{image}_*")
    field = nibabel.load(path)
    moved = np.add(field.dataobj, [8.0, 0.0])
    nibabel.save(nibabel.Nifti1Image(moved, field.affine), path)
    after = opened(folder)
    assert before.image.data.name != after.image.data.name
    again = after.image.isel(section=place).compute()
    assert (again.values != shown.values).mean() > 0.05


def test_attributes_name_the_registration_and_no_folder_of_this_machine(opened, published):
    dataset = opened(published)
    told = dataset.image.attrs["registration"]
    assert told.startswith(f"{published.name}, animal {ANIMAL} (SHA-256 ")
    for attributes in (dataset.attrs, dataset.image.attrs, dataset.covered.attrs):
        assert str(published.parent) not in str(attributes)


def test_another_animal_is_refused(opened, tmp_path, published):
    other = phantom_dataset(dataset_id=77, sections=2, resolution=60)
    with AllenServer([other]) as server, pytest.raises(RegistrationError, match="animal") as caught:
        opened(published, 77, source=server.url)
    assert "77" in str(caught.value)
    with pytest.raises(RegistrationError, match=f"no registration of animal {ANIMAL}"):
        opened(tmp_path)


def test_experiments_known_to_be_misnumbered_warn(tmp_path):
    phantom = phantom_dataset(
        dataset_id=1878, plane="coronal", sections=2, resolution=60, seed=2
    ).altered(of_animal(ANIMAL))
    folder = write(tmp_path, [phantom])
    with AllenServer([phantom]) as server, pytest.warns(AtldldWarning, match="wrong direction"):
        atldld.open_dataarray(1878, registration=folder, source=server.url)


@pytest.mark.parametrize(
    ("part", "spoil", "message"),
    [
        ("affine", lambda path: path.write_bytes(b"no transform"), "no transform of ITK"),
        ("affine", lambda path: path.write_bytes(b""), "no transform of ITK"),
        ("nonlinear", lambda path: path.write_bytes(b"\x1f\x8bno"), "is damaged"),
        ("nonlinear", lambda path: path.write_bytes(path.read_bytes()[:-2000]), "is damaged"),
        ("nonlinear", lambda path: path.write_bytes(b"nothing" * 100), "NIfTI|damaged"),
        (
            "nonlinear",
            lambda path: nibabel.save(nibabel.Nifti1Image(np.zeros((9, 9, 3)), np.eye(4)), path),
            "two components",
        ),
        (
            "nonlinear",
            lambda path: nibabel.save(
                nibabel.Nifti1Image(np.full((9, 9, 2), np.nan), np.eye(4)), path
            ),
            "no numbers",
        ),
        (
            "nonlinear",
            lambda path: nibabel.save(
                nibabel.Nifti1Image(np.full((9, 9, 2), 1e6), np.eye(4)), path
            ),
            "further than the picture",
        ),
    ],
)
def test_damaged_files_are_named(opened, tmp_path, part, spoil, message):
    (tmp_path / "set").mkdir()
    folder = write(tmp_path / "set", PHANTOMS[:1])
    image = PHANTOMS[0].image_ids[0]
    (path,) = folder.glob(f"{part}*/{ANIMAL}/1435/{image}_*")
    spoil(path)
    dataset = opened(folder)
    place = int(np.flatnonzero(dataset.image_id.values == image)[0])
    with pytest.raises(RegistrationError, match=message) as caught:
        dataset.isel(section=place).compute()
    assert str(image) in str(caught.value)


def test_points_find_their_pixels_and_pixels_their_points(published, server, tmp_path):
    phantom = PHANTOMS[0]
    options = {"registration": published, "source": server.url}
    with atldld.set_options(cache_dir=tmp_path / "cache"):
        sections = atldld.open_dataset(1435, resolution=100, **options)
        place = 1
        image = phantom.image(int(sections.image_id[place]))
        x, y, _ = truth(phantom, image)
        covered = sections.covered[place].values
        lies = sections.isel(section=place).atlas.pir()
        rows, columns = np.nonzero(covered)
        points = np.stack([lies[axis].values[rows, columns] for axis in "pir"], axis=1)
        found = atldld.points_to_sections(1435, points, **options)
        assert (found.image_id == image["id"]).all()
        assert found.covered.all()
        assert not found.beyond.any()
        np.testing.assert_allclose(found.distance, 0, atol=1e-6)
        # Of a full-resolution pixel of 20 microns.
        np.testing.assert_allclose(found.x, x[rows, columns], atol=0.01)
        np.testing.assert_allclose(found.y, y[rows, columns], atol=0.01)
        back = atldld.sections_to_points(1435, found[["image_id", "x", "y"]], **options)
        np.testing.assert_allclose(back.to_numpy(), points, atol=2)
        off = points + np.array([200.0, 0, 0])
        moved = atldld.points_to_sections(1435, off, max_distance=150, **options)
        near = moved.image_id == image["id"]
        np.testing.assert_allclose(moved.distance[near], 200, atol=1e-6)
        assert not moved.covered[near].any()
        far = atldld.points_to_sections(1435, [[20000.0, 4000, 5700], [np.nan] * 3], **options)
        assert far.beyond.tolist() == [True, False]
        assert far.image_id.tolist()[1] == -1
        with pytest.raises(ValueError, match="leave that out"):
            atldld.points_to_sections(1435, points, reference_space=9, **options)


def test_native_pixels_lie_where_their_section_is_bent(published, server, tmp_path):
    phantom = PHANTOMS[0]
    options = {"registration": published, "source": server.url}
    with atldld.set_options(cache_dir=tmp_path / "cache"):
        image = phantom.image(phantom.image_ids[1])
        pixels = atldld.open_image(image["id"], tier=1, **options)
        plain = atldld.open_image(image["id"], tier=1, source=server.url)
        np.testing.assert_array_equal(pixels.values, plain.values)
        assert pixels.reference_space.item() == "CCFv3"
        places = pixels.atlas.pir().isel(x=slice(5, 90, 7), y=slice(3, 100, 9)).compute()
        frame = {"image_id": image["id"], "section_number": 0}
        y, x = np.meshgrid(places.y, places.x, indexing="ij")
        table = pd.DataFrame({**frame, "x": x.ravel(), "y": y.ravel()})
        found = atldld.sections_to_points(1435, table.drop(columns="section_number"), **options)
        for axis in "pir":
            np.testing.assert_allclose(places[axis].values.ravel(), found[axis], atol=1e-6)
        # And the same once the values are in memory.
        again = pixels.compute().atlas.pir().r.isel(x=8, y=9)
        np.testing.assert_array_equal(again, pixels.atlas.pir().r.isel(x=8, y=9))
        assert float(abs(pixels.atlas.pir().r - plain.atlas.pir().r.values).max()) > 50
        # A region of space is cut to what may lie in it.
        low, high = float(places.r[4, 4]), float(places.r[4, 8])
        part = atldld.open_image(image["id"], tier=1, region={"r": (low, high)}, **options)
        kept = part.atlas.pir().r
        whole = pixels.atlas.pir().r
        inside = ((whole >= low) & (whole <= high)).values
        shown = (
            np.isin(pixels.x.values, part.x.values)[None, :]
            & np.isin(pixels.y.values, part.y.values)[:, None]
        )
        assert (shown | ~inside).all()
        assert kept.sizes["x"] < pixels.sizes["x"]
        with pytest.raises(ValueError, match="bent section"):
            part.atlas.to_nifti(tmp_path / "a.nii.gz")


def test_volumes_of_an_animals_datasets_share_one_grid(published, server, tmp_path):
    with atldld.set_options(cache_dir=tmp_path / "c"):
        options = {"resolution": 400, "source": server.url, "registration": published}
        both = atldld.open_volumes([1435, 584], masked=True, **options)
        assert both.reference_space.item() == "CCFv3"
        assert "Carey" in both.attrs["citation"]
        mean = both.image.mean("dataset").compute()
        each = [atldld.open_volume(number, masked=True, **options) for number in (1435, 584)]
        for place, one in enumerate(each):
            np.testing.assert_array_equal(both.image[place].values, one.image.values)
        counted = both.coverage.values
        shown = (both.section_number >= 0).sum("dataset").values
        np.testing.assert_array_equal(counted, shown)
        one = both.coverage.isel(p=20, i=slice(3, 9), r=7)
        np.testing.assert_array_equal(one.values, counted[20, 3:9, 7])
        assert set(np.unique(counted)) == {0, 1, 2}
        np.testing.assert_array_equal(mean.isnull().all("channel").values, counted == 0)
        like = atldld.open_volume(1435, like=both, **options)
        np.testing.assert_array_equal(like.p.values, both.p.values)
        with pytest.raises(ValueError, match="no way there"):
            atldld.open_volume(1435, like=both, source=server.url)


def test_pixels_are_measured_where_they_are_bent_to(published, server, tmp_path):
    phantom = PHANTOMS[0]
    options = {"registration": published, "source": server.url}
    with atldld.set_options(cache_dir=tmp_path / "cache"):
        sums = atldld.quantify(
            1435, resolution=400, function=_dark, tier=0, view="image", **options,
        ).compute()  # fmt: skip
        assert sums.reference_space.item() == "CCFv3"
        counts = np.zeros(sums.n_pixels.shape, dtype=int)
        levels = np.zeros(counts.shape)
        for image_id in phantom.image_ids:
            pixels = atldld.open_image(image_id, **options)
            places = pixels.atlas.pir()
            cells = [np.floor(places[axis].values / 400 + 0.5) for axis in "pir"]
            known = np.isfinite(cells[0])
            inside = known.copy()
            for each, length in zip(cells, counts.shape, strict=True):
                inside &= (each >= 0) & (each < length)
            at = tuple(each[inside].astype(int) for each in cells)
            np.add.at(counts, at, 1)
            np.add.at(levels, at, _dark(pixels.values)[inside])
        assert not known.all()
        np.testing.assert_array_equal(sums.n_pixels.values, counts)
        np.testing.assert_allclose(sums.sum_intensity.values, levels)


def _dark(pixels):
    return 255.0 - pixels[..., 0]
