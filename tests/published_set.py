"""A published registration of phantom animals, written as its authors' tools write it.

One file of QuickNII an animal, and for every section an affine and a displacement field of ANTs.
These were made on a canvas: the picture in pixels of 25 microns, with some ground around it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import nibabel
import numpy as np
import SimpleITK

from atldld.testing import PhantomBrain

AFFINE = np.array([[1.01, 0.02, -3.0], [-0.015, 0.98, 4.5]])
"""Row and column of the canvas to row and column."""

TARGET = "ABA_Mouse_CCFv3_2017_25um.cutlas"


def of_animal(name):
    """Return a function that gives the row of a phantom the name of its animal."""

    def named(row):
        row["specimen"] = {**(row.get("specimen") or {}), "name": name}

    return named


def small(image, microns):
    """Return the sizes of the pictures of 10 and of 25 micron pixels: width, height.

    `microns` are those of a full-resolution pixel.
    """
    tens = [round(image[side] * microns / 10) for side in ("width", "height")]
    return tens, [round(each * 10 / 25) for each in tens]


def canvas(image, microns):
    """Return rows and columns of the canvas: the picture and some ground, odd and even."""
    width, height = small(image, microns)[1]
    return height + 7, width + 12


def waves(phantom, image, microns):
    """Return the displacements at the pixels of the canvas, rows first: slow waves."""
    rows, columns = (np.arange(length) for length in canvas(image, microns))
    down = 6 * np.sin(rows / 40)[:, None] * np.cos(columns / 55)
    along = 4 * np.cos(rows / 60 + 1)[:, None] + 3 * np.sin(columns / 35)
    return np.stack([down, along], axis=-1)


def name_of(image):
    """Return how the files of a section are called, without what follows."""
    return f"{image['id']}_s{image['section_number']:04}"


def corners(phantom, image, further_back):
    """Return p, i, r of the top left corner of a picture, its upper edge and its left edge."""
    ends = [(-0.5, -0.5), (image["width"] - 0.5, -0.5), (-0.5, image["height"] - 0.5)]
    places = np.array([np.ravel(phantom.pir(image["id"], x, y)) for x, y in ends])
    places[:, 0] += further_back
    return np.stack([places[0], places[1] - places[0], places[2] - places[0]])


def anchoring(places):
    """Return the nine numbers of a picture by its `corners`."""
    voxels = places[:, [2, 0, 1]] * [1, -1, -1] / 25
    voxels[0] += [0, 528, 320]
    return voxels.ravel().tolist()


def write(folder, phantoms, animal, microns, *, field=waves, affine=AFFINE, further_back=0.0):
    """Write a folder as it is published, all experiments of the animal in one file.

    Parameters
    ----------
    folder
        Where it goes.
    phantoms
        Coronal datasets of one animal.
    animal
        Its name.
    microns
        Of a full-resolution pixel.
    field
        Gives displacements by phantom, image and these microns.
    affine
        Row and column of the canvas to row and column.
    further_back
        Microns along p from the phantom's place to that in CCFv3.
    """
    slices = []
    for phantom in phantoms:
        for image in map(phantom.image, phantom.image_ids):
            name = name_of(image)
            width, height = small(image, microns)[0]
            slices.append(
                {
                    "filename": f"{phantom.id}/10um/{name}.jpg",
                    "anchoring": anchoring(corners(phantom, image, further_back)),
                    "width": width,
                    "height": height,
                    "nr": image["section_number"],
                    "markers": [],
                }
            )
            place = folder / "affine_registration_files" / animal / str(phantom.id)
            place.mkdir(parents=True, exist_ok=True)
            _write_affine(place / f"{name}_SyN_affineTransfo.mat", affine)
            place = folder / "nonlinear_registration_files" / animal / str(phantom.id)
            place.mkdir(parents=True, exist_ok=True)
            values = field(phantom, image, microns).astype(np.float32)[:, :, None, None, :]
            made = nibabel.Nifti1Image(values, np.diag([-1.0, -1.0, 1.0, 1.0]))
            made.header.set_intent("vector")
            nibabel.save(made, place / f"{name}_SyN_nonLinearDF.nii.gz")
    jsons = folder / "QUINT_registration_jsons"
    jsons.mkdir(exist_ok=True)
    content = {"name": "", "target": TARGET, "slices": slices}
    (jsons / f"{animal}.json").write_text(json.dumps(content))
    return folder


def _write_affine(path: Path, affine):
    transform = SimpleITK.AffineTransform(2)
    transform.SetMatrix(affine[:, :2].ravel().tolist())
    # About a centre, as ANTs writes it.
    centre = np.array([100.0, 150.0])
    transform.SetCenter(centre.tolist())
    shift = affine[:, 2] - centre + affine[:, :2] @ centre
    transform.SetTranslation(shift.tolist())
    SimpleITK.WriteTransform(transform, str(path))


def bent_pixels(phantom, image, i, r, microns, *, field=waves):
    """Return the full-resolution pixels that a section shows at i and r, as the files say it.

    Returns
    -------
    x, y
        As their authors' program finds them, but exactly, and with pixels counted by their middles.
    known
        Whether the place lies on the canvas.
    """
    x, y = straight_pixels(phantom, image, i, r)
    # The anchoring spans the canvas from edge to edge.
    rows, columns = canvas(image, microns)
    column = (x + 0.5) / image["width"] * columns - 0.5
    row = (y + 0.5) / image["height"] * rows - 0.5
    known = (row > -0.5) & (row < rows - 0.5) & (column > -0.5) & (column < columns - 0.5)
    moves = field(phantom, image, microns)
    a, b = np.clip(row, 0, rows - 1), np.clip(column, 0, columns - 1)
    top, left = np.minimum(a.astype(int), rows - 2), np.minimum(b.astype(int), columns - 2)
    v, u = (a - top)[..., None], (b - left)[..., None]
    moved = (moves[top, left] * (1 - u) + moves[top, left + 1] * u) * (1 - v) + (
        moves[top + 1, left] * (1 - u) + moves[top + 1, left + 1] * u
    ) * v
    there = np.stack([row + moved[..., 0], column + moved[..., 1]])
    row, column = np.einsum("ij,j...->i...", AFFINE[:, :2], there)
    width, height = small(image, microns)[1]
    row = row + AFFINE[0, 2] - (rows - height) // 2
    column = column + AFFINE[1, 2] - (columns - width) // 2
    x = (column + 0.5) * image["width"] / width - 0.5
    y = (row + 0.5) * image["height"] / height - 0.5
    return x, y, known


def straight_pixels(phantom, image, i, r):
    """Return the full-resolution pixels of a coronal section at i and r, not bent."""
    start, right, down = (
        np.ravel(phantom.pir(image["id"], *each))[1:] for each in ((0, 0), (1, 0), (0, 1))
    )
    steps = np.linalg.inv(np.stack([right - start, down - start], axis=1))
    return np.einsum("ij,j...->i...", steps, np.stack([i - start[0], r - start[1]]))


@dataclass(frozen=True)
class BentBrain(PhantomBrain):
    """A brain whose coronal sections were bent as they were laid on glass.

    Parameters
    ----------
    reach
        Microns by which tissue is moved at most along each axis of a section.
    """

    reach: float = 260.0

    def _evaluate(self, p, i, r, channels):
        down, along = self.moved(p, i, r)
        return super()._evaluate(p, np.subtract(i, down), np.subtract(r, along), channels)

    def moved(self, p, i, r):
        """Return by how much what is seen at a place was moved, in microns of i and r."""
        turn = 2 * np.pi
        phase = np.asarray(p) / 4000
        down = self.reach * np.sin(turn * (np.asarray(r) / 7600 + phase))
        along = self.reach * np.cos(turn * (np.asarray(i) / 6400 - phase))
        return down, along

    def field(self, phantom, image, microns):
        """Return the displacements that put the tissue of an image back, for `write`."""
        rows, columns = canvas(image, microns)
        width, height = small(image, microns)[1]
        row, column = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
        # The anchoring spans the canvas from edge to edge.
        x = (column + 0.5) / columns * image["width"] - 0.5
        y = (row + 0.5) / rows * image["height"] - 0.5
        p, i, r = phantom.pir(image["id"], x, y)
        seen_i, seen_r = i, r
        for _ in range(12):
            down, along = self.moved(p, seen_i, seen_r)
            seen_i, seen_r = i + down, r + along
        x, y = straight_pixels(phantom, image, seen_i, seen_r)
        there = np.stack(
            [
                (y + 0.5) / image["height"] * height - 0.5 + (rows - height) // 2,
                (x + 0.5) / image["width"] * width - 0.5 + (columns - width) // 2,
            ]
        )
        back = np.linalg.inv(AFFINE[:, :2])
        straight = np.einsum("ij,j...->i...", back, there - AFFINE[:, 2, None, None])
        return np.stack([straight[0] - row, straight[1] - column], axis=-1)
