"""The bucket of slides: every form of TIFF, the same pixels, by ranges, held to the metadata."""

import io
import json
import threading
from dataclasses import dataclass
from pathlib import Path

import fsspec
import numpy as np
import pytest
import tifffile
import xarray as xr
from click.testing import CliRunner
from fsspec.implementations.local import LocalFileSystem
from PIL import Image

import atldld
from atldld.cli.writing import download
from atldld.errors import AtldldWarning, ImageError
from atldld.model.read import ImageRead
from atldld.source import source_from
from atldld.source.allen import AllenSource
from atldld.source.bucket import BucketSource
from atldld.source.jpeg import decode
from atldld.testing import AllenServer, PhantomBrain, TiffForm, phantom_dataset, write_slides
from moto_server import BUCKET, ENVIRONMENT, s3_server

BRAIN = PhantomBrain("smooth")
PHANTOM = phantom_dataset(7, sections=6, resolution=48, slides=True, brain=BRAIN)

FORMS = {
    "strips": TiffForm(),
    "one strip": TiffForm(rows=None),
    "zlib": TiffForm(compression="zlib", rows=7),
    "lzw, differences": TiffForm(compression="lzw", predictor=True),
    "packbits": TiffForm(compression="packbits", rows=1),
    "tiles": TiffForm(tile=32),
    "zlib tiles": TiffForm(tile=48, compression="zlib"),
    "big": TiffForm(big=True, tile=64, compression="lzw"),
    "planar": TiffForm(planar=True, compression="zlib"),
    "planar strips": TiffForm(planar=True),
}


@dataclass(frozen=True)
class Lossless:
    """A source that gives every pixel of the phantom as it is."""

    name: str = "lossless"

    def dataset(self, dataset_id):
        from atldld.model.dataset import SectionDataset

        return SectionDataset.from_rows(PHANTOM.row)

    def image(self, read):
        window = read.window.box if read.window else (0, 0, *read.size)
        pixels = PHANTOM.pixels(read.image_id, read.tier, *window)
        body = io.BytesIO()
        Image.fromarray(pixels).save(body, "PNG")
        return body.getvalue()

    def discard(self, read):
        pass

    def url(self, read):
        return "nowhere"

    def held(self, read):
        return frozenset()

    def recall(self, key):
        said = {"windows": True, "whole_origin": "slide", "past_left": True, "past_top": True}
        return json.dumps(said) if key == "conventions" else None

    def remember(self, key, text):
        pass

    def __dask_tokenize__(self):
        return self.name


@pytest.fixture(scope="module")
def server():
    with AllenServer(PHANTOM) as running:
        yield running


@pytest.fixture
def options(server, tmp_path):
    with atldld.set_options(cache_dir=tmp_path / "cache", api_url=server.url, retries=0):
        yield


