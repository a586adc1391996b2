"""A published registration: a folder of anchorings, affines and displacement fields.

For each animal there is a file of QuickNII with the anchorings of all its sections, and for each
section an affine and a displacement field of ANTs [1]_::

    QUINT_registration_jsons/<animal>.json
    affine_registration_files/<animal>/<experiment>/<picture>_SyN_affineTransfo.mat
    nonlinear_registration_files/<animal>/<experiment>/<picture>_SyN_nonLinearDF.nii.gz

What they mean is what spatial_brain_maps computes from them [2]_. A picture has 25 micron pixels,
made from one of 10 micron pixels and rounded to whole ones; it lies in the middle of a canvas,
which has the size of the field and is what the anchoring spans. Row and column of the canvas, in
this order and counted from the middle of its first pixel, are the two axes of affine and field:
canvas pixel g shows the picture, on the canvas, at ``affine(g + field(g))``.

References
----------
.. [1] Carey, H. et al. (2026), EBRAINS data set 7f8ef0e2-121a-4892-8a5e-1c7a8b693503.
.. [2] spatial_brain_maps 0.1.2, ``utilities/alignment_functions.py``.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import posixpath
import re
import tempfile
import warnings
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import AtldldWarning, RegistrationError, library
from ..model.affine import Array
from ..model.bend import Lattice
from ..model.registration import Placement, Registration
from ..model.registration_files import parse_registration
from ..store.cache import Cache
from ..store.files import FileFaultError, Files, Location

CITATION = (
    "Carey, H. et al. (2026), section-wise registration of the Allen Mouse Brain Atlas to CCFv3, "
    "EBRAINS, https://search.kg.ebrains.eu/instances/7f8ef0e2-121a-4892-8a5e-1c7a8b693503"
)

MISNUMBERED = (633, 1878, 2193)
"""Experiments that its authors found numbered in the wrong direction, and left out."""

_CANVAS_MICRONS = 25.0
_PICTURE_MICRONS = 10.0

_LARGEST_JSON = 2**26
_LARGEST_FIELD = 2**26
_LARGEST_AFFINE = 2**16
_LONGEST_SIDE = 4096
"""Pixels of a canvas: a section of 11.4 mm has 456."""


@dataclass(frozen=True, slots=True)
class PublishedRegistration:
    """A folder of registrations, whose files are fetched one by one and kept.

    Parameters
    ----------
    location
        The folder, or its URL.
    """

    location: Location

    @classmethod
    def at(cls, where: str) -> PublishedRegistration:
        """Return the registration at a path or fsspec URL."""
        return cls(Location.of(where))

    @property
    def name(self) -> str:
        """What to call it in messages."""
        return self.location.name

    @property
    def _short_name(self) -> str:
        """What to call it in attributes: those of files tell nothing of this machine's folders."""
        path = self.location.path
        return self.location.name if path is None else path.name

    def of_animal(
        self, animal: str | None, dataset_id: int, *, mirror: bool = False
    ) -> Registration:
        """Return the registration of an animal's sections.

        Parameters
        ----------
        animal
            Its name: the specimen.
        dataset_id
            The dataset that it is wanted for.
        mirror
            Whether to turn left and right over.

        Raises
        ------
        RegistrationError
            If there is none of this animal, or its file cannot be read.
        """
        if not animal or not re.fullmatch(r"\w[\w.+-]{0,63}", animal, re.ASCII):
            raise RegistrationError(
                f"{self.name}: dataset {dataset_id} does not say which animal it is from, by which "
                "a published registration is found"
            )
        if dataset_id in MISNUMBERED:
            warnings.warn(
                f"{self.name}: the authors of the registration found dataset {dataset_id} numbered "
                "in the wrong direction and left it out; its sections may be exchanged",
                AtldldWarning,
                stacklevel=5,
            )
        name = f"QUINT_registration_jsons/{animal}.json"
        try:
            body = self.read(name, _LARGEST_JSON)
        except FileFaultError as fault:
            if not fault.missing:
                raise RegistrationError(f"{self.name}/{name}: {fault.reason}") from None
            raise RegistrationError(
                f"{self.name}: there is no registration of animal {animal}, which dataset "
                f"{dataset_id} is from ({name})"
            ) from None
        found = parse_registration(body, name=f"{animal}.json", mirror=mirror)
        return Registration(
            name=f"{self._short_name}, animal {animal}",
            checksum=found.checksum,
            space=found.space,
            reference_space=found.reference_space,
            placements=found.placements,
            citation=CITATION,
            fields=_AnimalFields(self, animal),
        )

    def state(self, names: Sequence[str]) -> tuple[tuple[int, int] | None, ...]:
        """Return what tells that local files were replaced: size and time of each.

        What comes from elsewhere is kept by its name, and so it is the same.
        """
        folder = self.location.path
        if folder is None:
            return ()
        found: list[tuple[int, int] | None] = []
        for name in names:
            try:
                told = (folder / name).stat()
            except OSError:
                found.append(None)
            else:
                found.append((told.st_size, told.st_mtime_ns))
        return tuple(found)

    def read(self, name: str, most: int) -> bytes:
        """Return a file: of a local folder as it is, of a store elsewhere fetched once and kept.

        Raises
        ------
        FileFaultError
            If it is not there, or cannot be read.
        """
        files = Files(self.location)
        if self.location.path is not None:
            return files.read(name, most)
        kept = f"registrations/{name.partition('/')[2].replace('/', '-')}"
        return Cache.here(self.location.text).obtain(
            kept,
            fetch=lambda: files.read(name, most),
            fits=lambda content: len(content) <= most,
            url=f"{self.name}/{name}",
        )


