"""Values to the last bit, as they were: a digest of each kind of warp, and of whole volumes.

That a faster way makes the very same pixels shows here, whatever it is held against elsewhere.
The images are noise of whole numbers, kept as PNG: no decoder and no sine rounds anything. OpenCV's
single precision depends on its version, and on whether the processor multiplies and adds at once.
"""

import functools
import hashlib

import cv2
import numpy as np
import pytest
import simplejpeg

import atldld
from atldld.model.bend import Lattice, Triangles
from atldld.model.dataset import SectionDataset
from atldld.model.read import Window
from atldld.sampling.bent_grid import BentGrid, bend_warp
from atldld.sampling.reads import coverage
from atldld.sampling.warp import warp
from atldld.testing import phantom_dataset

ROWS, COLUMNS = np.arange(-7, 263), np.arange(5, 405)
BOUNDS = ((-7, 263), (5, 405))
SIZE = (423, 317)
TIER = 2
FULL = (SIZE[0] * 4 + 3, SIZE[1] * 4 + 1)

pytestmark = pytest.mark.skipif(
    not (cv2.__version__.startswith("5.0.") and "AVX2" in cv2.getCPUFeaturesLine()),
    reason="the digests are those of OpenCV 5.0 on a processor with AVX2",
)


def noise(height, width, *channels, seed=1):
    """Return bytes that look random: the middle bits of squares."""
    count = np.uint64(height * width * int(np.prod(channels)))
    numbers = np.arange(1, count + np.uint64(1), dtype=np.uint64) * np.uint64(2 * seed + 1)
    for _ in range(3):
        numbers = numbers * np.uint64(0x9E3779B97F4A7C15)
        numbers ^= numbers >> np.uint64(29)
    return (numbers >> np.uint64(24)).astype(np.uint8).reshape(height, width, *channels)


def digest(values):
    found = hashlib.sha256(repr((values.shape, str(values.dtype))).encode())
    found.update(np.ascontiguousarray(values).tobytes())
    return found.hexdigest()[:16]


STEPS = {"linear": 1.13, "nearest": 1.13, "cubic": 0.83, "area": 2.37, "shrunk": 7.3}


def affine(step):
    turn = step * np.array([[np.cos(0.21), np.sin(0.21)], [-np.sin(0.21), np.cos(0.21)]])
    return np.column_stack([turn, np.array(SIZE) / 2 - turn @ [210.0, 120.0]])


def straight(name, channels, fill):
    onto = affine(STEPS[name])
    covered = coverage(onto * 4, FULL, ROWS, COLUMNS)
    dtype = np.float32 if np.isnan(fill) else np.uint8
    out = np.empty((len(ROWS), len(COLUMNS), *channels), dtype=dtype)
    image = noise(SIZE[1], SIZE[0], *channels)
    how = "area" if name == "shrunk" else name
    warp(image, Window(0, 0, *SIZE), SIZE, onto, covered, COLUMNS, BOUNDS, how, fill, out)
    return out


def bend(kind):
    if kind == "triangles":
        here = np.array(
            [[-160, -120], [1860, -120], [-160, 1400], [1860, 1400], [500, 400], [1000, 700]],
            dtype=float,
        )
        there = here.copy()
        there[4:] += [[41, -23], [-37, 52]]
        corners = [[0, 1, 4], [1, 5, 4], [1, 3, 5], [3, 2, 5], [2, 4, 5], [2, 0, 4]]
        return Triangles(here, there, np.array(corners))
    field = (noise(9, 11, 2, seed=3).astype(np.float32) - 127) / 8
    index = np.array([[0.0055, 0.0001, 0.7], [-0.0001, 0.0057, 0.4]])
    whole = np.linalg.inv(np.vstack([index, [0, 0, 1]]))[:2]
    return Lattice(field, index, whole)


def bent(kind, name, channels, fill):
    onto = affine(STEPS[name]) * 4
    grid = BentGrid(bend(kind), onto, FULL, BOUNDS)
    around = grid.around(ROWS, COLUMNS)
    dtype = np.float32 if np.isnan(fill) else np.uint8
    out = np.empty((len(ROWS), len(COLUMNS), *channels), dtype=dtype)
    tier = np.array([[0.25, 0, 0], [0, 0.25, 0]])
    how = "area" if name == "shrunk" else name
    image = noise(SIZE[1], SIZE[0], *channels)
    window = Window(0, 0, *SIZE)
    bend_warp(image, window, SIZE, grid, tier, around, COLUMNS, how, fill, out)
    return out


@functools.cache
def phantom():
    return phantom_dataset(
        dataset_id=3001, plane="coronal", tilt=3, sections=14, resolution=16,
        image_size=(708, 504), tier_count=2, seed=4,
    )  # fmt: skip


@functools.cache
def body(image_id, width, height, grey):
    channels = () if grey else (3,)
    pixels = noise(height, width, *channels, seed=image_id % 1000)
    if grey:
        return bytes(simplejpeg.encode_jpeg(pixels[..., None], 90, "GRAY", "Gray"))
    return cv2.imencode(".png", pixels)[1].tobytes()


class NoiseSource:
    """Noise for every image of the phantom."""

    name = "noise"

    def dataset(self, dataset_id):
        return SectionDataset.from_rows(phantom().row)

    def image(self, read):
        assert read.window is None
        return body(read.image_id, *read.size, read.view == "expression_mask")

    def discard(self, read):
        raise AssertionError(f"{read} is sound")

    def url(self, read):
        return f"noise:{read.image_id}"

    def __dask_tokenize__(self):
        return type(self).__name__


