"""``atldld pack`` and ``atldld verify``: datasets packed into bundles, and checked."""

from __future__ import annotations

import sys

import click

from .shell import Region, json_option, print_json, region_option, source_option

# A line of its own with a backspace keeps click from joining the lines below it.
_PACK_EXAMPLES = """\b
Examples:
    atldld pack 69289763 prox1.zip
    atldld pack 69289763 s3://bucket/prox1 --resolution 10 --view image --view expression
    atldld pack 69289763 hippocampus --tier 1 --region p=6000:9000 --region i=1000:5000
"""
_VERIFY_EXAMPLE = """\b
Example:
    atldld verify prox1.zip
"""


@click.command(epilog=_PACK_EXAMPLES)
@click.argument("dataset", type=int)
@click.argument("target")
@click.option(
    "--resolution", type=float, help="Microns between grid points of the arrays to be opened."
)
@click.option(
    "--tier", "tiers", type=int, multiple=True, help="Image tier; may be given more than once."
)
@click.option(
    "--view",
    "views",
    multiple=True,
    default=("image",),
    show_default=True,
    help="image, projection, expression or expression_mask; may be given more than once.",
)
@region_option("Only what lies there, in microns; may be given for p, i and r.")
@source_option
@click.option("--skip-failed", is_flag=True, help="Finish without the images that cannot be had.")
@json_option
def pack(
    dataset: int,
    target: str,
    resolution: float | None,
    tiers: tuple[int, ...],
    views: tuple[str, ...],
    region: Region | None,
    source: str | None,
    skip_failed: bool,
    as_json: bool,
) -> None:
    """Pack DATASET into a bundle at TARGET, to be opened without a network.

    TARGET is a folder, a file named *.zip, or an fsspec URL. Called again, it goes on where it
    stopped.
    """
    import atldld

    packed = atldld.pack(
        dataset,
        target,
        resolution=resolution,
        tiers=tiers or None,
        region=region,
        views=views,  # type: ignore[arg-type]  # checked where it is used
        on_error="skip" if skip_failed else "raise",
        source=source,
    )
    if as_json:
        print_json(
            {
                "bundle": packed.source.name,
                "dataset_id": packed.dataset_id,
                "files": packed.files,
                "bytes": packed.bytes,
                "fetched": packed.fetched,
                "kept": packed.kept,
                "failed": list(packed.failed),
            }
        )
        return
    click.echo(
        f"{packed.source.name} holds dataset {packed.dataset_id}: {packed.files} files, "
        f"{packed.bytes:,} bytes ({packed.fetched} images fetched now, {packed.kept} there before)"
    )
    for name in packed.failed:
        click.echo(f"could not be had: {name}", err=True)


@click.command(epilog=_VERIFY_EXAMPLE)
@click.argument("bundle")
@json_option
def verify(bundle: str, as_json: bool) -> None:
    """Check that everything in BUNDLE is there and sound.

    Ends with status 1 if something is missing or damaged.
    """
    import atldld

    report = atldld.verify_bundle(bundle)
    if as_json:
        print_json(
            {
                "bundle": report.name,
                "dataset_id": report.dataset_id,
                "ok": report.ok,
                "files": report.files,
                "bytes": report.bytes,
                "missing": list(report.missing),
                "damaged": list(report.damaged),
                "extra": list(report.extra),
                "failed": list(report.failed),
            }
        )
    else:
        click.echo(str(report))
    sys.exit(0 if report.ok else 1)
