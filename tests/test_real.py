"""Real metadata and a real image, held against what the service itself computed from them.

The figures that these tests pin are those of the recorded data, computed without this package.
"""

import json

import numpy as np
import pytest

import atldld
from atldld.testing import AllenServer, load_recorded

STEP = 25
CELL = 200 // STEP


@pytest.fixture(scope="module")
def sections(real):
    """Open the recorded dataset at the tier of the one recorded image."""
    with AllenServer([load_recorded(real / "69289763")]) as server:
        yield server, atldld.open_dataset(69289763, resolution=STEP, tier=2, source=server.url)


@pytest.fixture(scope="module")
def energy(real):
    """Return Allen's expression energy, (p, i, r) on nodes k * 200 microns, -1 without data."""
    raw = np.fromfile(real / "69289763" / "energy.raw", "<f4")
    return raw.reshape(58, 41, 67).transpose(2, 1, 0)


@pytest.fixture(scope="module")
def dark(sections):
    """Return dark (rows i, columns p) and covered points of the section at r = 3365 microns."""
    _, data = sections
    section = data.sel(r=3365, method="nearest", tolerance=50).compute()
    covered = section.covered.values
    return (section.image.values.mean(axis=-1) < 130) & covered, covered, section


def share_of_dark(dark, covered, shift_p=0, shift_i=0):
    """Return the share of dark points in the cell around each node, NaN where cells are cut."""
    shares = np.full((67, 41), np.nan)
    for p in range(1, 66):
        for i in range(1, 40):
            rows = slice(CELL * i - CELL // 2 + shift_i, CELL * i + CELL // 2 + shift_i)
            columns = slice(CELL * p - CELL // 2 + shift_p, CELL * p + CELL // 2 + shift_p)
            cell = covered[rows, columns]
            if cell.shape == (CELL, CELL) and cell.all():
                shares[p, i] = dark[rows, columns].mean()
    return shares


def correlation(shares, energy_slice):
    both = ~np.isnan(shares) & (energy_slice >= 0)
    return np.corrcoef(shares[both], energy_slice[both])[0, 1]


def test_the_whole_dataset_opens(sections):
    _, data = sections
    assert data.image.attrs["gene"] == "Prox1"
    assert data.image.attrs["plane"] == "sagittal"
    assert data.image.attrs["hemisphere"] == "left"
    assert data.section.values.tolist() == [n for n in range(6, 159, 8) if n not in (94, 110)]
    assert float(data.r.sel(section=70)) == pytest.approx(3365, abs=5)


def test_dark_cells_lie_where_the_energy_is_high(dark, energy):
    shares = share_of_dark(*dark[:2])
    in_place = correlation(shares, energy[:, :, 17])
    assert in_place > 0.7
    assert correlation(shares, energy[:, :, 16]) < in_place
    assert correlation(shares, energy[:, :, 18]) < 0.4
    assert abs(correlation(shares[::-1], energy[:, :, 17])) < 0.1
    assert abs(correlation(shares[:, ::-1], energy[:, :, 17])) < 0.3


def test_no_shift_beyond_100_microns_fits_better(dark, energy):
    best = max(
        (
            (correlation(share_of_dark(*dark[:2], p, i), energy[:, :, 17]), p, i)
            for p in range(-12, 13, 4)
            for i in range(-12, 13, 4)
        ),
        key=lambda found: found[0],
    )
    assert abs(best[1]) * STEP <= 100
    assert abs(best[2]) * STEP <= 100


def test_the_size_of_the_recorded_image_is_what_the_metadata_say(sections):
    server, data = sections
    server.reset_log()
    data.image.sel(section=70).compute()
    assert [(each.image_id, each.tier) for each in server.image_requests] in (
        [],
        [(69177654, 2)],
    )


def test_coverage_agrees_with_allens_own_record(real, energy):
    """Nearest section within 100 microns of the stack, pixel inside its image."""
    from atldld.model.dataset import SectionDataset

    row = json.loads((real / "69289763" / "query.json").read_text())["msg"][0]
    dataset = SectionDataset.from_rows(row)
    nodes = np.stack(np.meshgrid(*(np.arange(n) * 200.0 for n in energy.shape), indexing="ij"))
    assert _overlap(dataset, nodes, energy) == pytest.approx(0.9753, abs=0.002)
    for axis in range(3):
        for shift in (-100.0, 100.0):
            moved = nodes.copy()
            moved[axis] += shift
            assert _overlap(dataset, moved, energy) < 0.9753


def _overlap(dataset, nodes, energy):
    trv = dataset.matrix("trv")
    stack = np.tensordot(trv[:, :3], nodes, axes=1) + trv[:, 3][:, None, None, None]
    z = np.array([image.section_number for image in dataset.images]) * dataset.section_thickness
    nearest = np.abs(stack[2][..., None] - z).argmin(axis=-1)
    covered = np.zeros(energy.shape, dtype=bool)
    for place, image in enumerate(dataset.images):
        tvs = np.array(image.tvs)
        x, y = np.tensordot(tvs[:, :2], stack[:2], axes=1) + tvs[:, 2][:, None, None, None]
        inside = (x >= 0) & (x <= image.width - 1) & (y >= 0) & (y <= image.height - 1)
        covered |= (nearest == place) & inside & (np.abs(stack[2] - z[place]) <= 100)
    truth = energy >= 0
    return (covered & truth).sum() / (covered | truth).sum()
