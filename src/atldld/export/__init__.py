"""Bundles, other people's formats, and registrations from them."""

from .medical_images import to_nifti, to_nrrd
from .napari import napari_layers, view
from .ome_zarr import neuroglancer_link, neuroglancer_state, to_ome_zarr
from .quint import read_quicknii, to_meshview, to_quicknii

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
