"""Other people's registrations: which entry is which section, in files of every form."""

import csv
import json
import re
from xml.etree import ElementTree

import numpy as np
import pytest

import atldld
import real_registrations
from atldld.errors import AtldldWarning, RegistrationError
from atldld.testing import AllenServer, phantom_dataset

NINE = ("ox", "oy", "oz", "ux", "uy", "uz", "vx", "vy", "vz")
TARGET = "ABA_Mouse_CCFv3_2017_25um.cutlas"
REAL = [
    "04-0283.json",
    "05-2824.json",
    "310-1480.json",
    "aba_1966_part.json",
    "deepslice_two_experiments_1966_part.json",
    "expert_1966_part.json",
    "visualign_test.json",
    "visualign_test.waln",
]


def nine(p, tilt=0.0):
    """Return an upright coronal picture over all of CCFv3, its left edge at p and tilted."""
    return [0, 528 - p / 25, 320, 456, tilt, 0, 0, 0, -320]


@pytest.fixture
def opened_by(opened, phantoms):
    """Return a function that opens the coronal phantom by entries."""
    images = [phantoms["coronal"].image(number) for number in phantoms["coronal"].image_ids]

    def by(entries=None, name="{id}_s{section_number:04}.jpg", **content):
        if entries is None:
            entries = [
                {"filename": name.format(**image), "anchoring": nine(4000 + 500 * number)}
                for number, image in enumerate(images)
            ]
        return opened(registration={"target": TARGET, "slices": entries, **content})

    by.images = images
    return by


def stand_in(images, plane="coronal"):
    """Return phantom rows whose images have given ids, numbers and sizes."""
    phantom = phantom_dataset(dataset_id=900, plane=plane, sections=2, resolution=60)
    row = json.loads(json.dumps(phantom.row))
    first = row["section_images"][0]
    row["section_images"] = [
        {**first, "id": number, "section_number": section, "width": width, "height": height}
        for number, section, width, height in images
    ]
    return row


def held(path):
    """Return name, section number, size and nine numbers of the entries of a real file."""
    content = json.loads(path.read_text())
    for each in content.get("slices", content.get("sections")):
        name = each["filename"].rpartition("/")[2]
        anchoring = each.get("anchoring", each.get("ouv"))
        yield (
            name,
            int(re.search(r"_s(\d+)", name)[1]),
            (each["width"], each["height"]),
            anchoring,
            each.get("markers", []),
        )


def open_row(row, **options):
    with AllenServer([row]) as server:
        return atldld.open_dataarray(row["id"], source=server.url, **options)


@pytest.mark.parametrize("name", REAL)
@pytest.mark.parametrize("experiment", range(4))
@pytest.mark.filterwarnings("ignore:.*as a mirror would")
def test_real_files_open_for_each_experiment_of_the_animal(real, name, experiment):
    path = real / "registrations" / name
    front = 552 if name.startswith("expert") else 528
    # Experiments take every so many section numbers; three images of each will do.
    mine = [each for each in held(path) if each[1] % 8 in (experiment, experiment + 4)][:3]
    if not mine:
        pytest.skip("the file has no section of this experiment")
    scale = 10 / 1.049
    images = []
    for number, (file, section, (width, height), _, _) in enumerate(mine):
        image = re.match(r"\d+", file)
        size = round(width * scale), round(height * scale)
        images.append((int(image[0]) if image else 5000 + number, section, *size))
    if not re.match(r"\d+", mine[0][0]):
        # No image ids: this file is one experiment's, and every entry must be for a section.
        with pytest.raises(RegistrationError, match="has no section"):
            open_row(stand_in(images), registration=path)
        mine = list(held(path))
        images = [
            (5000 + number, each[1], each[2][0], each[2][1]) for number, each in enumerate(mine)
        ]
    sections = open_row(stand_in(images), registration=path, resolution=200)
    assert sections.reference_space.item() == "CCFv3"
    assert sorted(sections.image_id.values) == sorted(image[0] for image in images)
    lies = sections.atlas.pir()
    for (image_id, *_), (_, _, _, anchoring, _) in zip(images, mine, strict=True):
        ox, oy, oz, ux, uy, uz, vx, vy, vz = anchoring
        plane = lies.isel(section=int(np.flatnonzero(sections.image_id.values == image_id)[0]))
        for r, i in ((3000, 2000), (8000, 6000)):
            a, b = np.linalg.solve([[ux, vx], [uz, vz]], [r / 25 - ox, 320 - i / 25 - oz])
            there = plane.sel(x=r, y=i)
            assert float(there.p) == pytest.approx(25 * (front - oy - a * uy - b * vy), abs=1e-6)


