"""``atldld preview``, ``download`` and ``volume``: sections in files."""

from __future__ import annotations

from pathlib import Path

import click

from .shell import (
    Region,
    examples,
    json_option,
    print_json,
    region_option,
    registration_option,
    skip_failed_option,
    source_option,
    view_option,
    views_option,
)


@click.command(
    epilog=examples(
        "atldld preview 69289763 -o prox1.png",
        "atldld preview 69289763 -o part.pdf --view expression --region r=2000:4000",
    )
)
@click.argument("dataset", type=int)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The picture: a file name with the ending of a format, such as .png or .pdf.",
)
@click.option("--resolution", type=float, default=100, show_default=True, help="Microns a pixel.")
@view_option
@region_option("Only what lies there, in microns; may be given for p, i and r.")
@registration_option
@source_option
def preview(
    dataset: int,
    output: Path,
    resolution: float,
    view: str,
    region: Region | None,
    registration: str | None,
    source: str | None,
) -> None:
    """Draw the sections of DATASET, registered, on one sheet.

    An image that cannot be had is left blank, with a warning.
    """
    import atldld

    from ..export.whole_files import replacing

    kind = _kind(output)
    sections = atldld.open_dataarray(
        dataset,
        resolution=resolution,
        view=view,  # type: ignore[arg-type]  # one of the choices
        region=region,
        registration=registration,
        on_error="fill",
        source=source,
    )
    sections.atlas.prefetch()
    figure = sections.atlas.plot()
    output.parent.mkdir(parents=True, exist_ok=True)
    with replacing(output, overwrite=True) as unfinished:
        figure.savefig(unfinished, format=kind)
    space = sections.attrs["reference_space_name"]
    click.echo(f"{output}: {len(sections.section)} sections of dataset {dataset}, in {space}")


def _kind(output: Path) -> str:
    """Return the format of a picture by its ending, before anything is fetched.

    Raises
    ------
    ImportError
        If there is nothing to draw with.
    ValueError
        If it names no format.
    """
    from ..errors import library

    matplotlib = library("matplotlib", "a picture")
    backends = library("matplotlib.backend_bases", "a picture")
    # Whatever windows there might be, this goes into a file.
    matplotlib.use("Agg")
    known = backends.FigureCanvasBase.get_supported_filetypes()
    kind = output.suffix.removeprefix(".").lower()
    if kind not in known:
        raise ValueError(f"{output} must end in one of .{', .'.join(sorted(known))}")
    return kind


