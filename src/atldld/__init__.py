"""Section datasets of the Allen Brain Atlas as lazy xarray arrays in reference space.

The names below are loaded at first use, so that ``import atldld`` stays cheap.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import (
    APIError,
    AtldldError,
    AtldldWarning,
    BundleError,
    DatasetNotFoundError,
    ImageError,
    MixError,
    RegistrationError,
)

if TYPE_CHECKING:
    from . import plot as plot
    from .arrays.image import open_image
    from .arrays.many import open_volumes
    from .arrays.ontology import structures
    from .arrays.opening import open_dataarray, open_dataset
    from .arrays.trees import open_datatree
    from .arrays.volume_opening import open_volume
    from .export.napari import napari_layers, view
    from .export.packing import pack
    from .export.quint import read_quicknii
    from .measure.annotation import open_annotation
    from .measure.atlas_coverage import covering, open_coverage
    from .measure.grids import open_grid, open_grids
    from .measure.measures import aggregate, structure_measures, unionizes
    from .measure.points import points_to_sections, sections_to_points
    from .measure.quantify import quantify
    from .measure.similarity import correlations
    from .measure.structures import structure_bounds, structure_table, structures_at
    from .options import set_options
    from .sampling.displacement import DisplacementField
    from .source.bundle import verify_bundle
    from .source.catalogue import Catalogue, catalogue
    from .source.search import dataset_info, search

__version__ = "1.0.0.dev0"

_HOMES = {
    "aggregate": ".measure.measures",
    "catalogue": ".source.catalogue",
    "correlations": ".measure.similarity",
    "covering": ".measure.atlas_coverage",
    "dataset_info": ".source.search",
    "napari_layers": ".export.napari",
    "open_annotation": ".measure.annotation",
    "open_coverage": ".measure.atlas_coverage",
    "open_dataarray": ".arrays.opening",
    "open_dataset": ".arrays.opening",
    "open_datatree": ".arrays.trees",
    "open_grid": ".measure.grids",
    "open_grids": ".measure.grids",
    "open_image": ".arrays.image",
    "open_volume": ".arrays.volume_opening",
    "open_volumes": ".arrays.many",
    "pack": ".export.packing",
    "quantify": ".measure.quantify",
    "points_to_sections": ".measure.points",
    "sections_to_points": ".measure.points",
    "search": ".source.search",
    "read_quicknii": ".export.quint",
    "set_options": ".options",
    "structure_bounds": ".measure.structures",
    "structure_measures": ".measure.measures",
    "structures": ".arrays.ontology",
    "structure_table": ".measure.structures",
    "structures_at": ".measure.structures",
    "unionizes": ".measure.measures",
    "verify_bundle": ".source.bundle",
    "view": ".export.napari",
    "watch_images": ".reading.images",
    "Catalogue": ".source.catalogue",
    "DisplacementField": ".sampling.displacement",
}

__all__ = [
    "APIError",
    "AtldldError",
    "AtldldWarning",
    "BundleError",
    "Catalogue",
    "DatasetNotFoundError",
    "DisplacementField",
    "ImageError",
    "MixError",
    "RegistrationError",
    "aggregate",
    "catalogue",
    "correlations",
    "covering",
    "dataset_info",
    "napari_layers",
    "open_annotation",
    "open_coverage",
    "open_dataarray",
    "open_dataset",
    "open_datatree",
    "open_grid",
    "open_grids",
    "open_image",
    "open_volume",
    "open_volumes",
    "pack",
    "plot",
    "points_to_sections",
    "quantify",
    "read_quicknii",
    "search",
    "sections_to_points",
    "set_options",
    "structure_bounds",
    "structure_measures",
    "structure_table",
    "structures",
    "structures_at",
    "unionizes",
    "verify_bundle",
    "view",
    "watch_images",
]


def __getattr__(name: str) -> Any:
    if name == "plot":
        return import_module(".plot", __name__)
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