@pytest.fixture(scope="module")
def slides(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slides")
    write_slides([PHANTOM], folder)
    return folder


def exact(**how):
    return atldld.open_dataarray(7, source=Lossless(), **how)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_gives_the_same_array_exactly(options, tmp_path, form):
    write_slides([PHANTOM], tmp_path / "slides", form)
    sections = atldld.open_dataarray(7, resolution=100, source=tmp_path / "slides")
    assert isinstance(source_from(tmp_path / "slides"), BucketSource)
    np.testing.assert_array_equal(sections.values, exact(resolution=100).values)
    window = sections.isel(section=2, y=slice(20, 31), x=slice(60, 75))
    np.testing.assert_array_equal(
        window.values,
        exact(resolution=100).isel(section=2, y=slice(20, 31), x=slice(60, 75)).values,
    )


def test_jpeg_in_tiff_is_the_same_up_to_its_noise(options, tmp_path):
    write_slides([PHANTOM], tmp_path / "slides", TiffForm(tile=64, compression="jpeg"))
    sections = atldld.open_dataarray(7, resolution=100, source=tmp_path / "slides")
    off = np.abs(sections.values.astype(int) - exact(resolution=100).values)
    assert np.percentile(off, 99) <= 6


def test_grey_slides_have_three_equal_channels(options, tmp_path):
    write_slides([PHANTOM], tmp_path / "slides", TiffForm(grey=True, compression="zlib"))
    grey = atldld.open_dataarray(7, resolution=100, source=tmp_path / "slides").values
    np.testing.assert_array_equal(grey, exact(resolution=100).values[..., [0, 0, 0]])


def test_the_api_shows_the_same_up_to_jpeg(options, server, slides):
    bucket = atldld.open_dataarray(7, resolution=100, source=slides)
    api = atldld.open_dataarray(7, resolution=100, source=server.url)
    xr.testing.assert_equal(bucket.drop_vars([]).section, api.section)
    off = np.abs(bucket.values.astype(int) - api.values.astype(int))
    assert np.percentile(off, 99) <= 8
    volume = atldld.open_volume(7, resolution=400, source=slides)
    other = atldld.open_volume(7, resolution=400, source=Lossless())
    np.testing.assert_array_equal(volume.image.values, other.image.values)


def test_a_lost_tier_is_another_one_and_said(options, tmp_path):
    lost = [(image, 0) for image in PHANTOM.image_ids]
    write_slides([PHANTOM], tmp_path / "slides", lost=lost)
    sections = atldld.open_dataarray(7, resolution=48, on_error="fill", source=tmp_path / "slides")
    with pytest.warns(AtldldWarning, match="served from tier 1"):
        values = sections.isel(section=1).values
    near = np.abs(values.astype(int) - exact(resolution=48, tier=1).isel(section=1).values)
    assert near.max() <= 1
    assert set(sections.atlas.failures().outcome) == {"tier 1"}


def changed(folder, change):
    (path,) = folder.glob("*/section_data_set.json")
    row = json.loads(path.read_text())
    change(row["section_images"])
    path.write_text(json.dumps(row))


def elsewhere(images):
    for image in images:
        image["downsampling"]["downsample_1"]["x"] += 1


def unlisted(images):
    images.clear()


def other_slide(images):
    for image in images:
        image["downsampling"]["downsample_1"]["image_file_width"] += 1


def outside(images):
    for image in images:
        image["image_file_name"] = "../../secret.tiff"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (elsewhere, r"the bucket has it at \(\d+, .* the metadata at"),
        (unlisted, "does not list it"),
        (other_slide, "the bucket says"),
        (outside, "names no file"),
    ],
    ids=["elsewhere", "unlisted", "other slide", "outside"],
)
def test_what_does_not_fit_the_metadata_is_refused(options, tmp_path, change, words):
    write_slides([PHANTOM], tmp_path / "slides")
    changed(tmp_path / "slides", change)
    sections = atldld.open_dataarray(7, resolution=200, tier=1, source=tmp_path / "slides")
    with pytest.raises(ImageError, match=words):
        sections.isel(section=0).compute()


def cut(path):
    path.write_bytes(path.read_bytes()[:-100])


def text(path):
    path.write_text("<html>")


def sixteen(path):
    tifffile.imwrite(path, tifffile.imread(path).astype(np.uint16))


def four(path):
    pixels = tifffile.imread(path)
    tifffile.imwrite(path, np.concatenate([pixels, pixels[..., :1]], -1), photometric="rgb")


def spoilt(path):
    tifffile.imwrite(path, tifffile.imread(path), compression="zlib", rowsperstrip=20)
    with tifffile.TiffFile(path) as file:
        places = file.pages.first.dataoffsets
    content = bytearray(path.read_bytes())
    for place in places:
        content[place + 20 : place + 40] = bytes(20)
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (cut, "cut off"),
        (text, "not a TIFF"),
        (sixteen, "16 bits; 8 are read"),
        (four, "4 samples a pixel"),
        (spoilt, "segment .* is damaged"),
    ],
    ids=["cut", "text", "16 bits", "alpha", "spoilt"],
)
def test_a_damaged_slide_is_an_error_that_names_the_image(options, tmp_path, damage, words):
    write_slides([PHANTOM], tmp_path / "slides")
    for path in (tmp_path / "slides").rglob("downsample_1/*.tiff"):
        damage(path)
    sections = atldld.open_dataarray(7, resolution=200, tier=1, source=tmp_path / "slides")
    with pytest.raises(ImageError, match=words) as caught:
        sections.isel(section=0).compute()
    assert caught.value.image_id in PHANTOM.image_ids
    assert "downsample_1" in caught.value.url


