"""RMA rows with every column that the service sends, filled with made-up values.

The columns are those of recorded answers of the Allen Brain Atlas API (models SectionDataSet,
SectionImage, Specimen, Donor, Product, Gene).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
Matrix = Sequence[Sequence[float]]

PLANE_IDS = {"coronal": 1, "sagittal": 2, "transverse": 6}

PRODUCTS: dict[int, tuple[str, str, str]] = {
    1: ("Mouse", "Mouse Brain", "Allen Mouse Brain Atlas"),
    3: ("DevMouse", "Developing Mouse Brain", "Allen Developing Mouse Brain Atlas"),
    5: ("MouseConnectivity", "Mouse Connectivity Projection", "Allen Mouse Connectivity Atlas"),
    31: ("MouseConnRef", "Mouse Connectivity Reference", "Allen Mouse Connectivity Atlas"),
}
"""Abbreviation, name and resource of some products of the service, by id."""


def significant(value: float) -> float:
    """Round to six significant digits, as the service stores matrix entries.

    Examples
    --------
    >>> significant(13091.4567), significant(-0.000123456789)
    (13091.5, -0.000123457)
    """
    return float(f"{value:.6g}")


def alignment3d(row_id: int, dataset_id: int, tvr: Matrix, trv: Matrix) -> Row:
    """Return an Alignment3d row: linear part row by row, then the translation."""
    row: Row = {"aligned_id": dataset_id, "aligned_type": "DataSet", "id": row_id}
    return {**row, **_entries("trv", trv, 3), **_entries("tvr", tvr, 3)}


def alignment2d(row_id: int, image_id: int, tsv: Matrix, tvs: Matrix) -> Row:
    """Return an Alignment2d row: linear part row by row, then the translation."""
    row: Row = {"id": row_id, "section_image_id": image_id}
    return {**row, **_entries("tsv", tsv, 2), **_entries("tvs", tvs, 2)}


def _entries(name: str, matrix: Matrix, size: int) -> Row:
    linear = [matrix[j][k] for j in range(size) for k in range(size)]
    translation = [matrix[j][size] for j in range(size)]
    values = enumerate([*linear, *translation])
    return {f"{name}_{place:02d}": significant(value) for place, value in values}


def section_image(image_id: int, dataset_id: int, **columns: Any) -> Row:
    """Return a SectionImage row; `columns` overrides the made-up values."""
    stem = f"/external/phantom/image_series_{dataset_id}/{image_id}"
    return {
        **_nulls(
            "axes expression height image_height image_width isi_experiment_id "
            "ophys_experiment_id projection_function resolution section_number specimen_id "
            "structure_id tier_count width"
        ),
        "annotated": False,
        "bits_per_component": 8,
        "data_set_id": dataset_id,
        "expression_path": f"{stem}_expression.aff",
        "failed": False,
        "id": image_id,
        "image_type": "Primary",
        "lims1_id": image_id,
        "number_of_components": 3,
        "path": f"{stem}_A.aff",
        "x": 0,
        "y": 0,
        **columns,
    }


def section_dataset(dataset_id: int, **columns: Any) -> Row:
    """Return a SectionDataSet row; `columns` overrides the made-up values."""
    return {
        **_nulls(
            "blue_channel green_channel name plane_of_section_id red_channel "
            "reference_space_id rnaseq_design_id section_thickness"
        ),
        "delegate": True,
        "expression": True,
        "failed": False,
        "failed_facet": 734881840,
        "id": dataset_id,
        "qc_date": "2009-05-02T22:45:57Z",
        "specimen_id": 500_000_000 + dataset_id,
        "sphinx_id": 100_000 + dataset_id % 100_000,
        "storage_directory": f"/external/phantom/image_series_{dataset_id}/",
        "weight": 5470,
        **columns,
    }


def specimen(dataset_id: int) -> Row:
    """Return the Specimen row of a dataset, with its donor and the donor's age."""
    name, specimen_id, donor_id = (
        f"phantom-{dataset_id}", 500_000_000 + dataset_id, 600_000_000 + dataset_id,
    )  # fmt: skip
    age = {
        "days": 56.0,
        "description": "56 days",
        "embryonic": False,
        "id": 15,
        "name": "P56",
        "organism_id": 2,
        "weight": None,
    }
    donor = {
        **_nulls(
            "date_of_birth external_donor_name full_genotype transgenic_mouse_id weight_grams"
        ),
        "age": age,
        "age_id": 15,
        "handedness": "unknown",
        "id": donor_id,
        "name": name,
        "organism_id": 2,
        "pmi": 0.0,
        "primary_tissue_source": "PHANTOM",
        "sex": "M",
        "sex_full_name": "Male",
        "strain": "C57BL/6J",
        "strain_only": "C57BL/6J",
        "tags": f"{name} unknown",
    }
    return {
        **_nulls(
            "cell_prep_sample_id cell_reporter_id cortex_layer_id data ephys_result_id "
            "external_specimen_name parent_id parent_x_coord parent_y_coord parent_z_coord "
            "pinned_radius rna_integrity_number structure_id tissue_ph treatment_id"
        ),
        "donor": donor,
        "donor_id": donor_id,
        "failed_facet": 734881840,
        "hemisphere": "(none)",
        "id": specimen_id,
        "is_cell_specimen": False,
        "is_ish": False,
        "name": name,
        "specimen_id_path": f"/{specimen_id}/",
        "sphinx_id": 22495,
        "weight": 9000,
    }


def gene(acronym: str) -> Row:
    """Return a Gene row; its id follows from the acronym."""
    number = 900_000 + sum(ord(letter) * 31**k for k, letter in enumerate(acronym)) % 90_000
    return {
        **_nulls(
            "alias_tags chromosome_id ensembl_id homologene_id legacy_ensembl_gene_id "
            "reference_genome_id"
        ),
        "acronym": acronym,
        "entrez_id": number,
        "genomic_reference_update_id": 491928275,
        "id": number,
        "name": f"{acronym}, a gene of the phantom",
        "organism_id": 2,
        "original_name": f"{acronym}, a gene of the phantom",
        "original_symbol": acronym,
        "sphinx_id": number,
        "version_status": "no change",
    }


def product(product_id: int) -> Row:
    """Return a Product row."""
    abbreviation, name, resource = PRODUCTS.get(
        product_id, (f"Product{product_id}", f"Product {product_id}", "Phantom")
    )
    return {
        "abbreviation": abbreviation,
        "description": f"{name}, imitated by a phantom.",
        "id": product_id,
        "name": name,
        "product_name_facet": 2757464828,
        "resource": resource,
        "species": "Mouse",
        "species_name_facet": 1861523945,
        "tags": None,
    }


def equalization(dataset_id: int) -> Row:
    """Return the Equalization row of a fluorescence dataset."""
    row: Row = {"id": 900_000_000 + dataset_id, "section_data_set_id": dataset_id}
    for channel, upper in (("red", 4095), ("green", 3000), ("blue", 2500)):
        row[f"{channel}_lower"], row[f"{channel}_upper"] = 0, upper
    return row


def _nulls(names: str) -> Row:
    """Return columns that are there and empty."""
    return dict.fromkeys(names.split())
