"""``atldld download``: images of a dataset as files."""

from __future__ import annotations

from pathlib import Path

import click

from .shell import (
    json_option,
    print_json,
    region_option,
    registration_option,
    source_option,
    view_choice,
)

_EXAMPLES = """\b
Examples:
    atldld download 69289763 -o prox1 --tier 2
    atldld download 69289763 -o prox1 --view image --view expression
    atldld download --image 69177654 -o prox1
    atldld download 69289763 -o registered --warped --resolution 25
    atldld download 69289763 -o ccf --warped --registration prox1.json
"""


@click.command(epilog=_EXAMPLES)
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
@click.option(
    "--view",
    "views",
    type=view_choice,
    multiple=True,
    default=("image",),
    show_default=True,
    help="May be given more than once.",
)
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
    region: dict[str, tuple[float, float]] | None,
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