@pytest.mark.parametrize("name", REAL)
def test_real_files_of_another_animal_are_refused(real, name):
    path = real / "registrations" / name
    entries = list(held(path))[:4]
    # The same numbers and sizes, other images.
    images = [(77000001 + n, each[1], *each[2]) for n, each in enumerate(entries)]
    if not re.match(r"\d+", entries[0][0]):
        pytest.skip("its names hold no image ids")
    with pytest.raises(RegistrationError, match="nothing in it is for this dataset") as caught:
        open_row(stand_in(images), registration=path)
    assert entries[0][0].partition("_")[0] in str(caught.value)
    assert "77000001" in str(caught.value)


def test_sections_of_the_expert_lie_near_allens(real):
    ours, theirs = (
        {
            section: anchoring
            for _, section, _, anchoring, _ in held(
                real / "registrations" / f"{name}_1966_part.json"
            )
        }
        for name in ("aba", "expert")
    )
    images = [(101316931, 46, 879, 898), (101316953, 90, 940, 819), (101316964, 111, 971, 868)]
    sections = open_row(
        stand_in(images),
        registration=real / "registrations" / "expert_1966_part.json",
        detection_xy="center",
    )
    for number in (46, 90, 111):
        _, oy, _, _, uy, _, _, vy, _ = ours[number]
        allen = 25 * (528 - oy - (uy + vy) / 2)
        assert abs(float(sections.sel(section=number).p) - allen) < 120
    assert set(theirs) > {46, 90, 111}


def test_entries_of_other_experiments_are_passed_over_without_a_word(opened_by):
    own = opened_by()
    entries = [
        {"filename": f"555/10um/{88000000 + n}_s{n:04}.jpg", "anchoring": nine(100 * n)}
        for n in range(20)
    ]
    for folder in ("", "NISSL/10um/", "201/10um/"):
        mine = [
            {
                "filename": f"{folder}{image['id']}_s{image['section_number']}.jpg",
                "anchoring": nine(4000 + 500 * number),
            }
            for number, image in enumerate(opened_by.images)
        ]
        both = opened_by([*entries[:10], *mine, *entries[10:]])
        np.testing.assert_array_equal(both.p.values, own.p.values)
        np.testing.assert_array_equal(both.image_id.values, own.image_id.values)


def test_a_name_of_other_images_is_never_matched_by_number(opened_by):
    number = opened_by.images[0]["section_number"]
    for file in (
        f"88000000_s{number}.jpg",
        f"a/image_12_s{number}.jpg",
        f"555/thumb_s{number}.jpg",
        f"x 88000000 y_s{number}.png",
    ):
        with pytest.raises(RegistrationError, match="nothing in it is for this dataset"):
            opened_by([{"filename": file, "nr": number, "anchoring": nine(4000)}])


@pytest.mark.parametrize(
    "name",
    [
        "brain_s{section_number:03}.png",
        "201/brain_s{section_number}.png",
        "2023041_s{section_number}.png",
        "a/b/10um/x_s{section_number}.jpg",
    ],
)
def test_names_without_image_ids_go_by_number(opened_by, name):
    np.testing.assert_array_equal(opened_by(name=name).p.values, opened_by().p.values)


@pytest.mark.parametrize("kind", [str, float, "{}.0".format, np.int64])
def test_numbers_may_be_text_or_float(opened_by, kind):
    entries = [
        {"nr": kind(image["section_number"]), "anchoring": [str(v) for v in nine(4000 + 500 * n)]}
        for n, image in enumerate(opened_by.images)
    ]
    np.testing.assert_array_equal(opened_by(entries).p.values, opened_by().p.values)


def test_an_entry_of_this_experiment_that_fits_none_of_its_images_is_refused(opened_by):
    entries = [{"filename": "201/10um/88000000_s0001.jpg", "anchoring": nine(4000)}]
    with pytest.raises(RegistrationError, match="said to be of this dataset, which has no image"):
        opened_by(entries)


