from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atldld.urls import (
    base_url,
    redirected,
    without_credentials,
)


@pytest.mark.parametrize(
    ("text", "spelling"),
    [
        ("http://h", "http://h/api/v2"),
        ("http://h/", "http://h/api/v2"),
        ("https://API.brain-map.org/api/v2/", "https://api.brain-map.org/api/v2"),
        ("HTTPS://h:443/api/v2", "https://h/api/v2"),
        ("http://h:443/", "http://h:443/api/v2"),
        ("http://h/mirror/of/it//", "http://h/mirror/of/it"),
        ("http://[::1]:80", "http://[::1]/api/v2"),
        ("http://Me:Secret@H:1", "http://Me:Secret@h:1/api/v2"),
    ],
)
def test_one_spelling(text, spelling):
    assert base_url(text) == spelling
    assert base_url(spelling) == spelling


@pytest.mark.parametrize(
    "text",
    ["", "h", "ftp://h", "http://", "http:///x", "http://h:x", "http://h:99999", "http://h:0",
     "http://h/?a=b", "http://h/?", "http://h/#x", "http://h /", "http://h\n/", "http://[::1"],
)  # fmt: skip
def test_not_a_base_url(text):
    with pytest.raises(ValueError, match="must be like"):
        base_url(text)


@pytest.mark.parametrize(
    "url",
    ["http://me:secret@h/x", "http://secret@h", "http://me:sec/ret:secret@h", "ftp://a:secret@"],
)
def test_credentials_are_not_shown(url):
    assert "secret" not in without_credentials(url)
    with pytest.raises(ValueError, match="must be like") as caught:
        base_url(url + "?")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("location", "target"),
    [("/b?c=1#d", "http://h/b?c=1"), ("b", "http://h/a/b"), ("//g/b", "http://g/b"),
     ("https://g/b", "https://g/b")],
)  # fmt: skip
def test_redirects(location, target):
    assert redirected("http://h/a/x", location) == target


@pytest.mark.parametrize("location", ["ftp://g/b", "file:///etc/passwd", "javascript:1"])
def test_redirects_stay_on_the_web(location):
    with pytest.raises(ValueError, match="not an http or https URL"):
        redirected("http://h/a", location)


def test_redirects_keep_their_protection():
    with pytest.raises(ValueError, match="from https to http"):
        redirected("https://h/a", "http://h/a")
    assert redirected("https://h/a", "/b") == "https://h/b"


@given(st.text())
def test_any_text_is_a_base_url_or_refused(text):
    with suppress(ValueError):
        assert base_url(base_url(text)) == base_url(text)


@given(st.text())
def test_any_redirect_leads_to_the_web_or_is_refused(text):
    with suppress(ValueError):
        assert redirected("https://h/a", text).startswith("https://")
