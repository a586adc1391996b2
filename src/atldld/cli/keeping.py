"""``atldld cache``, ``pack`` and ``verify``: what is kept on disk, and what of it to hand on."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict

import click

from .shell import (
    Region,
    examples,
    json_option,
    print_json,
    region_option,
    skip_failed_option,
    source_option,
    views_option,
)

_FOLDER = click.option(
    "--cache-dir",
    help="The folder or its URL; by default the one that is in use (ATLDLD_CACHE_DIR).",
)


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "atldld cache",
        "atldld cache verify",
        "atldld cache trim --limit '5 GB'",
        "atldld cache clear --yes",
    ),
)
@click.pass_context
def cache(context: click.Context) -> None:
    """Show, verify, trim or clear the files that were downloaded."""
    if context.invoked_subcommand is None:
        context.invoke(show)


@cache.command(epilog=examples("atldld cache show --json"))
@_FOLDER
@json_option
def show(cache_dir: str | None = None, as_json: bool = False) -> None:
    """Show how many files are kept of which service, and how large they are."""
    from ..options import current
    from ..store.inventory import cache_stock

    stock = cache_stock(cache_dir)
    folder = _folder(cache_dir)
    total = sum(one.total_bytes for one in stock)
    limit = current().cache_limit
    if as_json:
        services = [asdict(one) for one in stock]
        print_json({"cache_dir": folder, "bytes": total, "limit": limit, "services": services})
        return
    click.echo(f"{folder}")
    if not stock:
        click.echo("  nothing is kept here")
    for one in stock:
        span = f", {_day(one.oldest)} to {_day(one.newest)}" if one.oldest is not None else ""
        atlases = f", {_count(one.files['atlases'], 'atlas file')}" * bool(one.files["atlases"])
        grids = f", {_count(one.files['grids'], 'grid file')}" * bool(one.files["grids"])
        tables = f", a catalogue of {_size(one.bytes['catalogue'])}" * bool(one.files["catalogue"])
        click.echo(
            f"  {one.url}: {_size(one.total_bytes)}; {_count(one.files['images'], 'image')}, "
            f"{_count(one.files['datasets'], 'dataset')}{grids}{atlases}{tables}{span}"
        )
    if len(stock) > 1:
        click.echo(f"  in all: {_size(total)}")
    if limit is not None:
        click.echo(f"  limit: {_size(limit)}, {total / limit:.0%} in use")


@cache.command("verify", epilog=examples("atldld cache verify --remove"))
@_FOLDER
@json_option
@click.option("--remove", is_flag=True, help="Throw the damaged files away.")
def verify_kept(cache_dir: str | None, as_json: bool, remove: bool) -> None:
    """Hold every file against the checksum that it came with, and name the damaged ones.

    Ends with status 1 where there are any. They are found on reading, too, and fetched again.
    """
    from ..source.catalogue import verify_catalogues
    from ..store.inventory import CacheReport, verify_cache

    kept = verify_cache(cache_dir, remove=remove)
    tables = verify_catalogues(cache_dir, remove=remove)
    verdict = CacheReport(
        kept.files + tables.files, kept.bytes + tables.bytes, (*kept.damaged, *tables.damaged)
    )
    if as_json:
        print_json({**asdict(verdict), "removed": remove})
    else:
        click.echo(f"{_count(verdict.files, 'file')} as they came, {_size(verdict.bytes)}")
        for one in verdict.damaged:
            click.echo(f"damaged{', removed' * remove}: {one.path}: {one.reason}")
    if verdict.damaged and not remove:
        raise SystemExit(1)


@cache.command(epilog=examples("atldld cache trim --limit '5 GB'"))
@_FOLDER
@json_option
@click.option("--limit", help="Such as '20 GB'; by default the one in use (ATLDLD_CACHE_LIMIT).")
def trim(cache_dir: str | None, as_json: bool, limit: str | None) -> None:
    """Remove what was used longest ago, until the rest is within a limit.

    Metadata stay: without them the images are of no use offline.
    """
    from ..options import current, set_options
    from ..store.inventory import trim_cache

    try:
        with set_options() if limit is None else set_options(cache_limit=limit):
            files, size = trim_cache(cache_dir, limit=current().cache_limit)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if as_json:
        print_json({"files": files, "bytes": size})
    else:
        click.echo(f"removed {_count(files, 'file')}, {_size(size)}")


@cache.command(epilog=examples("atldld cache clear --service https://api.brain-map.org"))
@_FOLDER
@json_option
@click.option("--service", help="Only what is kept of the service of this URL.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(cache_dir: str | None, as_json: bool, service: str | None, yes: bool) -> None:
    """Remove what is kept; asks before it does."""
    from ..store.inventory import clear_cache
    from ..urls import base_url, without_credentials

    try:
        service = None if service is None else base_url(service)
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    if not yes:
        of = "" if service is None else f" of {without_credentials(service)}"
        if not _agreed(f"Remove everything{of} from {_folder(cache_dir)}?"):
            click.echo("Nothing was removed.", err=True)
            raise SystemExit(1)
    files, size = clear_cache(cache_dir, service=service)
    if as_json:
        print_json({"files": files, "bytes": size})
    else:
        click.echo(f"removed {_count(files, 'file')}, {_size(size)}")


def _agreed(question: str) -> bool:
    """Ask, and return whether the answer was yes; no answer is none."""
    try:
        return click.confirm(question, err=True)
    except click.Abort:
        click.echo(err=True)
        return False


def _folder(cache_dir: str | None) -> str:
    from ..options import current

    return str(current().cache_dir) if cache_dir is None else cache_dir


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _size(number: int) -> str:
    """Return a number of bytes in words.

    Examples
    --------
    >>> _size(512), _size(1_500_000)
    ('512 bytes', '1.5 MB')
    """
    if number < 1000:
        return f"{number} bytes"
    power = min((len(str(number)) - 1) // 3, 4)
    return f"{number / 1000**power:.1f} {('', 'kB', 'MB', 'GB', 'TB')[power]}"


def _day(seconds: float | None) -> str:
    return "?" if seconds is None else time.strftime("%Y-%m-%d", time.gmtime(seconds))


@click.command(
    epilog=examples(
        "atldld pack 69289763 prox1.zip",
        "atldld pack 69289763 s3://bucket/prox1 --resolution 10 --view image --view expression",
        "atldld pack 69289763 hippocampus --tier 1 --region p=6000:9000 --region i=1000:5000",
    )
)
@click.argument("dataset", type=int)
@click.argument("target")
@click.option(
    "--resolution", type=float, help="Microns between grid points of the arrays to be opened."
)
@click.option(
    "--tier", "tiers", type=int, multiple=True, help="Image tier; may be given more than once."
)
@views_option
@region_option("Only what lies there, in microns; may be given for p, i and r.")
@source_option
@skip_failed_option
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
        views=views,  # type: ignore[arg-type]  # one of the choices
        on_error="skip" if skip_failed else "raise",
        source=source,
    )
    if as_json:
        names = ("dataset_id", "files", "bytes", "fetched", "kept", "failed")
        told = {name: getattr(packed, name) for name in names}
        print_json({"bundle": packed.source.name, **told})
        return
    click.echo(
        f"{packed.source.name} holds dataset {packed.dataset_id}: {packed.files} files, "
        f"{packed.bytes:,} bytes ({packed.fetched} images fetched now, {packed.kept} there before)"
    )
    for name in packed.failed:
        click.echo(f"could not be had: {name}", err=True)


@click.command(epilog=examples("atldld verify prox1.zip"))
@click.argument("bundle")
@json_option
def verify(bundle: str, as_json: bool) -> None:
    """Check that everything in BUNDLE is there and sound.

    Ends with status 1 if something is missing or damaged.
    """
    import atldld

    report = atldld.verify_bundle(bundle)
    if as_json:
        names = ("dataset_id", "ok", "files", "bytes", "missing", "damaged", "extra", "failed")
        print_json({"bundle": report.name, **{name: getattr(report, name) for name in names}})
    else:
        click.echo(str(report))
    sys.exit(0 if report.ok else 1)
