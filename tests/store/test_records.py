"""Names of the files of a store: each names one file, and none leads out of its folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atldld.model.read import VIEWS, ImageRead, Window
from atldld.store.files import LONGEST_NAME, name_fault
from atldld.store.records import (
    KeptImage,
    image_name,
    most_bytes,
    service_folder,
)

READ = ImageRead(7, "image", 2, 64, 48)

CLIMBING_NAMES = [
    "",
    "..",
    ".",
    "/etc/passwd",
    "images/../../x",
    "images/7/../8/image-t2.jpg",
    "images//image-t2.jpg",
    "images/7/image-t2.jpg/",
    "./images/7/image-t2.jpg",
    "C:/images/7/image-t2.jpg",
    "C:images",
    "images\\7\\image-t2.jpg",
    "..\\..\\x",
    "images/7/image-t2.jpg\0.png",
    "images/7/image-t2.jpg\n",
    "images/\u202e7/image-t2.jpg",
    "\ud800",
]
BAD_NAMES = [
    *CLIMBING_NAMES,
    "~/x",
    "images/" + "7" * LONGEST_NAME + "/image-t2.jpg",
    "images/7/" * 100,
]
UNKNOWN_NAMES = [
    "manifest.json",
    ".atldld-packing/draft.json",
    "datasets/05.json",
    "images/07/image-t2.jpg",
    "images/7/image-t02.jpg",
    "images/7/image-t100.jpg",
    "images/7/IMAGE-t2.jpg",
    "images/7/other-t2.jpg",
    "images/7/image-t2.png",
    "images/7/image-t2.jpg.json",
    "images/-7/image-t2.jpg",
    "images/\u0667/image-t2.jpg",
    "images/7/image-t2-w0-0-0-10.jpg",
    "images/7/image-t2-w0-0-10.jpg",
    "images/7/image-t2-w0-0-10-9999999999.jpg",
    "x.py",
    "README.txt.exe",
]


@pytest.mark.parametrize("name", [*BAD_NAMES, *UNKNOWN_NAMES])
def test_only_names_of_known_forms_name_files(name):
    with pytest.raises(ValueError, match=r"no bundle has|it has a|it is longer"):
        most_bytes(name)


@pytest.mark.parametrize("name", CLIMBING_NAMES)
def test_names_that_climb_have_a_fault_of_their_own(name):
    assert name_fault(name) is not None


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=60) | st.from_regex(r"[a-z0-9./\\:-]{0,40}", fullmatch=True))
def test_any_text_as_a_name(text):
    try:
        most_bytes(text)
    except ValueError:
        return
    assert name_fault(text) is None
    assert not {"..", ""} & set(text.split("/"))


images = st.builds(
    KeptImage,
    st.integers(0, 2**62),
    st.sampled_from(VIEWS),
    st.integers(0, 99),
    st.none() | st.builds(Window, *[st.integers(1, 10**9 - 1)] * 4),
)


def read_of(image: KeptImage) -> ImageRead:
    return ImageRead(image.image_id, image.view, image.tier, 9, 9, window=image.window)


@given(images)
def test_the_name_of_every_read_names_that_read_and_no_other(image):
    name = image_name(read_of(image))
    assert KeptImage.of_name(name) == image
    assert most_bytes(name) == 2**30


@pytest.mark.parametrize(
    "changes",
    [{"image_id": "../../etc/passwd"}, {"image_id": 7.0}, {"view": "../image"}, {"tier": "2"},
     {"window": Window("/etc", 0, 1, 1)}],
)  # fmt: skip
def test_no_name_leads_out_of_the_folder(changes):
    with pytest.raises((ValueError, TypeError)):
        image_name(replace(READ, **changes))


def test_services_have_folders_of_their_own():
    urls = ["http://h/api/v2", "https://h/api/v2", "http://h:8000/api/v2", "http://h/api/v3",
            "http://h.evil/api/v2", "http://[::1]:80/x", "http://../api"]  # fmt: skip
    names = [service_folder(url) for url in urls]
    assert len(set(names)) == len(urls)
    assert all(Path(name).name == name and not name.startswith(".") for name in names[:-1])


def test_a_password_is_neither_shown_nor_hashed():
    assert service_folder("http://me:secret@h/x") == service_folder("http://h/x")
