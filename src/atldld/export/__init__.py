"""To other people's formats."""

from .napari import napari_layers, view
from .nifti import to_nifti
from .nrrd import to_nrrd
from .ome_zarr import to_ome_zarr
from .quicknii import read_quicknii, to_quicknii

__all__ = [
    "napari_layers",
    "read_quicknii",
    "to_nifti",
    "to_nrrd",
    "to_ome_zarr",
    "to_quicknii",
    "view",
]
