"""Image downloads: redirects, sizes, windows, views, and both readings of each doubt."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
import simplejpeg

from atldld.testing import AllenServer, Doubts, PhantomBrain, PhantomDataset, phantom_dataset


def pixels_of(reply: Any) -> np.ndarray:
    assert reply.status == 200
    assert reply.headers["content-type"] == "image/jpeg"
    return simplejpeg.decode_jpeg(reply.body, strict=True)


def assert_shows(reply: Any, expected: np.ndarray) -> None:
    """The JPEG has the size of the expected pixels, and their colours to its quality."""
    found = pixels_of(reply)
    assert found.shape[:2] == expected.shape[:2]
    if expected.ndim == 2:
        expected = expected[..., None]
    off = np.abs(found.astype(int) - expected)
    assert np.median(off) <= 1
    assert np.percentile(off, 99) <= 5


@pytest.fixture
def image(slides: PhantomDataset) -> dict:
    """The fourth section: at the lower right of a slide of four, at odd x and y."""
    return slides.image(slides.image_ids[3])


def test_a_download_is_redirected_to_the_image_service(server: Any, fetch: Any, image: dict):
    reply = fetch(server, f"/section_image_download/{image['id']}?downsample=2", follow=False)
    assert reply.status == 302
    target = urlsplit(reply.headers["location"])
    assert target.path == "/cgi-bin/imageservice"
    asked = {name: values[0] for name, values in parse_qs(target.query).items()}
    assert asked == {
        "mime": "1",
        "path": image["path"],
        "left": str(image["x"]),
        "top": str(image["y"]),
        "width": str(image["width"] // 4),
        "height": str(image["height"] // 4),
        "downsample": "2",
    }


@pytest.mark.parametrize("tier", [0, 1, 2, 3])
def test_tiers_have_floor_sizes(server: Any, fetch: Any, slides: Any, image: dict, tier: int):
    reply = fetch(server, f"/section_image_download/{image['id']}?downsample={tier}")
    expected = slides.pixels(image["id"], tier)
    assert expected.shape[:2] == (image["height"] >> tier, image["width"] >> tier)
    assert_shows(reply, expected)


def test_without_parameters_the_whole_section_comes_at_full_resolution(
    server: Any, fetch: Any, slides: Any, image: dict
) -> None:
    for service in ("section_image_download", "image_download"):
        assert_shows(fetch(server, f"/{service}/{image['id']}"), slides.pixels(image["id"]))


@pytest.mark.parametrize("tier", [0, 2])
def test_windows_count_from_the_slide_in_full_resolution_pixels(
    server: Any, fetch: Any, slides: Any, image: dict, tier: int
) -> None:
    step = 2**tier
    left, top, width, height = 30, 20, 41, 33
    corner = (image["x"] // step + left) * step, (image["y"] // step + top) * step
    reply = fetch(
        server,
        f"/section_image_download/{image['id']}?downsample={tier}&left={corner[0]}&top={corner[1]}"
        f"&width={width}&height={height}&downsample_dimensions=false",
    )
    assert_shows(reply, slides.pixels(image["id"], tier, left, top, width, height))
    record = server.image_requests[-1]
    assert record.window == (left, top, width, height)
    assert (record.left, record.top) == corner
    assert (record.tier, record.width, record.height) == (tier, width, height)


def test_the_slide_offset_matters(server: Any, fetch: Any, slides: Any, image: dict) -> None:
    # Forgetting SectionImage.x and y shows another section of the slide.
    reply = fetch(
        server, f"/section_image_download/{image['id']}?left=30&top=20&width=90&height=90"
    )
    wrong = slides.pixels(image["id"], 0, 30, 20, 90, 90).astype(int)
    assert np.median(np.abs(pixels_of(reply).astype(int) - wrong).max(axis=-1)) > 15


@pytest.mark.parametrize("meaning", ["honoured", "inverted", "ignored"])
@pytest.mark.parametrize("default", ["tier", "full"])
@pytest.mark.parametrize("flag", ["true", "false", None])
def test_sizes_of_windows(
    fetch: Any, slides: Any, image: dict, meaning: str, default: str, flag: str | None
) -> None:
    doubts = Doubts(downsample_dimensions=meaning, window_sizes=default)
    shrinks = default == "full"
    if flag is not None and meaning != "ignored":
        shrinks = (flag == "true") == (meaning == "honoured")
    with AllenServer(slides, doubts=doubts) as server:
        path = f"/section_image_download/{image['id']}?downsample=2&width=101&height=63"
        path += "" if flag is None else f"&downsample_dimensions={flag}"
        expected = (15, 25) if shrinks else (63, 101)
        assert pixels_of(fetch(server, path)).shape[:2] == expected
        # Without sizes the whole section comes, whatever the flag.
        path = f"/section_image_download/{image['id']}?downsample=2"
        path += "" if flag is None else f"&downsample_dimensions={flag}"
        expected = (image["height"] // 4, image["width"] // 4)
        assert pixels_of(fetch(server, path)).shape[:2] == expected


@pytest.mark.parametrize("origin", ["floor", "exact"])
def test_tiers_begin_where_the_reading_says(
    fetch: Any, slides: Any, image: dict, origin: str
) -> None:
    tier, step = 3, 8
    assert image["x"] % step
    assert image["y"] % step
    with AllenServer(slides, doubts=Doubts(tier_origin=origin)) as server:
        whole = fetch(server, f"/section_image_download/{image['id']}?downsample={tier}")
        assert_shows(whole, slides.pixels(image["id"], tier, origin=origin))
        assert server.image_requests[-1].window is None
        other = slides.pixels(image["id"], tier, origin="exact" if origin == "floor" else "floor")
        assert np.mean(np.abs(pixels_of(whole).astype(int) - other)) > 1
        # A window that begins off the lattice of the slide's tier.
        left, top = image["x"] + 5 * step + 3, image["y"] + 4 * step + 6
        part = fetch(
            server,
            f"/section_image_download/{image['id']}?downsample={tier}"
            f"&left={left}&top={top}&width=20&height=15",
        )
        corner = (left, top) if origin == "exact" else (left // 8 * 8, top // 8 * 8)
        assert_shows(part, slides.slide_pixels(image["id"], "image", tier, corner, (20, 15)))


@pytest.mark.parametrize("centre", ["centre", "corner"])
def test_pixels_are_where_the_reading_says(fetch: Any, centre: str) -> None:
    dataset = phantom_dataset(4, sections=1, brain=PhantomBrain("smooth"), resolution=64.0)
    with AllenServer(dataset, doubts=Doubts(pixel_centre=centre)) as server:
        reply = fetch(server, "/section_image_download/4000")
        shifts = {"centre": 0.0, "corner": 0.5}
        found = pixels_of(reply).astype(int)
        off = {
            name: np.mean(np.abs(found - dataset.pixels(4000, shift=shift)))
            for name, shift in shifts.items()
        }
        assert min(off, key=off.__getitem__) == centre


@pytest.mark.parametrize("outside", ["pad", "clip"])
@pytest.mark.parametrize("origin", ["floor", "exact"])
def test_windows_past_the_slide(
    fetch: Any, slides: Any, image: dict, outside: str, origin: str
) -> None:
    with AllenServer(slides, doubts=Doubts(outside=outside, tier_origin=origin)) as server:

        def ask(left: int, top: int, width: int, height: int) -> Any:
            return fetch(
                server,
                f"/section_image_download/{image['id']}?downsample=1"
                f"&left={left}&top={top}&width={width}&height={height}",
            )

        within = slides.slide_pixels(image["id"], "image", 1, (0, 0), (20, 30))
        before = ask(-20, -10, 30, 35)
        if outside == "clip":
            assert_shows(before, within)
        else:
            assert_shows(before, np.pad(within, ((5, 0), (10, 0), (0, 0)), constant_values=255))
        columns, rows = image["image_width"] // 2, image["image_height"] // 2
        if origin == "exact":
            columns, rows = (image["image_width"] + 1) // 2, (image["image_height"] + 1) // 2
        corner = 2 * (columns - 12), 2 * (rows - 9)
        past = pixels_of(ask(*corner, 40, 40))
        assert past.shape[:2] == ((9, 12) if outside == "clip" else (40, 40))
        nowhere = ask(1_000_000, 0, 10, 10)
        assert nowhere.status == (404 if outside == "clip" else 200)
        assert server.errors == []


@pytest.mark.parametrize("beyond", ["clamp", "404"])
def test_tiers_past_the_last(fetch: Any, slides: Any, image: dict, beyond: str) -> None:
    last = image["tier_count"] - 1
    with AllenServer(slides, doubts=Doubts(beyond_tiers=beyond)) as server:
        path = f"/section_image_download/{image['id']}?downsample="
        assert fetch(server, f"{path}{last}").status == 200
        reply = fetch(server, f"{path}{last + 2}")
        if beyond == "404":
            assert reply.status == 404
        else:
            assert_shows(reply, slides.pixels(image["id"], last))


@pytest.mark.parametrize("redirects", [True, False])
def test_with_redirects_and_without(fetch: Any, slides: Any, image: dict, redirects: bool) -> None:
    for options in ({"redirects": redirects}, {"doubts": Doubts(redirects=redirects)}):
        with AllenServer(slides, **options) as server:
            path = f"/section_image_download/{image['id']}?downsample=2"
            assert fetch(server, path, follow=False).status == (302 if redirects else 200)
            assert_shows(fetch(server, path), slides.pixels(image["id"], 2))
            kinds = [request.kind for request in server.requests]
            assert kinds == (["redirect"] * 2 + ["image"] if redirects else ["image"] * 2)


def test_the_content_type_can_be_another(fetch: Any, slides: Any, image: dict) -> None:
    with AllenServer(slides, doubts=Doubts(content_type="application/octet-stream")) as server:
        reply = fetch(server, f"/section_image_download/{image['id']}?downsample=3")
        assert reply.headers["content-type"] == "application/octet-stream"
        assert reply.body[:2] == b"\xff\xd8"


GREY = "filter=colormap&filterVals=0,1,0,256,0"


@pytest.mark.parametrize(
    ("query", "view"),
    [
        ("view=expression", "expression"),
        ("expression=true", "expression"),
        ("view=projection", "projection"),
        ("projection=true", "projection"),
        (f"view=expression&{GREY}", "expression_mask"),
        ("view=expression&filter=colormap&filterVals=0%2C1%2C0%2C256%2C0", "expression_mask"),
        ("expression=true&colormap=0,1,0,256,0", "expression_mask"),
        ("view=expression&filter=colormap&filterVals=0,1,0,256,4", "expression"),
    ],
)
def test_views(server: Any, fetch: Any, slides: Any, image: dict, query: str, view: str) -> None:
    reply = fetch(server, f"/section_image_download/{image['id']}?downsample=2&{query}")
    assert_shows(reply, slides.pixels(image["id"], 2, view=view))
    assert server.image_requests[-1].view == view


def test_the_projection_service(server: Any, fetch: Any, slides: Any, image: dict) -> None:
    reply = fetch(server, f"/projection_image_download/{image['id']}?downsample=3")
    assert_shows(reply, slides.pixels(image["id"], 3, view="projection"))


@pytest.mark.parametrize("spelling", ["both", "filter", "colormap", "neither"])
def test_how_grey_levels_are_spelled(fetch: Any, slides: Any, image: dict, spelling: str) -> None:
    with AllenServer(slides, doubts=Doubts(grey_mask=spelling)) as server:
        for name, query in (("filter", GREY), ("colormap", "colormap=0,1,0,256,0")):
            path = f"/section_image_download/{image['id']}?downsample=3&view=expression&{query}"
            fetch(server, path)
            grey = spelling in ("both", name)
            view = "expression_mask" if grey else "expression"
            assert server.image_requests[-1].view == view


@pytest.mark.parametrize("missing", ["404", "html"])
def test_a_missing_expression_image(fetch: Any, missing: str) -> None:
    dataset = phantom_dataset(4, sections=1, expression=False, resolution=64.0)
    with AllenServer(dataset, doubts=Doubts(missing_expression=missing)) as server:
        reply = fetch(server, "/section_image_download/4000?view=expression")
        assert fetch(server, "/section_image_download/4000").status == 200
        if missing == "404":
            assert reply.status == 404
        else:
            assert reply.status == 200
            assert b"<html>" in reply.body
            assert reply.headers["content-type"].startswith("text/html")


def test_an_unknown_image_or_parameter(server: Any, fetch: Any, image: dict) -> None:
    base = f"/section_image_download/{image['id']}"
    for path, status in (
        ("/section_image_download/-1", 404),
        ("/section_image_download/99", 404),
        ("/section_image_download/abc", 404),
        (f"{base}?view=tumor_feature_boundary", 404),
        (f"{base}?downsample=-1", 400),
        (f"{base}?downsample=two", 400),
        (f"{base}?width=0", 400),
        (f"{base}?width=1000000&height=1000000", 400),
        (f"{base}?quality=101", 400),
        ("/cgi-bin/imageservice?path=/nowhere.aff", 404),
        ("/nothing/here", 404),
    ):
        assert fetch(server, path).status == status, path
    assert server.image_requests[-1].status == 404


def test_the_image_service_itself(server: Any, fetch: Any, slides: Any, image: dict) -> None:
    base = f"/cgi-bin/imageservice?path={image['path']}"
    slide = image["image_width"] // 8, image["image_height"] // 8
    whole = slides.slide_pixels(image["id"], "image", 3, (0, 0), slide)
    assert_shows(fetch(server, f"{base}&downsample=3&mime=2"), whole)
    zoom = image["tier_count"] - 1 - 3
    assert_shows(fetch(server, f"{base}&zoom={zoom}"), whole)


def test_quality_changes_the_body(server: Any, fetch: Any, image: dict) -> None:
    base = f"/section_image_download/{image['id']}?downsample=1&quality="
    sizes = [len(fetch(server, f"{base}{quality}").body) for quality in (20, 95, 100)]
    assert sizes == sorted(sizes)
    assert len(set(sizes)) == 3
    plain = fetch(server, f"/section_image_download/{image['id']}?downsample=1")
    assert len(plain.body) == sizes[1]


def test_prepared_images_are_the_same(fetch: Any, slides: Any) -> None:
    with AllenServer(slides, cache_bytes=0) as server:
        before = fetch(server, "/section_image_download/1001000?downsample=2").body
        total = server.prepare(tiers=[2, 99], image_ids=[1001000, 1001001])
        after = fetch(server, "/section_image_download/1001000?downsample=2").body
        other = fetch(server, "/section_image_download/1001001?downsample=2").body
        assert after == before
        assert total == len(after) + len(other)
        assert server.prepare("expression_mask", 3) > 0


def test_what_is_told_and_what_is_shown_can_differ(fetch: Any, slides: Any) -> None:
    def lie(row: dict) -> None:
        row["section_images"][0] |= {"width": 77, "x": 3, "expression_path": None}

    with AllenServer(slides.altered(lie)) as server:
        (told,) = fetch(server, "/data/SectionImage/1001000.json").json["msg"]
        assert told["width"] == 77
        reply = fetch(server, "/section_image_download/1001000?downsample=2")
        assert_shows(reply, slides.pixels(1001000, 2))
        assert fetch(server, "/section_image_download/1001000?view=expression").status == 404
