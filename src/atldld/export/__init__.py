"""Bundles, other people's formats, and registrations from them."""

from .meshview import to_meshview
from .napari import napari_layers, view
from .neuroglancer import neuroglancer_link, neuroglancer_state
from .nifti import to_nifti
from .nrrd import to_nrrd
from .ome_zarr import to_ome_zarr
from .quicknii import read_quicknii, to_quicknii

__all__ = [
    "napari_layers",
    "neuroglancer_link",
    "neuroglancer_state",
    "read_quicknii",
    "to_meshview",
    "to_nifti",
    "to_nrrd",
    "to_ome_zarr",
    "to_quicknii",
    "view",
]