@dataclass(frozen=True, slots=True)
class _AnimalFields:
    """The affines and fields of an animal's sections."""

    published: PublishedRegistration
    animal: str

    def of(self, placement: Placement, dataset_id: int, size: tuple[int, int]) -> SectionField:
        """Return where the bend of a section comes from; nothing is read."""
        stem = posixpath.splitext(posixpath.basename(placement.label.replace("\\", "/")))[0]
        where = f"{self.animal}/{dataset_id}/{re.sub(r'[^A-Za-z0-9_.+-]', '_', stem)}_SyN_"
        return SectionField(self.published, where, size, placement.size)


@dataclass(frozen=True, slots=True)
class SectionField:
    """The affine and displacement field of a section, read when they are needed.

    Parameters
    ----------
    published
        Whose they are.
    where
        How the names of both files begin, below their folders.
    size
        Width and height of the section in full-resolution pixels.
    picture
        Width and height of the picture of 10 micron pixels that was registered, if known.
    """

    published: PublishedRegistration
    where: str
    size: tuple[int, int]
    picture: tuple[int, int] | None

    @property
    def files(self) -> tuple[str, str]:
        """Names of the affine and of the field."""
        return (
            f"affine_registration_files/{self.where}affineTransfo.mat",
            f"nonlinear_registration_files/{self.where}nonLinearDF.nii.gz",
        )

    @property
    def key(self) -> str:
        """What tells it from others, and from what was in the same files before."""
        state = self.published.state(self.files)
        text = f"{self.published.location.text} {self.where} {self.size} {self.picture} {state}"
        return hashlib.sha256(text.encode()).hexdigest()

    def load(self) -> Lattice | None:
        """Return the bend; None, with a warning, where a file of it is missing.

        Raises
        ------
        RegistrationError
            If a file is there and cannot be read, or is not what it should be.
        """
        return _loaded(self, self.published.state(self.files))

    def _lattice(self) -> Lattice | None:
        files = []
        for name, most in zip(self.files, (_LARGEST_AFFINE, _LARGEST_FIELD), strict=True):
            try:
                files.append(self.published.read(name, most))
            except FileFaultError as fault:
                if not fault.missing:
                    raise RegistrationError(
                        f"{self.published.name}/{name}: {fault.reason}"
                    ) from None
                warnings.warn(
                    f"{self.published.name} has no {name}: the section is opened as its anchoring "
                    "places it, not bent",
                    AtldldWarning,
                    stacklevel=4,
                )
                return None
        label = f"{self.published.name}/{self.where}"
        affine = read_affine(files[0], f"{label}affineTransfo.mat")
        field = read_field(files[1], f"{label}nonLinearDF.nii.gz")
        return lattice(affine, field, self.size, self.picture)


@lru_cache(maxsize=64)
def _loaded(field: SectionField, state: object) -> Lattice | None:
    return field._lattice()


