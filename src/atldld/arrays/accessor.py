"""The accessor ``.atlas``: thin, hands on to the rooms that know."""

from __future__ import annotations

import inspect
import os
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any, Literal, overload

import numpy as np
import pandas as pd
import xarray as xr

from ..model.space import AXES
from .internals import is_lazy
from .lookup import annotation_from, space_of, voxels_of
from .ontology import structure_ids, tree_of
from .pixel_table import pixel_table, table_parts
from .planning import failures_table, plan_table, planned_reads, prefetch
from .positions import geometry_table, pir, places_at, with_pir

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Lines = list[tuple[str, str]]


@xr.register_dataarray_accessor("atlas")
@xr.register_dataset_accessor("atlas")
class AtlasAccessor:
    """What arrays of this package can do beyond xarray.

    Parameters
    ----------
    obj
        A DataArray or Dataset from `atldld.open_dataarray` or `atldld.open_dataset`.
    """

    def __init__(self, obj: Any) -> None:
        self._obj = obj

    def __repr__(self) -> str:
        return _in_text(self._obj)

    def _repr_html_(self) -> str:
        return _in_html(self._obj)

    def at(self, **place: Any) -> Any:
        """Select by reference coordinate, nearest for values and cut for slices.

        Parameters
        ----------
        **place
            ``p``, ``i`` and ``r``: a number of microns, or a slice of them (ends included). A
            number along the slicing axis takes the nearest section, if it lies within half
            the largest gap around it (of a lone section, the gap to the sections that it was
            opened with); a number along another axis takes the nearest grid point within half a
            step. A slice goes by the one coordinate of sections: for all that pass through a
            box, open it with ``region=``.

        Returns
        -------
        DataArray or Dataset
            The selection.

        Raises
        ------
        ValueError
            If an axis is not one of p, i, r, or is not there to select by.
        KeyError
            If nothing is near, or a slice holds nothing; the message says what there is.

        Examples
        --------
        >>> import atldld
        >>> from atldld.testing import AllenServer, phantom_dataset
        >>> with AllenServer([phantom_dataset(dataset_id=1001, plane="sagittal")]) as server:
        ...     sections = atldld.open_dataarray(1001, source=server.url)
        >>> section = sections.atlas.at(r=3365, i=slice(1000, 2000))
        >>> section.sizes["y"]
        41
        """
        # At once: dask folds one selection into the read, not a second one after it.
        return self._obj.isel(places_at(self._obj, place))

    def plan(self) -> pd.DataFrame:
        """Return the image reads that computing this object would cause, without reading any.

        They are found in the object's own dask graph or lazy variable, so that they are right
        after any selection, arithmetic or reduction.

        Returns
        -------
        pandas.DataFrame
            A row a read: ``dataset_id``, ``section_number``, ``image_id``, ``view``, ``tier``;
            ``left``, ``top``, ``width``, ``height`` of what is asked for, in pixels of the tier
            counted from the section's own corner; ``whole``, whether that is the whole image;
            ``cached``, whether it is at hand; ``url``. Where something must be found out
            about a service first, the reads for that come first.

        Raises
        ------
        ValueError
            If the object holds no reader: it is computed, or does not come from this package.

        Examples
        --------
        >>> import atldld
        >>> from atldld.testing import AllenServer, phantom_dataset
        >>> with AllenServer([phantom_dataset(dataset_id=1001, plane="sagittal")]) as server:
        ...     sections = atldld.open_dataarray(1001, source=server.url)
        ...     plan = sections.sel(r=slice(2000, 3000)).mean("section").atlas.plan()
        >>> plan[["section_number", "tier", "whole", "cached"]]
           section_number  tier  whole  cached
        0               0     1   True   False
        1               9     1   True   False
        2              18     1   True   False
        3              27     1   True   False
        """
        return plan_table(planned_reads(self._obj))

    def prefetch(self) -> pd.DataFrame:
        """Fetch, concurrently, the images that computing this object would read.

        They go into the cache; after that, the object can be computed without a network. A
        failure does not stop the rest. A progress bar is shown on a terminal, or as
        ``set_options(progress=...)`` says.

        Returns
        -------
        pandas.DataFrame
            As from `plan`, with ``bytes`` and ``error`` (empty where all is well).

        Raises
        ------
        ValueError
            If the object holds no reader.

        Examples
        --------
        >>> import atldld
        >>> from atldld.testing import AllenServer, phantom_dataset
        >>> with AllenServer([phantom_dataset(dataset_id=1001, plane="sagittal")]) as server:
        ...     sections = atldld.open_dataarray(1001, source=server.url)
        ...     table = sections.sel(r=slice(2000, 3000)).atlas.prefetch()
        >>> (table["error"] == "").all()
        np.True_
        """
        return prefetch(self._obj)

    def pir(self, prefix: str = "") -> xr.Dataset:
        """Return the exact p, i, r of every pixel, lazily.

        A section is a tilted plane: its one slice coordinate stands for it, and this is where
        each of its pixels truly lies. It works on values in memory as well.

        Parameters
        ----------
        prefix
            What the names of the three begin with. Sections have coordinates p, i and r of their
            own, one of which is the slice coordinate: what is to be merged with them needs other
            names (`with_pir` gives the object itself with these).

        Returns
        -------
        xarray.Dataset
            ``p``, ``i``, ``r``, float64, microns, over those of ``section``, ``y``, ``x`` that the
            object has. With ``mapping="oblique"`` the two coordinates of the grid as they are,
            and the slice coordinate by the section's plane; with ``"parallel"`` all three
            through the image. Of a volume its coordinates, which are the places of its voxels.

        Raises
        ------
        ValueError
            If the object does not know where its sections lie: it does not come from this package,
            or was read from a file; or if its coordinates no longer belong together.

        Examples
        --------
        >>> import atldld
        >>> from atldld.testing import AllenServer, phantom_dataset
        >>> with AllenServer([phantom_dataset(dataset_id=1001, plane="sagittal")]) as server:
        ...     sections = atldld.open_dataarray(1001, source=server.url)
        ...     places = sections.isel(section=5).atlas.pir()
        >>> bool(places.r.max() - places.r.min() > 300)
        True
        """
        return pir(self._obj, prefix)

    def with_pir(self) -> Any:
        """Return this object with the exact place of every pixel as coordinates, lazily.

        Returns
        -------
        DataArray or Dataset
            The same, with ``exact_p``, ``exact_i`` and ``exact_r``, as from `pir`. No coordinate
            of sections, images or volumes has such a name: ``p``, ``i`` and ``r`` of sections stay
            what they are, one number a section, row or column.

        Raises
        ------
        ValueError
            As `pir`.

        Examples
        --------
        >>> import atldld
        >>> from atldld.testing import AllenServer, phantom_dataset
        >>> with AllenServer([phantom_dataset(dataset_id=1001, plane="sagittal")]) as server:
        ...     sections = atldld.open_dataarray(1001, source=server.url, masked=True)
        ...     placed = sections.isel(section=5).atlas.with_pir()
        ...     inside = placed.where((placed.exact_r > 3400) & (placed.exact_r < 3500)).compute()
        >>> placed.exact_r.dims, placed.r.dims
        (('y', 'x'), ())
        """
        return with_pir(self._obj)

    @overload
    def to_table(
        self, path: None = None, *, structure: Any = None, annotation: Any = None
    ) -> pd.DataFrame: ...

    @overload
    def to_table(
        self,
        path: str | os.PathLike[str],
        *,
        structure: Any = None,
        annotation: Any = None,
        overwrite: bool = False,
    ) -> None: ...

    def to_table(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        structure: int | str | Sequence[int | str] | None = None,
        annotation: xr.DataArray | str | os.PathLike[str] | None = None,
        overwrite: bool = False,
    ) -> pd.DataFrame | None:
        """Return a row a pixel, or write these rows to a Parquet file in bounded memory.

        Parameters
        ----------
        path
            The file to write, chunk by chunk, each computed once; it needs pyarrow. None: the
            table is returned, and must fit into memory.
        structure
            Only pixels that lie in this structure, or in one of several: ids, acronyms or names.
            Where the annotation was opened by name, in their parts as well.
        annotation
            From `open_annotation`, or its name or path: adds the structure of each pixel. Not
            needed where the object has a variable ``structure_id`` (`open_dataset`).
        overwrite
            Whether a file may be replaced.

        Returns
        -------
        pandas.DataFrame or None
            Of sections and images: ``section`` (its number), ``image_id``, ``y``, ``x`` (as the
            array's coordinates), ``p``, ``i``, ``r``: the exact place in microns, ``structure_id``
            (0 outside the annotation), and the values: ``red``, ``green``, ``blue`` of an array,
            or one column of its name where a pixel has one value; of a Dataset ``image_red`` and
            so on, ``covered``. Of a volume ``p``, ``i``, ``r``, ``structure_id`` and values.
            Every pixel has a row, also those that no image covers: open with ``masked=True``, so
            that these are NaN, or take the rows where ``covered`` is true.

        Raises
        ------
        ValueError
            If the object does not know where its sections lie, has dimensions that are no
            places, or if there is no annotation to find the structure in.
        FileExistsError
            If there is something at `path`.
        ImportError
            If pyarrow is missing.

        Examples
        --------
        >>> import atldld
        >>> from atldld.testing import AllenServer, phantom_dataset
        >>> with AllenServer([phantom_dataset(dataset_id=1001, plane="sagittal")]) as server:
        ...     sections = atldld.open_dataarray(1001, source=server.url, masked=True)
        ...     part = sections.atlas.at(r=3365, p=slice(6000, 6100), i=slice(3000, 3025))
        ...     table = part.atlas.to_table()
        >>> table[["section", "y", "x", "p", "i", "r", "red"]].round(1).head(2)
           section       y       x       p       i       r    red
        0       45  3000.0  6000.0  6000.0  3000.0  3285.1  152.0
        1       45  3000.0  6025.0  6025.0  3000.0  3286.3  145.0
        """
        obj = self._obj
        voxels, labels = None, None
        if annotation is not None:
            labels = annotation_from(annotation)
            voxels = voxels_of(labels, space_of(obj, "the pixels"))
        elif isinstance(obj, xr.Dataset):
            labels = obj.get("structure_id")
        wanted = None
        if structure is not None:
            tree = tree_of(labels, None)
            wanted = structure_ids(structure, tree)
            wanted = wanted if tree is None else tree.with_parts(wanted)
        if path is None:
            return pixel_table(obj, voxels, wanted)
        from ..export.whole_files import write_parquet

        write_parquet(table_parts(obj, voxels, wanted), path, obj.attrs, overwrite=overwrite)
        return None

    def geometry(self) -> pd.DataFrame:
        """Return how the sections of this object lie in reference space, a row each.

        Returns
        -------
        pandas.DataFrame
            ``section_number``, ``image_id``; ``slice_axis``, the axis that the dataset was sliced
            along; ``normal_p``, ``normal_i``, ``normal_r``, the unit normal of the section's
            plane, along which the slice coordinate grows; ``tilt``, degrees between the normal
            and the slicing axis; ``slice_low`` and ``slice_high``, the least and greatest slice
            coordinate on the image (over the middles of its pixels); ``before`` and ``after``,
            microns *along the normal* to the planes of the neighbouring sections of those that
            were opened, whatever was selected since, NaN at the ends; ``outside``, the share of
            the image's area that lies outside the space (0 to 1; NaN in a space whose extent is
            not known). All in microns of the space that was opened.

            With ``mapping="oblique"`` the plane is the one that the third row of ``trv`` gives,
            with ``"parallel"`` that of ``tvr`` after ``tsv``; they agree to about 0.1 microns.

        Raises
        ------
        ValueError
            If the object does not know where its sections lie, as `pir`.

        Examples
        --------
        >>> import atldld
        >>> from atldld.testing import AllenServer, phantom_dataset
        >>> with AllenServer([phantom_dataset(dataset_id=1001, plane="sagittal")]) as server:
        ...     sections = atldld.open_dataarray(1001, source=server.url)
        >>> table = sections.isel(section=[0, 5]).atlas.geometry()
        >>> table[["section_number", "slice_axis", "tilt", "after", "outside"]].round(2)
           section_number slice_axis  tilt   after  outside
        0               0          r   3.0  242.84      0.0
        1              45          r   3.0  485.69      0.0
        """
        return geometry_table(self._obj)

    def plot(self, **options: Any) -> Figure:
        """Draw sections, one section, native pixels or a volume; see `atldld.plot.plot`."""
        from ..plot.plotting import plot

        return plot(self._obj, **options)

    def browse(self, **options: Any) -> Any:
        """Return a browser with a slider over the sections; see `atldld.plot.browse`."""
        from ..plot.browsing import browse

        return browse(self._obj, **options)

    def to_ome_zarr(
        self, path: str | os.PathLike[str], *, labels: bool | None = None, overwrite: bool = False
    ) -> None:
        """Write this as an OME-Zarr 0.5 image; see `atldld.export.to_ome_zarr`."""
        from ..export.ome_zarr import to_ome_zarr

        to_ome_zarr(self._obj, path, labels=labels, overwrite=overwrite)

    def to_zarr(
        self,
        path: str | os.PathLike[str],
        *,
        dtype: Literal["float32", "float16"] = "float32",
        shard: int = 64,
    ) -> pd.DataFrame:
        """Mirror what `atldld.open_grids` returned to one Zarr store, or what is missing of it.

        The store is Zarr 3, a dataset a chunk, `shard` of them a file. If the call is stopped or
        killed, the next one goes on where it stopped; several processes of one machine may write
        the same store at once and share the work. A bucket is written by one machine at a time:
        another one is refused. Datasets that the store does not have yet are added behind the
        others; those that failed are tried again, the others left alone. ``open_grids(path)``
        opens it.

        Parameters
        ----------
        path
            A folder, or the fsspec URL of one.
        dtype
            ``"float32"``, without loss; or ``"float16"``, half the size, rounded to 11 bits (0.05
            %). The attribute ``loss`` says which.
        shard
            Datasets of a file; one shard is held in memory.

        Returns
        -------
        pandas.DataFrame
            What failed in this call: ``dataset_id`` and ``reason``. Their values are NaN and
            their ``status`` is 3 in the store. Those that have no grid are NaN with status 2.

        Raises
        ------
        ValueError, TypeError
            If these are not grids, or the store holds others: another space, other nodes or
            volumes, another dtype.
        BundleError
            If another machine writes the same bucket, or was stopped while it did.
        """
        from ..measure.mirror import write_mirror

        return write_mirror(self._obj, path, dtype=dtype, shard=shard)

    def to_nifti(
        self,
        path: str | os.PathLike[str],
        *,
        colours: Literal["axis", "rgb24"] = "axis",
        origin: Literal["corner", "siibra"] = "corner",
        overwrite: bool = False,
    ) -> None:
        """Write this as a NIfTI file; see `atldld.export.to_nifti`."""
        from ..export.medical_images import to_nifti

        to_nifti(self._obj, path, colours=colours, origin=origin, overwrite=overwrite)

    def to_quicknii(
        self, path: str | os.PathLike[str], *, tier: int = 0, overwrite: bool = False
    ) -> None:
        """Write where the section images lie, for QuickNII; see `atldld.export.to_quicknii`."""
        from ..export.quint import to_quicknii

        to_quicknii(self._obj, path, tier=tier, overwrite=overwrite)

    def to_nrrd(
        self, path: str | os.PathLike[str], *, compress: bool = True, overwrite: bool = False
    ) -> None:
        """Write this as an NRRD file; see `atldld.export.to_nrrd`."""
        from ..export.medical_images import to_nrrd

        to_nrrd(self._obj, path, compress=compress, overwrite=overwrite)

    def failures(self) -> pd.DataFrame:
        """Return which images could not be had as they were wanted, when this was computed.

        It works on every scheduler, and before and after ``compute()``: on the lazy object,
        and on its result as long as that keeps the coordinate ``reference_space``. (Of two
        arrays that were combined, a result remembers the first; ask the lazy object.)

        Returns
        -------
        pandas.DataFrame
            A row an image: ``dataset_id``, ``section_number``, ``image_id``, ``view``, ``tier``,
            ``url``, ``reason``, and ``outcome``: ``"filled"``, or ``"tier N"`` where another tier
            served. An image that was had after all is not listed.

        Raises
        ------
        ValueError
            If the object does not say which arrays it was made from.
        """
        return failures_table(self._obj)