def test_images_that_failed_are_passed_over(tmp_path):
    phantom = phantom_dataset(dataset_id=301, sections=4, resolution=60)
    ids = phantom.image_ids
    slices = [
        {"filename": f"301/10um/{image}.jpg", "anchoring": nine(4000 + 500 * n)}
        for n, image in enumerate(ids)
    ]

    def fail(row):
        row["section_images"][1]["failed"] = True

    with (
        AllenServer([phantom.altered(fail)]) as server,
        pytest.warns(AtldldWarning, match="failed quality control"),
    ):
        sections = atldld.open_dataarray(
            301, source=server.url, registration={"target": TARGET, "slices": slices}
        )
    assert sorted(sections.image_id.values) == sorted({*ids} - {ids[1]})


def test_other_numbers_of_the_same_images_are_told(opened_by):
    entries = [
        {
            "filename": f"{image['id']}_s9{image['section_number']}.jpg",
            "anchoring": nine(4000 + 500 * n),
        }
        for n, image in enumerate(opened_by.images)
    ]
    with pytest.warns(AtldldWarning, match="have other numbers in the registration"):
        again = opened_by(entries)
    np.testing.assert_array_equal(again.p.values, opened_by().p.values)


def test_a_name_of_two_images_is_refused(opened_by):
    one, two = (image["id"] for image in opened_by.images[:2])
    with pytest.raises(RegistrationError, match="names several of its images"):
        opened_by([{"filename": f"{one}_{two}.jpg", "anchoring": nine(4000)}])


@pytest.mark.parametrize("lacking", [None, [], [float("nan")] * 9, [0, None, *[1] * 7], [""] * 9])
def test_entries_without_an_anchoring_are_passed_over_by_name(opened_by, lacking):
    entries = [
        {"filename": f"{image['id']}_s1.jpg", "anchoring": nine(4000 + 500 * n)}
        for n, image in enumerate(opened_by.images)
    ]
    entries[2]["anchoring"] = lacking
    with pytest.warns(AtldldWarning) as caught:
        some = opened_by(entries)
    messages = [str(each.message) for each in caught]
    assert any("no anchoring" in text and entries[2]["filename"] in text for text in messages)
    assert any("does not place them" in text for text in messages)
    assert opened_by.images[2]["id"] not in some.image_id.values


@pytest.mark.parametrize(
    ("target", "microns", "front"),
    [
        ("ABA_Mouse_CCFv3_2017_10um.cutlas", 10, 1320),
        ("ABA_Mouse_CCFv3_2017_50um", 50, 264),
        ("CCFv3a_extended_25um.cutlas", 25, 552),
        ("CCFv3a_extended_10um", 10, 1380),
    ],
)
def test_atlases_of_every_resolution_and_the_extended_one(opened_by, target, microns, front):
    scale, shape = 25 / microns, [11400, 13200 + 950 * target.startswith("CCFv3a"), 8000]
    entries = []
    for number, image in enumerate(opened_by.images):
        _, _, top, wide, _, _, _, _, high = np.array(nine(0)) * scale
        y = front - (4000 + 500 * number) / microns
        entries.append(
            {"filename": f"{image['id']}.jpg", "anchoring": [0, y, top, wide, 0, 0, 0, 0, high]}
        )
    there = opened_by(entries, target=target, **{"target-resolution": [s / microns for s in shape]})
    np.testing.assert_allclose(there.p.values, 4000 + 500 * np.arange(6), atol=1e-9)
    assert there.reference_space.item() == "CCFv3"


def _as_waln(path, entries):
    sections = [
        {"filename": f"{each['filename']}.dzip", "ouv": each["anchoring"], "snr": 1}
        for each in entries
    ]
    path.write_text(json.dumps({"atlas": TARGET.removesuffix(".cutlas"), "sections": sections}))


def _as_csv(path, entries):
    with path.open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(["Filenames", *NINE, "width", "nr"])
        table.writerows([[each["filename"], *each["anchoring"], "", 1] for each in entries])


def _as_xml(path, entries):
    root = ElementTree.Element("series", first="1", last="6", name="x")
    for each in entries:
        text = "&".join(f"{k}={v}" for k, v in zip(NINE, each["anchoring"], strict=True))
        ElementTree.SubElement(root, "slice", filename=each["filename"], nr="1", anchoring=text)
    ElementTree.ElementTree(root).write(path)


@pytest.mark.parametrize("ending", ["waln", "csv", "xml"])
def test_every_form_says_the_same(tmp_path, opened, opened_by, ending):
    entries = [
        {
            "filename": f"{image['id']}_s{image['section_number']}.jpg",
            "anchoring": nine(4000 + 500 * n, tilt=2.5),
        }
        for n, image in enumerate(opened_by.images)
    ]
    path = tmp_path / f"animal.{ending}"
    {"waln": _as_waln, "csv": _as_csv, "xml": _as_xml}[ending](path, entries)
    there, plain = opened(registration=path), opened_by(entries)
    np.testing.assert_array_equal(there.p.values, plain.p.values)
    np.testing.assert_array_equal(there.atlas.pir().p.values, plain.atlas.pir().p.values)
    assert f"animal.{ending}" in there.attrs["registration"]