def lattice(
    affine: Array, field: Array, size: tuple[int, int], picture: tuple[int, int] | None
) -> Lattice:
    """Return the bend of a section from what ANTs wrote about its picture.

    Parameters
    ----------
    affine
        Shape (2, 3): from (row, column, 1) of the canvas to row, column.
    field
        Shape (rows, columns, 2): rows and columns of the canvas to add.
    size
        Width and height of the section in full-resolution pixels.
    picture
        Width and height of the picture of 10 micron pixels; None where the canvas is the picture.
    """
    canvas = np.array(field.shape[1::-1], dtype=float)
    if picture is None:
        pixels = canvas
    else:
        pixels = np.round(np.array(picture) * (_PICTURE_MICRONS / _CANVAS_MICRONS))
    pads = np.floor((canvas - pixels) / 2)
    full = np.array(size, dtype=float)
    # From here on x, y: columns first.
    turned = affine[::-1][:, [1, 0, 2]].copy()
    turned[:, 2] -= pads
    per_pixel = full / np.maximum(pixels, 1)
    # Pixel k of the picture is centred at the share (k + 0.5) / pixels of the section's side.
    onto = turned * per_pixel[:, None]
    onto[:, 2] += per_pixel / 2 - 0.5
    index = np.zeros((2, 3))
    index[[0, 1], [0, 1]] = canvas / full
    index[:, 2] = canvas / full / 2 - 0.5
    moved = field[..., ::-1] @ onto[:, :2].T
    return Lattice(np.ascontiguousarray(moved, dtype=np.float32), index, onto)


def read_affine(body: bytes, name: str) -> Array:
    """Return the affine that a transform file of ITK holds, shape (2, 3).

    Raises
    ------
    RegistrationError
        If it is none in two dimensions.
    """
    itk = library("SimpleITK", "an affine of ANTs")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "affine.mat")
        path.write_bytes(body)
        try:
            transform: Any = itk.ReadTransform(str(path))
        except RuntimeError:
            raise RegistrationError(f"{name} is no transform of ITK") from None
    if transform.GetDimension() != 2:
        raise RegistrationError(f"{name} is a transform of {transform.GetDimension()} dimensions")
    start, along, down = (
        np.array(transform.TransformPoint(point)) for point in ((0.0, 0.0), (1.0, 0.0), (0.0, 1.0))
    )
    affine = np.stack([along - start, down - start, start], axis=1)
    area = abs(float(np.linalg.det(affine[:, :2])))
    if not np.isfinite(affine).all() or not 0.01 < area < 100 or not transform.IsLinear():
        raise RegistrationError(
            f"{name} is no affine that could place a section: {affine.tolist()}"
        )
    return affine


def read_field(body: bytes, name: str) -> Array:
    """Return the displacement field that a NIfTI file holds, shape (rows, columns, 2).

    Raises
    ------
    RegistrationError
        If it is none in two dimensions.
    """
    nibabel = library("nibabel", "a displacement field")
    try:
        plain = _unpacked(body) if body[:2] == b"\x1f\x8b" else body
        image: Any = nibabel.Nifti1Image.from_bytes(plain)
        shape = [side for side in image.shape if side != 1]
        if len(shape) != 3 or shape[2] != 2 or max(shape) > _LONGEST_SIDE:
            raise RegistrationError(
                f"{name} has shape {image.shape}; it must be rows, columns and two components"
            )
        values = np.asarray(image.dataobj, dtype=np.float64).reshape(shape)
    except RegistrationError:
        raise
    except (nibabel.filebasedimages.ImageFileError, nibabel.spatialimages.HeaderDataError) as error:
        raise RegistrationError(f"{name} is no NIfTI file: {error}") from None
    except (OSError, EOFError, ValueError, TypeError, OverflowError, zlib.error) as error:
        raise RegistrationError(f"{name} is damaged: {error}") from None
    if not np.isfinite(values).all():
        raise RegistrationError(f"{name} holds displacements that are no numbers")
    if np.abs(values).max(initial=0) > max(shape):
        raise RegistrationError(f"{name} moves pixels further than the picture is wide")
    return values


def _unpacked(body: bytes) -> bytes:
    """Return what a gzip file holds, up to the largest field there can be."""
    most = _LONGEST_SIDE**2 * 16 + 4096
    with gzip.open(io.BytesIO(body)) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it unpacks to more than {most} bytes")
    return content