def _in_text(obj: xr.DataArray | xr.Dataset) -> str:
    """Return what an object is and the methods of its accessor, as text."""
    width = max(len(name) for name, _ in _methods())
    facts = [f"    {name}: {text}" for name, text in _facts(obj)]
    methods = [f"    .atlas.{name:<{width}}  {text}" for name, text in _methods()]
    return "\n".join([f"<.atlas of {_title(obj)}>", *facts, "Methods:", *methods])


def _in_html(obj: xr.DataArray | xr.Dataset) -> str:
    """Return the same as HTML."""
    facts = _table([(escape(name), escape(text)) for name, text in _facts(obj)])
    methods = _table([(f"<code>.atlas.{name}</code>", escape(text)) for name, text in _methods()])
    return (
        f"<div><strong>.atlas of {escape(_title(obj))}</strong>{facts}"
        f"<details><summary>methods</summary>{methods}</details></div>"
    )


def _facts(obj: xr.DataArray | xr.Dataset) -> Lines:
    """Return what is true of an object, each with its name; nothing is computed.

    Attributes outlive arithmetic; places are told from the coordinates.
    """
    facts = []
    for dim in obj.dims:
        along = [axis for axis in AXES if axis in obj.coords and obj.coords[axis].dims == (dim,)]
        if along and obj.sizes[dim]:
            values = np.asarray(obj.coords[along[0]].values)
            count = "1 point" if len(values) == 1 else f"{len(values)} points"
            where = f"{along[0]} from {values.min():g} to {values.max():g} um"
            facts.append((str(dim), f"{count}, {where}"))
    facts += [
        (axis, f"{float(obj.coords[axis]):g} um")
        for axis in AXES
        if axis in obj.coords and obj.coords[axis].ndim == 0
    ]
    attributes = obj.attrs
    for name, label in (
        ("reference_space_name", "space"), ("hemisphere", "hemisphere of the tissue"),
        ("specimen", "specimen"), ("age", "age"), ("mapping", "mapping"), ("view", "view"),
        ("source", "source"), ("registration", "registration"),
    ):  # fmt: skip
        if attributes.get(name):
            facts.append((label, str(attributes[name])))
    facts.append(
        ("pixels", "read when computed; .atlas.plan() says which" if is_lazy(obj) else "in memory")
    )
    return facts


def _title(obj: xr.DataArray | xr.Dataset) -> str:
    attributes = obj.attrs
    if "dataset_id" not in attributes:
        return "an array that says nothing of a dataset"
    gene = f" ({attributes['gene']})" if attributes.get("gene") else ""
    space = " in CCFv3" if attributes.get("reference_space") == "CCFv3" else ""
    name = f"dataset {attributes['dataset_id']}{gene}, {attributes.get('plane', '')}"
    return f"{name.rstrip(', ')}{space}"


def _methods() -> Lines:
    """Return the public methods of the accessor, each with the first sentence about it."""
    found = []
    for name, member in vars(AtlasAccessor).items():
        if not name.startswith("_") and inspect.isfunction(member):
            words = inspect.getdoc(member) or ""
            found.append((f"{name}()", " ".join(words.partition("\n\n")[0].split())))
    return found


def _table(rows: Lines) -> str:
    cells = "".join(
        f"<tr><td style='text-align:left'>{name}</td><td style='text-align:left'>{text}</td></tr>"
        for name, text in rows
    )
    return f"<table>{cells}</table>"