@click.command(
    epilog=examples(
        "atldld download 69289763 -o prox1 --tier 2",
        "atldld download 69289763 -o prox1 --view image --view expression",
        "atldld download --image 69177654 -o prox1",
        "atldld download 69289763 -o registered --warped --resolution 25",
        "atldld download 69289763 -o ccf --warped --registration prox1.json",
    )
)
@click.argument("dataset", type=int, required=False)
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="The folder that the files go to.",
)
@click.option(
    "--tier",
    type=click.IntRange(min=0, max=30),
    help="How many times each side is halved; 0 is full resolution, and the default.",
)
@views_option
@click.option(
    "-i", "--image", "images", type=int, multiple=True, help="Only this section image; repeatable."
)
@click.option("--failed", is_flag=True, help="Also images that failed quality control.")
@click.option(
    "--warped", is_flag=True, help="Registered: each section on the grid of reference space."
)
@click.option("--resolution", type=float, help="With --warped: microns a pixel; 25 by default.")
@region_option("With --warped: only what lies there, in microns; for p, i and r.")
@registration_option
@json_option
@source_option
def download(
    dataset: int | None,
    output: Path,
    tier: int | None,
    views: tuple[str, ...],
    images: tuple[int, ...],
    failed: bool,
    warped: bool,
    resolution: float | None,
    region: Region | None,
    registration: str | None,
    as_json: bool,
    source: str | None,
) -> None:
    """Download the section images of DATASET as files, with a table of what they are.

    JPEG files as the service sends them, PNG files of a bucket of slides, or with --warped PNG
    files in reference space; and sections.csv and dataset.json beside them. DATASET can be left
    out where --image says which images. What is there already is not fetched again. An image that
    cannot be had does not stop the others; it is named at the end, with status 1.
    """
    from .saving import save_images, save_planes

    if not warped and (resolution, region, registration) != (None, None, None):
        raise click.UsageError("--resolution, --region and --registration belong to --warped")
    if warped and (images or failed):
        raise click.UsageError("--image and --failed do not go with --warped")
    views = tuple(dict.fromkeys(views))
    if warped:
        if dataset is None:
            raise click.UsageError("--warped needs a DATASET")
        saved = save_planes(
            dataset,
            output,
            views=views,
            resolution=25 if resolution is None else resolution,
            tier="auto" if tier is None else tier,
            region=region,
            registration=registration,
            source=source,
        )
    else:
        saved = save_images(
            _dataset_of(images, source) if dataset is None else dataset,
            output,
            views=views,
            tier=tier or 0,
            images=images,
            failed=failed,
            source=source,
        )
    if as_json:
        print_json(
            {
                "folder": str(output),
                "files": saved.files,
                "bytes": saved.bytes,
                "kept": saved.kept,
                "errors": saved.errors,
                **({} if warped else {"tiers": saved.tiers}),
            }
        )
    else:
        click.echo(
            f"{output} holds {len(saved.files)} images of dataset {saved.dataset_id}, "
            f"{saved.bytes:,} bytes ({saved.kept} were there before)"
        )
        for at, count in sorted(saved.tiers.items()):
            if at != (tier or 0):
                click.echo(f"{count} of them at tier {at}, the last that they have")
    for error in saved.errors:
        click.echo(f"Error: {error}", err=True)
    if saved.errors:
        raise SystemExit(1)


def _dataset_of(images: tuple[int, ...], source: str | None) -> int:
    """Return the dataset that images belong to."""
    from ..errors import DatasetNotFoundError
    from ..model.terms import SearchTerms
    from ..source.search import summaries

    if not images:
        raise click.UsageError("name a DATASET, or images with --image")
    found = {
        each.dataset_id
        for each in summaries(SearchTerms.checked(image_id=images, failed=None), source)
    }
    if not found:
        raise DatasetNotFoundError(
            f"there is no section dataset with image {', '.join(map(str, images))}"
        )
    if len(found) > 1:
        raise ValueError(
            f"these images belong to datasets {', '.join(map(str, sorted(found)))}; download "
            "those of one at a time"
        )
    return found.pop()


_WRITERS = {".zarr": "to_ome_zarr", ".nii": "to_nifti", ".nii.gz": "to_nifti", ".nrrd": "to_nrrd"}


@click.command(
    epilog=examples(
        "atldld volume 69289763 -o prox1.nii.gz --resolution 50",
        "atldld volume 69289763 -o prox1.zarr --region p=6000:9000 --view expression_mask",
    )
)
@click.argument("dataset", type=int)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    required=True,
    help="What to write, by its ending: .zarr (OME-Zarr), .nii, .nii.gz or .nrrd.",
)
@click.option("--resolution", type=float, default=25, show_default=True, help="Microns a voxel.")
@view_option
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
@skip_failed_option
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
    region: Region | None,
    skip_failed: bool,
    overwrite: bool,
    source: str | None,
) -> None:
    """Write DATASET as a volume in reference space.

    Images are fetched first; if that is stopped, the same command goes on where it stopped.
    """
    import atldld

    ending = next((each for each in _WRITERS if output.name.lower().endswith(each)), None)
    if ending is None:
        raise ValueError(f"{output} must end in one of {', '.join(_WRITERS)}")
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
    getattr(image.atlas, _WRITERS[ending])(output, overwrite=overwrite)
    sides = " x ".join(str(image.sizes[axis]) for axis in ("p", "i", "r"))
    click.echo(f"{output}: {sides} voxels of {resolution:g} um (p, i, r), dataset {dataset}")
    for error in bad["error"]:
        click.echo(f"could not be had: {error}", err=True)
