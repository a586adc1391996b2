from __future__ import annotations

import copy
import pickle

import pytest

import atldld
from atldld import errors

FULL = {
    "image_id": 7,
    "dataset_id": 5,
    "section_number": 70,
    "url": "http://h/section_image_download/7",
    "window": (0, 16, 8, 4),
}


@pytest.mark.parametrize(
    "name",
    ["DatasetNotFoundError", "RegistrationError", "APIError", "ImageError", "BundleError"],
)
def test_all_lie_below_one(name):
    assert issubclass(getattr(atldld, name), atldld.AtldldError)
    assert getattr(atldld, name) is getattr(errors, name)


def test_a_warning_is_none_of_them():
    assert issubclass(atldld.AtldldWarning, UserWarning)


@pytest.mark.parametrize("again", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_an_image_error_keeps_what_it_names(again):
    error = again(errors.ImageError("the body is empty", **FULL))
    assert {name: getattr(error, name) for name in FULL} == FULL
    assert str(error) == (
        "image 7 (section 70 of dataset 5), window (0, 16, 8, 4): the body is empty "
        "(http://h/section_image_download/7)"
    )


@pytest.mark.parametrize("again", [copy.copy, lambda e: pickle.loads(pickle.dumps(e))])
def test_an_api_error_keeps_what_it_names(again):
    error = again(errors.APIError("HTTP status 500", url="http://h/x", status=500))
    assert (error.message, error.url, error.status) == ("HTTP status 500", "http://h/x", 500)
    assert str(error) == "HTTP status 500 (http://h/x)"


def test_an_image_error_says_only_what_it_knows():
    assert str(errors.ImageError("it is lost", image_id=7)) == "image 7: it is lost"
    assert str(errors.ImageError("it is lost", image_id=0, section_number=0)) == (
        "image 0 (section 0): it is lost"
    )