NESTED = "[" * 100_000 + "]" * 100_000
HEAD = f"Filenames,{','.join(NINE)}\n"


def one(anchoring="[1,2,3,4,5,6,7,8,9]", entry='"nr": 1', **more):
    """Return a file of one entry, as text that need not be good JSON."""
    extra = "".join(f', "{key}": {value}' for key, value in more.items())
    return f'{{"slices": [{{{entry}, "anchoring": {anchoring}{extra}}}], "target": "{TARGET}"}}'


def content(slices="[]", target=f'"{TARGET}"', more=""):
    """Return a file, as text that need not be good JSON."""
    return f'{{"slices": {slices}, "target": {target}{more}}}'


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", NESTED),
        ("a.json", content(NESTED)),
        ("a.json", content("5", "null")),
        ("a.json", content('{"a": 1}', '"x"')),
        ("a.json", content(target='["x"]')),
        ("a.json", content(more=', "target-resolution": 5')),
        ("a.json", content(more=', "atldld": {"reference_space": []}')),
        ("a.json", content("[[1]]")),
        ("a.json", one("5")),
        ("a.json", one("[[1],2,3,4,5,6,7,8,9]")),
        ("a.json", one(f"[{'1e999,' * 8}1]", '"nr": [1]')),
        ("a.json", one(f"[1{'0' * 400},2,3,4,5,6,7,8,9]", '"nr": {}')),
        ("a.json", one(entry='"nr": 1e300')),
        ("a.json", one(entry='"filename": ["x"]')),
        ("a.json", one(markers="3")),
        ("a.json", one(markers="[[1, 2, 3]]")),
        ("a.json", one(markers="[[1, 2, 3, 4]]")),
        ("a.json", "\x00"),
        ("a.json", "5"),
        ("a.waln", f'{{"sections": "x", "atlas": "{TARGET}"}}'),
        ("a.csv", ""),
        ("a.csv", "Filenames,ox\na,1\n"),
        ("a.csv", f"{HEAD}a,1\n"),
        ("a.csv", f"{HEAD}{'x' * 200_000},1\n"),
        ("a.csv", f"{HEAD}a,b,c,d,e,f,g,h,i,j,k,l,m\n"),
        ("a.xml", "<series>"),
        ("a.xml", "<x/>"),
        ("a.xml", "<series><slice nr='1' anchoring='ox=1&amp;oy=2'/></series>"),
        ("a.xml", "<series><slice nr='1' anchoring='ox=a&amp;oy=2'/></series>"),
        ("a.xml", "<s>" * 100_000),
        ("a.xml", "<!DOCTYPE a [<!ENTITY b 'c'>]><series>&b;&d;</series>"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*no anchoring")
def test_hostile_files_give_our_errors(tmp_path, opened, name, text):
    (tmp_path / name).write_text(text)
    with pytest.raises(RegistrationError, match=re.escape(name)):
        opened(registration=tmp_path / name)


@pytest.mark.filterwarnings("ignore:.*no anchoring")
def test_files_that_are_no_text_or_too_large_are_refused(tmp_path, opened):
    for ending in ("json", "csv", "xml"):
        (tmp_path / f"a.{ending}").write_bytes(b"\xff\xfe\x00\x80" * 10)
        with pytest.raises(RegistrationError):
            opened(registration=tmp_path / f"a.{ending}")
    with (tmp_path / "large.json").open("wb") as file:
        file.truncate(2**27)
    with pytest.raises(RegistrationError, match="more than 64 MiB"):
        opened(registration=tmp_path / "large.json")
    loop = {"target": TARGET}
    loop["slices"] = [loop]
    with pytest.raises(RegistrationError):
        opened(registration=loop)
    with pytest.raises(RegistrationError):
        opened(registration={7: loop})


def test_every_entry_of_a_real_file_is_placed_in_one_experiment_or_said_to_be_none(real):
    for name, entries, anchored, _, experiments, placed, passed in real_registrations.table(
        real / "registrations"
    ):
        assert len(placed) == experiments, name
        assert sum(placed) == anchored == entries, name
        assert all(a + b == entries for a, b in zip(placed, passed, strict=True)), name