class Counted(LocalFileSystem):
    """Local files, with a count of the bytes that are read of them."""

    protocol = "counted"
    read_bytes = 0
    largest = 0
    lock = threading.Lock()

    @classmethod
    def count(cls, size):
        with cls.lock:
            Counted.read_bytes += size
            Counted.largest = max(Counted.largest, size)

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("counted://", ""))

    def cat_file(self, path, start=None, end=None, **options):
        content = super().cat_file(path, start=start, end=end, **options)
        self.count(len(content))
        return content

    def _open(self, path, mode="rb", block_size=None, **options):
        file = super()._open(path, mode, block_size, **options)
        read = file.f.read

        class Reading(io.BufferedReader):
            pass

        def counted(*args):
            content = read(*args)
            Counted.count(len(content))
            return content

        file.read = counted
        return file


@pytest.mark.parametrize("form", ["rows", "tiles"])
def test_a_window_of_a_huge_slide_costs_a_few_megabytes(options, tmp_path, form):
    from atldld.model.read import ImageRead, Window

    fsspec.register_implementation("counted", Counted, clobber=True)
    wide, tall = 19_200, 38_272
    home = tmp_path / "slides" / "section_data_set_5"
    path = home / "downsample_0" / "section_image_1.tiff"
    path.parent.mkdir(parents=True)
    how = {"tile": (512, 512)} if form == "tiles" else {"rowsperstrip": 1}
    # Nothing is written but the directory: the file is sparse.
    tifffile.imwrite(
        path, shape=(tall, wide, 3), dtype=np.uint8, photometric="rgb", metadata=None, **how
    )
    assert path.stat().st_size > 2e9
    tiers = {
        "downsample_0": {
            "x": 608, "y": 1168, "width": 14_752, "height": 7_664,
            "image_file_width": wide, "image_file_height": tall,
        }
    }  # fmt: skip
    row = {"id": 9, "downsampling": tiers, "image_file_name": "section_image_1.tiff"}
    (home / "section_data_set.json").write_text(json.dumps({"section_images": [row]}))
    with path.open("r+b") as file, tifffile.TiffFile(path) as told:
        page = told.pages.first
        assert page.is_tiled == (form == "tiles")
        start = page.dataoffsets[0] if form == "tiles" else page.dataoffsets[1168 + 3000]
        if form == "rows":
            file.seek(start + 3 * (608 + 5000))
            file.write(bytes([1, 2, 3]))
    source = BucketSource(f"counted://{tmp_path / 'slides'}", AllenSource("http://h").base)
    window = Window(5000, 3000, 512, 512)
    read = ImageRead(9, "image", 0, 14_752, 7_664, 608, 1_168, window, 5, 1)
    Counted.read_bytes = 0
    pixels = np.asarray(Image.open(io.BytesIO(source.image(read))))
    assert pixels.shape == (512, 512, 3)
    assert pixels[0, 0].tolist() == ([1, 2, 3] if form == "rows" else [0, 0, 0])
    assert Counted.read_bytes < 8e6


@pytest.fixture(scope="module")
def s3():
    with s3_server() as url:
        yield url


def test_a_real_s3_server(options, s3, slides, monkeypatch, server):
    for name, value in {**ENVIRONMENT, "FSSPEC_S3_ENDPOINT_URL": s3}.items():
        monkeypatch.setenv(name, value)
    fsspec.config.conf["s3"] = {"endpoint_url": s3}
    try:
        files = fsspec.filesystem("s3")
        files.mkdir(BUCKET)
        files.put(f"{slides}/", f"{BUCKET}/slides/", recursive=True)
        where = f"s3://{BUCKET}/slides"
        sections = atldld.open_dataarray(7, resolution=100, source=where)
        assert sections.attrs["source"] == where
        np.testing.assert_array_equal(sections.values, exact(resolution=100).values)
        # What was read is kept: the bucket may go away.
        files.rm(f"{BUCKET}/slides", recursive=True)
        np.testing.assert_array_equal(sections.values, exact(resolution=100).values)
    finally:
        del fsspec.config.conf["s3"]


def test_only_images_are_there(options, slides):
    mask = atldld.open_dataarray(7, view="expression", resolution=200, source=slides)
    with pytest.raises(ImageError, match="no expression, only the images"):
        mask.isel(section=0).compute()


def test_matrices_may_come_from_a_catalogue(server, slides, tmp_path):
    with atldld.set_options(cache_dir=tmp_path / "cache", api_url=server.url):
        atldld.catalogue(images=True)
        server.reset_log()
        sections = atldld.open_dataarray(7, resolution=200, source=slides)
        np.testing.assert_array_equal(sections.values, exact(resolution=200).values)
        assert server.requests == []


