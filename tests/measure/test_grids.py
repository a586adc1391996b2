"""Allen's 200 micron volumes: files, zips, the grid service, and the flip of r."""

import io
import struct
import tracemalloc
import zipfile
import zlib

import numpy as np
import pytest
import xarray as xr

import atldld
from atldld import MixError
from atldld.errors import APIError, AtldldWarning, DatasetNotFoundError
from atldld.measure.grid_files import flip_nodes
from atldld.measure.voxel_files import parse_metaimage, read_metaimage
from atldld.testing import AllenServer, Fault
from atldld.testing.archive import grid_zip, nrrd_grid
from measure_files import HEADER, zipped_grid
from usual import usual

SHAPE = (67, 41, 58)


def volume(seed=0):
    """Return a volume with holes, smooth enough for linear interpolation to be judged."""
    random = np.random.default_rng(seed)
    values = random.uniform(0, 30, SHAPE).astype(np.float32)
    values[random.random(SHAPE) < 0.3] = -1
    return values


def test_the_recorded_energy(real):
    grid = atldld.open_grid(real / "69289763" / "energy.mhd", reference_space=10)
    energy = grid.energy
    assert energy.dims == ("p", "i", "r")
    assert energy.dtype == np.float32
    assert energy.shape == SHAPE
    for axis in "pir":
        assert energy[axis].attrs["units"] == "µm"
        assert (energy[axis].values == np.arange(energy.sizes[axis]) * 200.0).all()
    raw = np.fromfile(real / "69289763" / "energy.raw", "<f4").reshape(58, 41, 67)
    assert int(energy.isnull().sum()) == (raw == -1).sum() > 0
    assert float(energy.sel(p=6600, i=4000, r=3400)) == raw[17, 20, 33]
    assert energy.attrs["reference_space"] == 10


def test_a_file_does_not_say_its_space(real):
    with pytest.raises(ValueError, match="reference_space=10 for a sagittal"):
        atldld.open_grid(real / "69289763" / "energy.mhd")


def test_a_zip_says_its_space(tmp_path):
    path = tmp_path / "7.zip"
    path.write_bytes(zipped_grid({"energy": volume(), "density": volume(1)}))
    grid = atldld.open_grid(path)
    assert list(grid) == ["energy", "density"]
    assert grid.attrs["reference_space"] == 10
    assert grid.attrs["dataset_id"] == 7
    with pytest.raises(ValueError, match="native_space is 9"):
        atldld.open_grid(path, native_space=9)


def test_the_other_space_is_interpolated_and_says_so(tmp_path):
    path = tmp_path / "7.zip"
    values = volume()
    path.write_bytes(zipped_grid({"energy": values}))
    with pytest.warns(AtldldWarning, match="does not lead from node to node"):
        grid = atldld.open_grid(path, reference_space=9)
    assert grid.attrs["reference_space"] == 9
    assert "linearly" in grid.energy.attrs["resampled"]
    # Written out for one line: r = 1000 of space 9 is 10350 of space 10, between nodes 51 and 52.
    for p, i in np.ndindex(67, 41):
        far, near = values[p, i, 51], values[p, i, 52]
        got = grid.energy.values[p, i, 5]
        if near < 0:
            assert np.isnan(got)
        elif far < 0:
            assert got == near
        else:
            assert got == pytest.approx(0.25 * far + 0.75 * near, rel=1e-6)


def test_where_nodes_land_on_nodes_the_flip_is_exact():
    values = np.random.default_rng(1).random((2, 3, 228)).astype(np.float32)
    flipped = flip_nodes(values, 50.0)
    assert (flipped[..., :228] == values[..., 227 - np.arange(228)]).all()


def test_a_bare_file_in_the_other_space(tmp_path):
    (tmp_path / "energy.mhd").write_text(HEADER.format(kind="MET_FLOAT", name="energy"))
    (tmp_path / "energy.raw").write_bytes(volume().tobytes(order="F"))
    with pytest.warns(AtldldWarning, match="interpolated"):
        grid = atldld.open_grid(tmp_path / "energy.mhd", reference_space=9, native_space=10)
    assert (grid.attrs["reference_space"], grid.attrs["native_reference_space"]) == (9, 10)