def anchored():
    """Nine numbers of QuickNII for each section: planes of p that are not parallel."""
    found = {}
    for place, image_id in enumerate(phantom().image_ids):
        p, tilt = 478.0 - 33 * place, (-1) ** place * 3.0
        found[image_id] = [0.0, p, 320.0, 456.0, tilt, 0.0, 0.0, -tilt, -320.0]
    return found


def volume(**options):
    options = {"resolution": 100, "source": NoiseSource(), "chunks": None, **options}
    return atldld.open_volume(3001, **options).image.values


def sections(**options):
    options = {"resolution": 50, "source": NoiseSource(), "chunks": None, **options}
    return atldld.open_dataarray(3001, **options)[3:6].values


FROZEN = {
    "straight linear colour white": "94c932a519e783dc",
    "straight linear grey white": "cc7ff86f79468f08",
    "straight nearest colour white": "d02b93ce5f60f16c",
    "straight nearest grey white": "8d409b288131bce2",
    "straight cubic colour white": "fe7d33993f76c79e",
    "straight cubic grey white": "96fd1029ee87e4b8",
    "straight area colour white": "c9de1522f00ec3a7",
    "straight area grey white": "cc07d2eac33bb0f6",
    "straight shrunk colour white": "bd65d927b7a16ea6",
    "straight shrunk grey white": "a3814e48db9f7460",
    "triangles linear colour white": "36193a133976a6ae",
    "triangles linear grey white": "721b27379662f71e",
    "triangles nearest colour white": "43801c032aa93ac8",
    "triangles nearest grey white": "36dea75721b31807",
    "triangles cubic colour white": "06a6da8ff51013a2",
    "triangles cubic grey white": "e85617380a10a2b0",
    "triangles area colour white": "7b311dee87f61c73",
    "triangles area grey white": "526a3ad655b65102",
    "triangles shrunk colour white": "9547409240ac2d5e",
    "triangles shrunk grey white": "942a1dbe4259d24b",
    "lattice linear colour white": "e3bf88897c2e9228",
    "lattice linear grey white": "237e2712cb8565cc",
    "lattice nearest colour white": "cb7d2c88424ef3c3",
    "lattice nearest grey white": "9451a5387ba4d960",
    "lattice cubic colour white": "1c85030f29d16f2a",
    "lattice cubic grey white": "c13cfe941782a5db",
    "lattice area colour white": "f42c71aa8542f397",
    "lattice area grey white": "3b676a2b50c379ef",
    "lattice shrunk colour white": "b63a91888bb32bc5",
    "lattice shrunk grey white": "fe9a55d30b3abb19",
    "straight linear colour nan": "72e946f804808c96",
    "straight area grey nan": "8fcdfb87ddf2776e",
    "lattice linear colour nan": "22f53c4686b6bb9a",
    "volume interpolation=nearest between=nearest": "97e3da990812ade4",
    "volume interpolation=nearest between=linear": "857b2d0aab747f70",
    "volume interpolation=linear between=nearest": "c389ec4240261479",
    "volume interpolation=linear between=linear": "174b01c7ed72c9a1",
    "volume interpolation=cubic between=nearest": "84f8d6209cb2ab12",
    "volume interpolation=cubic between=linear": "c819cd58b1a52d11",
    "volume interpolation=area between=nearest": "58aca2f79feefadf",
    "volume interpolation=area between=linear": "0030fc045ad676e9",
    "volume masked=yes between=nearest": "2479766321260350",
    "volume masked=yes between=linear": "0ad1ba5ec66c206e",
    "volume view=expression_mask between=nearest": "e7930151db5464e3",
    "volume view=expression_mask between=linear": "c77006cf15d5ddbe",
    "volume registration=anchored between=nearest": "ab0b0606c114734d",
    "volume registration=anchored between=linear": "c472556153e54c4e",
    "volume resolution=50 tier=coarse": "2483d4c526931b4a",
    "volume mirror=yes between=linear": "ea6b51242aaf9941",
    "sections": "11e7227f2b2a551c",
    "sections masked=yes mapping=parallel": "dd98efa32bad8d70",
    "sections view=expression_mask": "dd3de7d18590e722",
}
"""Computed once, with a slower way of making the same; never to be computed anew."""


def made(name):
    kind, *rest = name.split()
    if kind in ("straight", "triangles", "lattice"):
        how, pixels, fill = rest
        channels = (3,) if pixels == "colour" else ()
        fill = {"white": 255.0, "nan": np.nan}[fill]
        if kind == "straight":
            return straight(how, channels, fill)
        return bent(kind, how, channels, fill)
    options = dict(part.split("=") for part in rest)
    options = {key: VALUES.get(value, value) for key, value in options.items()}
    return {"volume": volume, "sections": sections}[kind](**options)


VALUES = {"yes": True, "anchored": anchored(), "50": 50, "100": 100, "fine": 0, "coarse": 1}
KINDS = [
    *(
        f"{kind} {how} {pixels} white"
        for kind in ("straight", "triangles", "lattice")
        for how in STEPS
        for pixels in ("colour", "grey")
    ),
    "straight linear colour nan",
    "straight area grey nan",
    "lattice linear colour nan",
    *(
        f"volume interpolation={how} between={between}"
        for how in ("nearest", "linear", "cubic", "area")
        for between in ("nearest", "linear")
    ),
    *(f"volume masked=yes between={between}" for between in ("nearest", "linear")),
    *(f"volume view=expression_mask between={between}" for between in ("nearest", "linear")),
    *(f"volume registration=anchored between={between}" for between in ("nearest", "linear")),
    "volume resolution=50 tier=coarse",
    "volume mirror=yes between=linear",
    "sections",
    "sections masked=yes mapping=parallel",
    "sections view=expression_mask",
]


@pytest.mark.parametrize("name", KINDS)
def test_values_are_what_they_were(name):
    assert digest(made(name)) == FROZEN[name]
