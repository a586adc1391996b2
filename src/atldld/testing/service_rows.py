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
    for name, matrix in (("trv", trv), ("tvr", tvr)):
        linear = [matrix[j][k] for j in range(3) for k in range(3)]
        for place, value in enumerate([*linear, *(matrix[j][3] for j in range(3))]):
            row[f"{name}_{place:02d}"] = significant(value)
    return row


def alignment2d(row_id: int, image_id: int, tsv: Matrix, tvs: Matrix) -> Row:
    """Return an Alignment2d row: linear part row by row, then the translation."""
    row: Row = {"id": row_id, "section_image_id": image_id}
    for name, matrix in (("tsv", tsv), ("tvs", tvs)):
        linear = [matrix[j][k] for j in range(2) for k in range(2)]
        for place, value in enumerate([*linear, matrix[0][2], matrix[1][2]]):
            row[f"{name}_{place:02d}"] = significant(value)
    return row


def section_image(image_id: int, dataset_id: int, **columns: Any) -> Row:
    """Return a SectionImage row; `columns` overrides the made-up values."""
    stem = f"/external/phantom/image_series_{dataset_id}/{image_id}"
    return {
        "annotated": False,
        "axes": None,
        "bits_per_component": 8,
        "data_set_id": dataset_id,
        "expression": None,
        "expression_path": f"{stem}_expression.aff",
        "failed": False,
        "height": None,
        "id": image_id,
        "image_height": None,
        "image_type": "Primary",
        "image_width": None,
        "isi_experiment_id": None,
        "lims1_id": image_id,
        "number_of_components": 3,
        "ophys_experiment_id": None,
        "path": f"{stem}_A.aff",
        "projection_function": None,
        "resolution": None,
        "section_number": None,
        "specimen_id": None,
        "structure_id": None,
        "tier_count": None,
        "width": None,
        "x": 0,
        "y": 0,
        **columns,
    }


def section_dataset(dataset_id: int, **columns: Any) -> Row:
    """Return a SectionDataSet row; `columns` overrides the made-up values."""
    return {
        "blue_channel": None,
        "delegate": True,
        "expression": True,
        "failed": False,
        "failed_facet": 734881840,
        "green_channel": None,
        "id": dataset_id,
        "name": None,
        "plane_of_section_id": None,
        "qc_date": "2009-05-02T22:45:57Z",
        "red_channel": None,
        "reference_space_id": None,
        "rnaseq_design_id": None,
        "section_thickness": None,
        "specimen_id": 500_000_000 + dataset_id,
        "sphinx_id": 100_000 + dataset_id % 100_000,
        "storage_directory": f"/external/phantom/image_series_{dataset_id}/",
        "weight": 5470,
        **columns,
    }


def specimen(dataset_id: int) -> Row:
    """Return the Specimen row of a dataset, with its donor and the donor's age."""
    name = f"phantom-{dataset_id}"
    return {
        "cell_prep_sample_id": None,
        "cell_reporter_id": None,
        "cortex_layer_id": None,
        "data": None,
        "donor_id": 600_000_000 + dataset_id,
        "ephys_result_id": None,
        "external_specimen_name": None,
        "failed_facet": 734881840,
        "hemisphere": "(none)",
        "id": 500_000_000 + dataset_id,
        "is_cell_specimen": False,
        "is_ish": False,
        "name": name,
        "parent_id": None,
        "parent_x_coord": None,
        "parent_y_coord": None,
        "parent_z_coord": None,
        "pinned_radius": None,
        "rna_integrity_number": None,
        "specimen_id_path": f"/{500_000_000 + dataset_id}/",
        "sphinx_id": 22495,
        "structure_id": None,
        "tissue_ph": None,
        "treatment_id": None,
        "weight": 9000,
        "donor": {
            "age_id": 15,
            "date_of_birth": None,
            "external_donor_name": None,
            "full_genotype": None,
            "handedness": "unknown",
            "id": 600_000_000 + dataset_id,
            "name": name,
            "organism_id": 2,
            "pmi": 0.0,
            "primary_tissue_source": "PHANTOM",
            "sex": "M",
            "sex_full_name": "Male",
            "strain": "C57BL/6J",
            "strain_only": "C57BL/6J",
            "tags": f"{name} unknown",
            "transgenic_mouse_id": None,
            "weight_grams": None,
            "age": {
                "days": 56.0,
                "description": "56 days",
                "embryonic": False,
                "id": 15,
                "name": "P56",
                "organism_id": 2,
                "weight": None,
            },
        },
    }


def gene(acronym: str) -> Row:
    """Return a Gene row; its id follows from the acronym."""
    number = 900_000 + sum(ord(letter) * 31**k for k, letter in enumerate(acronym)) % 90_000
    return {
        "acronym": acronym,
        "alias_tags": None,
        "chromosome_id": None,
        "ensembl_id": None,
        "entrez_id": number,
        "genomic_reference_update_id": 491928275,
        "homologene_id": None,
        "id": number,
        "legacy_ensembl_gene_id": None,
        "name": f"{acronym}, a gene of the phantom",
        "organism_id": 2,
        "original_name": f"{acronym}, a gene of the phantom",
        "original_symbol": acronym,
        "reference_genome_id": None,
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