def test_the_service_is_asked_once_beside_the_api():
    zips = {7: zipped_grid({"energy": volume()}), 8: zipped_grid({"energy": volume(2)}, 8, space=9)}
    with AllenServer(grids=zips) as server:
        for _ in range(2):
            grid = atldld.open_grid(7, volumes=["energy"], source=server.url)
        (request,) = server.requests
        assert request.path == "/grid_data/download/7?include=energy"
        assert np.array_equal(grid.energy.values == grid.energy.values, volume() >= 0)
        with pytest.warns(AtldldWarning, match="datasets 7 are interpolated"):
            both = atldld.open_grids([8, 7], volumes=["energy"], source=server.url)
    assert both.energy.dims == ("dataset", "p", "i", "r")
    assert both.dataset.values.tolist() == [8, 7]
    assert both.resampled.values.tolist() == [False, True]
    assert both.attrs["reference_space"] == 9
    expected = np.where(volume(2) < 0, np.nan, volume(2))
    assert np.array_equal(both.energy.sel(dataset=8).values, expected, equal_nan=True)


def test_what_the_service_does_not_have():
    with (
        AllenServer(grids={7: zipped_grid({"energy": volume()}, dataset_id=9)}) as server,
        atldld.set_options(retries=0),
    ):
        with pytest.raises(DatasetNotFoundError, match=r"dataset 5 .*projection_density"):
            atldld.open_grid(5, source=server.url)
        with pytest.raises(APIError, match="are of 9"):
            atldld.open_grid(7, source=server.url)


