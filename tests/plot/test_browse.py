"""The browser: one section fetched a move, upright, and in a real Chromium."""

import asyncio
import io
import shutil
import threading
from contextlib import contextmanager
from importlib.util import find_spec

import numpy as np
import pytest
from PIL import Image

import atldld
from atldld.plot.browsing import _Browser
from atldld.plot.subject import subject
from atldld.testing import AllenServer, Fault, PhantomBrain, phantom_dataset

if find_spec("panel") is None:
    pytest.skip("needs panel", allow_module_level=True)

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
BRAIN = PhantomBrain(texture="smooth")
DATASET = phantom_dataset(
    dataset_id=501, plane="sagittal", sections=6, resolution=30, brain=BRAIN, reference_space=9
)


@pytest.fixture(scope="module")
def smooth():
    with AllenServer([DATASET]) as running:
        yield running


@pytest.fixture
def sections(smooth):
    return atldld.open_dataarray(501, resolution=100, source=smooth.url)


def browser_of(sections, start=3):
    return _Browser(sections, subject(sections), start, 1e9)


def shown(browser):
    """Return the colours that a browser shows, shape (rows, columns, 4)."""
    (packed,) = browser.image.data["image"]
    return packed.view(np.uint8).reshape(*packed.shape, 4)


def test_opening_fetches_one_section_and_every_move_one(sections, smooth):
    images = sections.image_id.values
    # What is asked once of a service is asked before.
    sections.isel(section=0).compute()
    smooth.reset_log()
    browser = browser_of(sections)
    assert {each.image_id for each in smooth.image_requests} == {images[3]}
    for place in (4, 1):
        smooth.reset_log()
        browser.slider.param.trigger("value_throttled")
        assert smooth.image_requests == []
        browser.show(place)
        assert [each.image_id for each in smooth.image_requests] == [images[place]]
        assert f"section {int(sections.section[place])}:" in browser.figure.title.text


@pytest.mark.parametrize("turned", [False, True])
def test_the_picture_lies_where_the_axes_say(sections, turned):
    given = sections.isel(y=slice(None, None, -1), x=slice(None, None, -1)) if turned else sections
    browser = browser_of(given)
    (x,), (y,), (dw,), (dh,) = (browser.image.data[name] for name in ("x", "y", "dw", "dh"))
    assert (x, y, x + dw, y + dh) == (-50, -50, 13150, 7950)
    values = sections.isel(section=3).values
    assert np.array_equal(shown(browser)[..., :3], values)
    assert browser.figure.y_range.flipped
    assert browser.figure.match_aspect
    assert browser.figure.yaxis.axis_label == "ventral ← i [µm] → dorsal"
    assert browser.figure.xaxis.axis_label == "anterior ← p [µm] → posterior"


def test_uncovered_pixels_are_clear_and_grey_levels_grey(smooth):
    masked = atldld.open_dataarray(501, resolution=200, masked=True, source=smooth.url)
    values = masked.isel(section=0).values
    assert np.array_equal(shown(browser_of(masked, 0))[..., 3] == 0, np.isnan(values).any(axis=-1))
    mask = atldld.open_dataarray(501, resolution=200, view="expression_mask", source=smooth.url)
    assert np.array_equal(shown(browser_of(mask, 2))[..., 1], mask.isel(section=2).values)


def test_trouble_is_told_and_the_next_move_works():
    with AllenServer([DATASET], faults=[Fault("404", image_ids={501004})]) as own:
        sections = atldld.open_dataarray(501, resolution=100, source=own.url)
        lost = sections.image_id.values.tolist().index(501004)
        with atldld.set_options(retries=0):
            browser = browser_of(sections, start=(lost + 1) % 6)
            before = browser.figure.title.text
            browser.show(lost)
            assert "501004" in browser.trouble.object
            assert browser.trouble.visible
            assert browser.figure.title.text == before
            browser.show((lost + 2) % 6)
            assert not browser.trouble.visible
            assert browser.figure.title.text != before


def test_bad_input_is_refused_before_anything_is_read(sections, smooth):
    smooth.reset_log()
    with pytest.raises(ValueError, match="'section'"):
        sections.isel(section=0).atlas.browse()
    with pytest.raises(ValueError, match="first is 3; the sections are"):
        sections.atlas.browse(first=3)
    with pytest.raises(ValueError, match="max_bytes"):
        sections.atlas.browse(max_bytes=10)
    assert smooth.requests == []


