"""``atldld volume``: a dataset as a volume in a file that other programs open."""

from __future__ import annotations

from pathlib import Path

import click

from .shell import region_option, registration_option, source_option, view_choice

_EXAMPLES = """\b
Examples:
    atldld volume 69289763 -o prox1.nii.gz --resolution 50
    atldld volume 69289763 -o prox1.zarr --region p=6000:9000 --view expression_mask
"""
_ENDINGS = {".zarr": "to_ome_zarr", ".nii": "to_nifti", ".nii.gz": "to_nifti", ".nrrd": "to_nrrd"}


@click.command(epilog=_EXAMPLES)
@click.argument("dataset", type=int)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="What to write, by its ending: .zarr (OME-Zarr), .nii, .nii.gz or .nrrd.",
)
@click.option("--resolution", type=float, default=25, show_default=True, help="Microns a voxel.")
@click.option("--view", type=view_choice, default="image", show_default=True)
@click.option("--tier", type=click.IntRange(min=0), help="Image tier; by default what it takes.")
@click.option("--max-distance", type=float, help="Microns between a voxel and its section.")
@click.option(
    "--between",
    type=click.Choice(["nearest", "linear"]),
    default="nearest",
    show_default=True,
    help="What a voxel between two sections shows.",
)
@click.option(
    "--reference-space", type=click.Choice(["9", "10"]), help="By default the dataset's own."
)
@registration_option
@region_option("Only what lies there, in microns; may be given for p, i and r.")
@click.option("--skip-failed", is_flag=True, help="Finish without the images that cannot be had.")
@click.option("--overwrite", is_flag=True, help="Replace what is there.")
@source_option
def volume(
    dataset: int,
    output: Path,
    resolution: float,
    view: str,
    tier: int | None,
    max_distance: float | None,
    between: str,
    reference_space: str | None,
    registration: str | None,
    region: dict[str, tuple[float, float]] | None,
    skip_failed: bool,
    overwrite: bool,
    source: str | None,
) -> None:
    """Write DATASET as a volume in reference space.

    Images are fetched first; if that is stopped, the same command goes on where it stopped.
    """
    import atldld

    ending = next((each for each in _ENDINGS if output.name.lower().endswith(each)), None)
    if ending is None:
        raise ValueError(f"{output} must end in one of {', '.join(_ENDINGS)}")
    if output.exists() and not overwrite:
        raise ValueError(f"{output} is there already; --overwrite replaces it")
    opened = atldld.open_volume(
        dataset,
        resolution=resolution,
        view=view,  # type: ignore[arg-type]  # one of the choices
        tier="auto" if tier is None else tier,
        max_distance=max_distance,
        between=between,  # type: ignore[arg-type]  # one of the choices
        registration=registration,
        reference_space="native" if reference_space is None else int(reference_space),  # type: ignore[arg-type]  # one of the choices
        region=region,
        on_error="fill" if skip_failed else "raise",
        source=source,
    )
    image = opened["image"]
    fetched = image.atlas.prefetch()
    bad = fetched[fetched["error"] != ""]
    if len(bad) and not skip_failed:
        raise atldld.APIError(
            f"{len(bad)} of {len(fetched)} images cannot be had (--skip-failed finishes without "
            f"them): {bad['error'].iloc[0]}"
        )
    output.parent.mkdir(parents=True, exist_ok=True)
    getattr(image.atlas, _ENDINGS[ending])(output, overwrite=overwrite)
    sides = " x ".join(str(image.sizes[axis]) for axis in ("p", "i", "r"))
    click.echo(f"{output}: {sides} voxels of {resolution:g} um (p, i, r), dataset {dataset}")
    for error in bad["error"]:
        click.echo(f"could not be had: {error}", err=True)