def test_a_damaged_zip_is_fetched_again():
    good = zipped_grid({"energy": volume()})
    bad = bytearray(good)
    bad[len(bad) // 2] ^= 255
    fault = Fault("body", request="any", body=bytes(bad), times=1)
    with AllenServer(grids={7: good}, faults=[fault]) as server:
        grid = atldld.open_grid(7, source=server.url)
        assert len(server.requests) == 2
    assert int(grid.energy.isnull().sum()) == (volume() < 0).sum()


def test_the_record_says_the_space_where_the_zip_does_not():
    from atldld.testing import phantom_dataset

    phantom = phantom_dataset(7, plane="sagittal", sections=3)
    with AllenServer(
        [phantom], grids={7: zipped_grid({"energy": volume()}, described=False)}
    ) as server:
        assert atldld.open_grid(7, source=server.url).attrs["reference_space"] == 10


@pytest.mark.parametrize(
    ("header", "complaint"),
    [
        (HEADER.replace("200 200 200", "100 100 100"), "CCFv3"),
        (HEADER.replace("67 41 58", "132 80 114"), "CCFv3|bytes"),
        (HEADER.replace("{kind}", "MET_LONG"), "MET_LONG"),
        ("<html>no</html>\n", "not a MetaImage"),
        ("NDims = 3\n", "ElementDataFile"),
        (HEADER.replace("{name}.raw", "../{name}.raw"), "beside"),
    ],
)
def test_what_is_not_such_a_volume_is_refused_by_name(tmp_path, header, complaint):
    text = header.format(kind="MET_FLOAT", name="energy")
    (tmp_path / "energy.mhd").write_text(text)
    (tmp_path / "energy.raw").write_bytes(volume().tobytes(order="F"))
    with pytest.raises(ValueError, match=complaint):
        atldld.open_grid(tmp_path / "energy.mhd", reference_space=9)


class TestOtherSpaces:
    def test_a_young_mouse_has_a_grid_of_its_own(self):
        values = np.random.default_rng(0).random((77, 43, 50)).astype(np.float32)
        values[:9] = -1
        with AllenServer(grids={7: grid_zip({"energy": values}, 160, 7, 6)}) as server:
            grid = atldld.open_grid(7, volumes=["energy"], source=server.url)
            both = atldld.open_grids([7], volumes=["energy"], source=server.url)
        assert np.array_equal(grid.energy, np.where(values < 0, np.nan, values), equal_nan=True)
        assert grid.i.values.tolist() == [160.0 * k for k in range(43)]
        assert grid.attrs["reference_space"] == 6
        xr.testing.assert_equal(
            both.energy[0].drop_vars(["dataset", "gene", "plane", "specimen", "resampled"]),
            grid.energy,
        )
        with pytest.raises(MixError):
            _ = grid.energy + adult().energy

    @pytest.mark.parametrize("space", ["native", 9])
    def test_ages_do_not_mix_in_one_array(self, space):
        small = np.ones((70, 75, 40), np.float32)
        zips = {7: grid_zip({"energy": small}, 80, 7, 1)}
        zips[8] = zipped_grid({"energy": volume()}, 8, space=9)
        with (
            AllenServer(grids=zips) as server,
            pytest.raises(ValueError, match="spaces that do not mix: 7 in reference space 1, 8 in"),
        ):
            atldld.open_grids([7, 8], reference_space=space, source=server.url)

    def test_connectivity_lies_in_ccfv3(self, tmp_path):
        values = np.random.default_rng(0).random((132, 80, 114)).astype(np.float32)
        body = nrrd_grid(values, 100)
        key = (7, "projection_density", 100)
        with AllenServer(grid_files={key: body}) as server:
            grid = atldld.open_grid(7, volumes=["projection_density"], source=server.url)
            grids = atldld.open_grids([7, 8], volumes=["projection_density"], source=server.url)
            assert grids.found.values.tolist() == [True, False]
            assert np.isnan(grids.projection_density[1]).all()
            with pytest.raises(DatasetNotFoundError, match="projection_energy of dataset 7"):
                atldld.open_grid(7, volumes=["projection_energy"], source=server.url)
            with pytest.raises(ValueError, match="lie in CCFv3"):
                atldld.open_grids(
                    [7], volumes=["projection_density"], reference_space=9, source=server.url
                )
        assert np.array_equal(grid.projection_density, values)
        assert grid.p.values[:2].tolist() == [50.0, 150.0]
        assert grid.attrs["reference_space"] == "CCFv3"
        assert "connectome" in grid.attrs["citation"]
        path = tmp_path / "projection_density_100.nrrd"
        path.write_bytes(body)
        xr.testing.assert_equal(atldld.open_grid(path), grid)
        with pytest.raises(MixError):
            _ = grid.projection_density + adult().energy

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (nrrd_grid(np.ones((13, 8, 11), np.float32), 100), "spans CCFv3"),
            (nrrd_grid(np.ones((132, 80, 114), np.float32), 100)[:-9], "samples"),
            (nrrd_grid(np.ones((13, 8, 11), np.float32), 100).replace(b"13 8 11", b"13 8 11000000"),
             "instead of 4576000000"),
            (b"NRRD0004\nnothing", "not an NRRD volume"),
            (b"NRRD0004\ntype: float\ndimension: 3\nsizes: 2 2 2\nencoding: hex\n\n00", "encoding"),
        ],
        ids=["size", "cut", "giant", "stub", "hex"],
    )  # fmt: skip
    def test_what_is_not_such_a_volume(self, tmp_path, body, words):
        path = tmp_path / "projection_density_100.nrrd"
        path.write_bytes(body)
        with pytest.raises(ValueError, match=words):
            atldld.open_grid(path)

    def test_a_bomb_in_an_nrrd_is_not_unpacked(self, tmp_path):
        import gzip

        body = nrrd_grid(np.ones((132, 80, 114), np.float32), 100)
        head = body[: body.index(b"\n\n") + 2]
        path = tmp_path / "projection_density_100.nrrd"
        path.write_bytes(head + gzip.compress(bytes(2**28)))
        tracemalloc.start()
        try:
            with pytest.raises(ValueError, match="instead of"):
                atldld.open_grid(path)
            assert tracemalloc.get_traced_memory()[1] < 2**25
        finally:
            tracemalloc.stop()


def adult():
    with AllenServer(grids={7: zipped_grid({"energy": volume()}, space=9)}) as server:
        return atldld.open_grid(7, volumes=["energy"], source=server.url)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"reference_space": 4}, ValueError),
        ({"reference_space": True}, ValueError),
        ({"volumes": ["colour"]}, ValueError),
    ],
)
def test_bad_arguments(options, error):
    with pytest.raises(error):
        atldld.open_grid(7, source="http://127.0.0.1:9", **options)
    with pytest.raises(TypeError, match="neither"):
        atldld.open_grid(3.5)
    with pytest.raises(ValueError, match="each once"):
        atldld.open_grids([7, 7])


