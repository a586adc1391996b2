"""What the notebooks and the page of tasks find on this machine: a made-up brain, and its atlas.

Datasets under the ids that the pages name, served as the Allen API serves them, and an annotation
under the name of Allen's own file.
"""

from functools import cache
from pathlib import Path

import numpy as np

import published_set
from atldld.testing import AllenServer, phantom_dataset
from atldld.testing.archive import STRUCTURES as ONTOLOGY
from atldld.testing.archive import archive_file
from atldld.testing.archive import grid_labels as labels
from atldld.testing.phantom import MIDDLE_R
from measure_files import zipped_grid

PROX1 = 69289763
CORONAL = 1002
ANNOTATION = "P56_Mouse_gridAnnotation.zip"
STRUCTURES = {
    315: ("Isocortex", "Isocortex"),
    343: ("BS", "Brain stem"),
    477: ("STR", "Striatum"),
    507: ("MOB", "Main olfactory bulb"),
    512: ("CB", "Cerebellum"),
    549: ("TH", "Thalamus"),
    632: ("DG-sg", "Dentate gyrus, granule cell layer"),
    1080: ("HIP", "Hippocampal region"),
}
GENES = {"Calb1": (512, 477), "Cux2": (315,), "Gad1": (507, 477, 549), "Pvalb": (512, 315)}
"""Other genes, and where they are strong."""

_SHAPE = (67, 41, 58)
_STEP = 200.0


def write_annotation(folder):
    """Write the made-up atlas into a folder, as Allen publishes the real one."""
    (Path(folder) / ANNOTATION).write_bytes(archive_file(f"mouse_annotation/{ANNOTATION}"))


@cache
def energies():
    """Return volumes of expression energy by gene, shape (67, 41, 58) in space 9; -1 for none."""
    found = {"Prox1": (632, 549)} | GENES
    r = (np.arange(_SHAPE[2]) * _STEP)[None, None, :]
    inside = (labels() > 0) & (r > MIDDLE_R) & (r < 9400)
    out = {}
    for seed, (gene, strong) in enumerate(found.items()):
        random = np.random.default_rng(seed)
        level = random.gamma(2.0, 0.6, _SHAPE)
        for rank, structure in enumerate(strong):
            level += (labels() == structure) * random.gamma(12.0, 1.6 / (1 + 3 * rank), _SHAPE)
        out[gene] = np.where(inside, level, -1).astype(np.float32)
    return out


def _native(volume):
    """Return a volume as the grid service sends it for sagittal datasets: in space 10.

    The nodes are not mirrored onto each other by the flip (11350 - r); the nearest is taken.
    """
    nodes = np.rint((11350.0 - np.arange(_SHAPE[2]) * _STEP) / _STEP).astype(int)
    return np.where((nodes >= 0) & (nodes < _SHAPE[2]), volume[..., np.clip(nodes, 0, 57)], -1)


def parts_of(number):
    """Return a structure and all that is part of it: Allen's values per structure hold these."""
    found = [number]
    for structure, _, _, parent, _ in ONTOLOGY:
        if parent in found:
            found.append(structure)
    return found


def _published(dataset_id, gene):
    """Return rows of the values per structure that the service publishes."""
    values, where = energies()[gene], labels()
    rows = []
    for number, (acronym, name) in STRUCTURES.items():
        inside = values[np.isin(where, parts_of(number)) & (values >= 0)]
        rows.append(
            {
                "id": dataset_id * 100 + len(rows),
                "section_data_set_id": dataset_id,
                "structure_id": number,
                "expression_energy": float(inside.mean()),
                "structure": {"id": number, "acronym": acronym, "name": name},
            }
        )
    return rows


def datasets(resolution=8):
    """Return what the stand-in serves: Prox1 in two planes, other genes, and a younger brain.

    `resolution` is that of the sagittal dataset of Prox1, in microns per pixel.
    """
    prox1 = phantom_dataset(
        PROX1,
        "sagittal",
        1,
        18,
        gene="Prox1",
        first_number=6,
        resolution=resolution,
        tier_count=7,
        first_image_id=69177647,
    )
    prox1.row["structure_unionizes"] = _published(PROX1, "Prox1")
    coronal = phantom_dataset(CORONAL, "coronal", 2, 24, gene="Prox1", resolution=12, tier_count=6)
    young = phantom_dataset(1003, "sagittal", 1, 4, gene="Prox1", resolution=32, products=(3,))
    others = []
    for number, gene in enumerate(GENES, 1011):
        one = phantom_dataset(number, "sagittal", 1, 14, gene=gene, resolution=32, gaps=0)
        one.row["structure_unionizes"] = _published(number, gene)
        others.append(one)
    return [prox1, coronal, young, *others]


ACAN = {77869840: "07-0126", 72128777: "05-2984"}
"""Two coronal datasets of a gene, each of another animal, that a published registration places."""

REGISTRATION = "published-registration"
_ACAN_MICRONS = 16.0
_CCFV3_BEHIND = 300.0
"""Microns that the made-up CCFv3 lies further back than the made-up brain."""


def acan():
    """Return brains whose sections were bent as they were laid on glass."""
    return [
        phantom_dataset(
            number, "coronal", 2, 14, gene="Acan", resolution=_ACAN_MICRONS, tier_count=5,
            seed=seed, first_number=10 + 6 * seed, brain=published_set.BentBrain(reach=reach),
        ).altered(published_set.of_animal(animal))
        for seed, ((number, animal), reach) in enumerate(
            zip(ACAN.items(), (260.0, -220.0), strict=True)
        )
    ]  # fmt: skip


def write_registration(folder):
    """Write a published registration that puts them right into a folder."""
    whole = Path(folder) / REGISTRATION
    whole.mkdir()
    for phantom in acan():
        published_set.write(
            whole, [phantom], ACAN[phantom.id], _ACAN_MICRONS, field=phantom.brain.field,
            further_back=_CCFV3_BEHIND,
        )  # fmt: skip


def grids():
    """Return the zips of the grid service."""
    numbers = {"Prox1": PROX1} | dict(zip(GENES, range(1011, 1011 + len(GENES)), strict=True))
    return {
        number: zipped_grid({"energy": _native(energies()[gene])}, number, space=10)
        for gene, number in numbers.items()
    }


def stand_in(resolution=8, *, registered=False):
    """Return a server of all this, with what a published registration places where it is asked."""
    more = acan() if registered else []
    return AllenServer([*datasets(resolution), *more], grids=grids())