def test_the_doctor_says_what_a_bucket_is_like(options, tmp_path):
    from click.testing import CliRunner

    from atldld.cli import main

    write_slides([PHANTOM], tmp_path / "slides", FORMS["zlib tiles"])
    arguments = ["doctor", "--source", str(tmp_path / "slides"), "--dataset", "7", "--json"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    told = {each["question"]: each["answer"] for each in json.loads(done.stdout)["findings"]}
    assert told["reachable"] == told["dataset 7 listed"] == "yes"
    assert told["dataset 7, image 7003, tier 0, form"] == (
        "TIFF, tiles of 48 x 48, compression adobe_deflate, 3 x 8 bits, RGB"
    )
    assert told["dataset 7, image 7003, tier 0, size as listed"] == "yes"
    assert told["dataset 7, image 7003, tier 0, window of 64 x 64"].endswith(" bytes")
    absent = CliRunner().invoke(main, [*arguments[:3], "--dataset", "8"])
    assert absent.exit_code == 1
    assert "does not have it" in absent.stdout


class Replacing(LocalFileSystem):
    """Local files, of which another takes the place while one is being read."""

    protocol = "replacing"
    left: list[tuple[str, bytes]] = []  # noqa: RUF012

    @classmethod
    def _strip_protocol(cls, path):
        return super()._strip_protocol(str(path).replace("replacing://", ""))

    def cat_file(self, path, start=None, end=None, **options):
        if self.left and str(path).endswith(".tiff"):
            name, other = self.left.pop()
            new = Path(f"{name}.new")
            new.write_bytes(other)
            new.replace(name)
        return super().cat_file(path, start=start, end=end, **options)


@pytest.mark.parametrize("times", [1, 9])
def test_a_slide_that_is_replaced_while_it_is_read_is_never_mixed(options, tmp_path, times):
    fsspec.register_implementation("replacing", Replacing, clobber=True)
    slides = tmp_path / "slides"
    write_slides([PHANTOM], slides)
    (listing,) = slides.glob("*/section_data_set.json")
    image = PHANTOM.image_ids[2]
    rows = json.loads(listing.read_text())["section_images"]
    (name,) = (row["image_file_name"] for row in rows if row["id"] == image)
    path = listing.parent / "downsample_1" / name
    pixels = tifffile.imread(path)
    both = []
    for each, words in ((255 - pixels, "x" * 1000), (pixels, "")):
        # The directory of the one does not tell where the pixels of the other are.
        tifffile.imwrite(path, each, photometric="rgb", metadata=None, description=words)
        both.append(path.read_bytes())
    source = BucketSource(f"replacing://{slides}", AllenSource("http://h").base)
    (row,) = (row for row in PHANTOM.row["section_images"] if row["id"] == image)
    expected = 255 - PHANTOM.pixels(image, 1)
    size = expected.shape[1::-1]
    read = ImageRead(image, "image", 1, *size, row["x"], row["y"], dataset_id=7)
    Replacing.left[:] = [(str(path), both[k % 2]) for k in range(times)]
    try:
        if times > 1:
            with pytest.raises(ImageError, match="changes while it is read"):
                source.image(read)
            return
        found = decode(source.image(read))
    finally:
        Replacing.left.clear()
    np.testing.assert_array_equal(found, expected)


def test_it_is_described_downloaded_as_png_and_not_packed(options, server, slides, tmp_path):
    assert atldld.dataset_info(7, source=slides).images[0].image_id in PHANTOM.image_ids
    arguments = ["7", "-o", str(tmp_path / "out"), "--tier", "1", "--source", str(slides)]
    for kept in (0, 6):
        done = CliRunner().invoke(download, arguments)
        assert done.exit_code == 0, done.output
        assert f"({kept} were there before)" in done.output
    files = sorted((tmp_path / "out").glob("*_*.*"))
    assert {path.suffix for path in files} == {".png"}
    image = int(files[2].stem.partition("_")[2])
    width, height = decode(files[2].read_bytes()).shape[1::-1]
    expected = PHANTOM.pixels(image, 1, 0, 0, width, height)
    np.testing.assert_array_equal(decode(files[2].read_bytes()), expected)
    server.reset_log()
    with pytest.raises(ValueError, match="without loss, which a bundle does not hold"):
        atldld.pack(7, tmp_path / "bundle.zip", source=slides)
    assert server.requests == []
    assert not (tmp_path / "bundle.zip").exists()