def test_metaimage_orders_types_and_compression(tmp_path):
    values = np.arange(24, dtype=">i2").reshape(2, 3, 4)
    header = (
        b"NDims = 3\nDimSize = 2 3 4\nElementType = MET_SHORT\nBinaryDataByteOrderMSB = True\n"
        b"CompressedData = True\nElementSpacing = 1 2 3\nOffset = 4 5 6\nElementDataFile = LOCAL\n"
    )
    body = header + zlib.compress(values.tobytes(order="F"))
    image = parse_metaimage(body, "x.mha", bytes)
    assert np.array_equal(image.values, values)
    assert image.values.dtype == np.dtype("i2")
    assert (image.spacing, image.offset) == ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))
    (tmp_path / "x.mha").write_bytes(body[:-9])
    with pytest.raises(ValueError, match="bytes"):
        read_metaimage(tmp_path / "x.mha")


def lying_zip(method, size, said):
    """Return a zip whose one volume says that it is small and unpacks to `size` bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("energy.mhd", HEADER.format(kind="MET_FLOAT", name="energy"))
        with archive.open("energy.raw", "w") as member:
            for _ in range(size // 2**20):
                member.write(bytes(2**20))
    content = bytearray(buffer.getvalue())
    if said is not None:
        place = content.rindex(b"PK\x01\x02")
        content[place + 24 : place + 28] = struct.pack("<I", said)
    return bytes(content)


@pytest.mark.parametrize("method", usual(["ZIP_DEFLATED", "ZIP_BZIP2", "ZIP_LZMA"]))
@pytest.mark.parametrize("said", [None, 67 * 41 * 58 * 4])
def test_a_small_zip_does_not_unpack_to_gigabytes(tmp_path, method, said):
    path = tmp_path / "7.zip"
    path.write_bytes(lying_zip(getattr(zipfile, method), 2**28, said))
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match=r"7\.zip is damaged, or not a zip"):
            atldld.open_grid(path, reference_space=9)
        assert tracemalloc.get_traced_memory()[1] < 2**24
    finally:
        tracemalloc.stop()


def test_a_header_cannot_ask_for_gigabytes(tmp_path):
    header = HEADER.replace("67 41 58", "4000 4000 4000") + "\n"
    header = header.replace("Offset", "CompressedData = True\nOffset")
    path = tmp_path / "7.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("energy.mhd", header.format(kind="MET_FLOAT", name="energy"))
        archive.writestr("energy.raw", zlib.compress(bytes(2**20)))
    with pytest.raises(ValueError, match="not supported"):
        atldld.open_grid(path, reference_space=9)


def encrypted(good):
    content = bytearray(good)
    for mark, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = content.find(mark)
        while place >= 0:
            content[place + offset] |= 1
            place = content.find(mark, place + 1)
    return bytes(content)


def spoilt_lzma():
    content = bytearray(lying_zip(zipfile.ZIP_LZMA, 2**20, None))
    content[content.index(b"energy.raw") + 20] ^= 255
    return bytes(content)


def unknown_method(good):
    content = bytearray(good)
    for mark, offset in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
        place = content.find(mark)
        content[place + offset : place + offset + 2] = struct.pack("<H", 97)
    return bytes(content)


@pytest.mark.parametrize(
    "body",
    [
        encrypted(zipped_grid({"energy": volume()})),
        unknown_method(zipped_grid({"energy": volume()})),
        spoilt_lzma(),
        zipped_grid({"energy": volume()})[:-200],
        b"PK\x03\x04",
    ],
    ids=["encrypted", "method", "lzma", "cut", "stub"],
)
def test_a_zip_that_cannot_be_read_is_our_error(tmp_path, body):
    path = tmp_path / "7.zip"
    path.write_bytes(body)
    with pytest.raises(ValueError, match=r"7\.zip is damaged, or not a zip"):
        atldld.open_grid(path, reference_space=9)
    with (
        AllenServer(grids={7: body}) as server,
        atldld.set_options(retries=0),
        pytest.raises(APIError, match="the body is of no use"),
    ):
        atldld.open_grid(7, source=server.url)