@contextmanager
def served(app):
    """Serve an app on a free port of loopback; gives its URL."""
    from panel.io.server import get_server
    from tornado.ioloop import IOLoop

    ready, found = threading.Event(), {}

    def run():
        asyncio.set_event_loop(asyncio.new_event_loop())
        found["loop"] = IOLoop.current()
        found["server"] = get_server(app, port=0, show=False, start=False, loop=found["loop"])
        found["server"].start()
        found["loop"].add_callback(ready.set)
        found["loop"].start()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    assert ready.wait(120)
    yield f"http://localhost:{found['server'].port}"
    found["loop"].add_callback(found["server"].stop)
    found["loop"].add_callback(found["loop"].stop)
    thread.join(30)


FIGURE = "Bokeh.documents[0].get_model_by_name('sections')"
READY = f"() => window.Bokeh && Bokeh.documents.length && {FIGURE} && {FIGURE}.title.text"
PLACE = f"""([x, y]) => {{
    const view = Bokeh.index.find_one({FIGURE});
    const box = view.el.getBoundingClientRect();
    return [box.left + view.frame.x_scale.compute(x), box.top + view.frame.y_scale.compute(y)];
}}"""


@pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.exhaustive
def test_in_a_real_browser(sections, smooth, tmp_path):
    playwright = pytest.importorskip("playwright.sync_api")
    images = sections.image_id.values
    sections.isel(section=0).compute()
    smooth.reset_log()
    with served(lambda: sections.atlas.browse()) as url, playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = chromium.new_page(viewport={"width": 1100, "height": 800})
        page.goto(url)
        page.wait_for_function(READY)
        assert {each.image_id for each in smooth.image_requests} == {images[3]}
        for place in (4, 5):
            smooth.reset_log()
            page.locator(".noUi-handle").focus()
            page.keyboard.press("ArrowRight")
            number = int(sections.section[place])
            page.wait_for_function(f"() => {FIGURE}.title.text.includes('section {number}:')")
            assert [each.image_id for each in smooth.image_requests] == [images[place]]
        # Dragged over all sections: only where it is let go, one is fetched.
        smooth.reset_log()
        box = page.locator(".noUi-handle").bounding_box()
        rail = page.locator(".noUi-base").bounding_box()
        level = box["y"] + box["height"] / 2
        page.mouse.move(box["x"] + box["width"] / 2, level)
        page.mouse.down()
        page.mouse.move(rail["x"] + 2, level, steps=12)
        page.mouse.up()
        number = int(sections.section[0])
        page.wait_for_function(f"() => {FIGURE}.title.text.includes('section {number}:')")
        assert {each.image_id for each in smooth.image_requests} <= {images[0]}
        for width in (1100, 420):
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_function(
                f"() => Bokeh.index.find_one({FIGURE}).el.getBoundingClientRect().right <= {width}"
            )
            check_colours(page, sections, 0)
        chromium.close()


def check_colours(page, sections, place):
    """Hold what the browser shows against the brain, at places that tell every flip."""
    section = sections.isel(section=place)
    places = section.atlas.pir().compute()
    corners = [(4000, 2500), (8000, 2500), (4000, 5500), (8000, 5500)]
    true = [
        BRAIN.colour(*(float(places[axis].sel(x=x, y=y)) for axis in "pir")) for x, y in corners
    ]

    def worst():
        shot = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(float)
        seen = [page.evaluate(PLACE, corner) for corner in corners]
        shown = [shot[round(top), round(left)] for left, top in seen]
        return max(np.abs(one - other).max() for one, other in zip(shown, true, strict=True))

    left, top = page.evaluate(PLACE, corners[0])
    right, bottom = page.evaluate(PLACE, corners[3])
    assert left < right
    assert top < bottom
    assert (right - left) / (bottom - top) == pytest.approx(4000 / 3000, rel=0.02)
    # The canvas is painted after the model has changed: look until it shows, or give up.
    page.wait_for_function(f"() => Bokeh.index.find_one({FIGURE}).is_idle !== false")
    assert min(worst() for _ in range(5)) < 10
