"""``atldld search``, ``info`` and ``catalogue``: what there is."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import click

from .shell import (
    Commands,
    examples,
    id_or_name,
    json_option,
    print_json,
    source_option,
    table_text,
)

if TYPE_CHECKING:
    from ..model.info import DatasetSummary
    from ..source.catalogue import Catalogue


@click.command(
    epilog=examples(
        "atldld search Prox1 --plane sagittal",
        'atldld search "Prox*" --product "Mouse Brain" --json',
        "atldld search --image 69177654",
    )
)
@click.argument("gene", nargs=-1)
@click.option("-p", "--plane", multiple=True, help="coronal, sagittal or transverse.")
@click.option("--product", multiple=True, help="Name, abbreviation or id of a product.")
@click.option("-s", "--specimen", multiple=True, help="Name or id of a specimen.")
@click.option("-d", "--dataset", type=int, multiple=True, help="Id of a dataset.")
@click.option("-i", "--image", type=int, multiple=True, help="Id of a section image.")
@click.option("--failed", is_flag=True, help="Also datasets that failed quality control.")
@click.option("--images", "list_images", is_flag=True, help="List their section images.")
@json_option
@source_option
def search(
    gene: tuple[str, ...],
    plane: tuple[str, ...],
    product: tuple[str, ...],
    specimen: tuple[str, ...],
    dataset: tuple[int, ...],
    image: tuple[int, ...],
    failed: bool,
    list_images: bool,
    as_json: bool,
    source: str | None,
) -> None:
    """Find section datasets, of GENE or any.

    GENE is an acronym; * stands for any text, and case does not matter. An option that is given
    more than once means one of its values.
    """
    from ..model.terms import SearchTerms
    from ..source.search import summaries

    terms = SearchTerms.checked(
        gene=gene or None,
        plane=plane or None,
        product=[id_or_name(each) for each in product] or None,
        specimen=[id_or_name(each) for each in specimen] or None,
        dataset_id=dataset or None,
        image_id=image or None,
        failed=None if failed else False,
    )
    if terms == replace(SearchTerms(), failed=terms.failed):
        raise click.UsageError("name a gene (* for any), or give an option")
    found = summaries(terms, source)
    if list_images:
        _list_images(found, image, as_json, source)
    elif as_json:
        print_json([each.plain() for each in found])
    else:
        if found:
            click.echo(_datasets(found))
        click.echo(f"{len(found)} dataset{'' if len(found) == 1 else 's'}", err=True)


@click.command(epilog=examples("atldld info 69289763", "atldld info 69289763 --images"))
@click.argument("dataset", type=int)
@click.option("--images", "list_images", is_flag=True, help="List the section images, too.")
@click.option("--refresh", is_flag=True, help="Ask the service, whatever is kept of it.")
@json_option
@source_option
def info(dataset: int, list_images: bool, refresh: bool, as_json: bool, source: str | None) -> None:
    """Tell what DATASET is: gene, plane, specimen, sections.

    Also of datasets that cannot be opened; JSON lists the section images, too.
    """
    import atldld

    # What it answers is kept, and serves what is opened next.
    with atldld.set_options(metadata_max_age=0) if refresh else nullcontext():
        found = atldld.dataset_info(dataset, source=source)
    if as_json:
        print_json(found.to_dict())
        return
    click.echo(repr(found))
    if list_images:
        table = found.to_dataframe()
        click.echo("\n" + table_text(list(table.columns), _rows(table)))


def _list_images(
    found: list[DatasetSummary], wanted: tuple[int, ...], as_json: bool, source: str | None
) -> None:
    import atldld

    from ..source import source_from

    origin = source_from(source)
    rows = []
    for each in found:
        told = atldld.dataset_info(each.dataset_id, source=origin).to_dict()
        rows += [
            {"dataset_id": each.dataset_id, "gene": ", ".join(each.genes), **image}
            for image in told["images"]
            if not wanted or image["image_id"] in wanted
        ]
    if as_json:
        print_json(rows)
        return
    if rows:
        click.echo(table_text(list(rows[0]), [_shown(row.values()) for row in rows]))
    click.echo(f"{len(rows)} section image{'' if len(rows) == 1 else 's'}", err=True)


def _datasets(found: list[DatasetSummary]) -> str:
    headings = ["dataset", "gene", "plane", "age", "product", "specimen"]
    rows: list[list[Any]] = [
        [
            each.dataset_id,
            ", ".join(each.genes),
            each.plane + " (failed)" * each.failed,
            each.age,
            ", ".join(each.products),
            each.specimen,
        ]
        for each in found
    ]
    return table_text(headings, rows)


def _rows(table: Any) -> list[list[Any]]:
    return [_shown(row) for row in table.astype(object).where(table.notna(), None).values.tolist()]


def _shown(values: Any) -> list[Any]:
    return ["" if value is None else value for value in values]


@click.group(
    cls=Commands,
    epilog=examples(
        "atldld catalogue build --images",
        "atldld catalogue info",
        "atldld catalogue export atlas-tables",
    ),
)
def catalogue() -> None:
    """Keep the atlas as tables, so that finding and opening datasets asks nothing."""


@catalogue.command(epilog=examples('atldld catalogue build --images --product "Mouse Brain"'))
@click.option("--images", is_flag=True, help="The section images, too.")
@click.option("--refresh", is_flag=True, help="Fetch it again although it is kept.")
@click.option("--product", multiple=True, help="Name or id of a product; by default all.")
@json_option
@source_option
def build(
    images: bool, refresh: bool, product: tuple[str, ...], as_json: bool, source: str | None
) -> None:
    """Fetch the tables of a service, or what is missing of them.

    About 540 requests, one after another, for the 26,078 datasets of the mouse. If it is stopped,
    the same command goes on where it stopped.
    """
    import atldld

    found = atldld.catalogue(
        source,
        images=images,
        refresh=refresh,
        products=[id_or_name(each) for each in product] or None,
    )
    _tell(found, as_json)


@catalogue.command("info", epilog=examples("atldld catalogue info"))
@click.argument("where", required=False, metavar="[PATH|URL]")
@json_option
def catalogue_info(where: str | None, as_json: bool) -> None:
    """Tell what the catalogue of a service that is kept, or the copy at PATH, holds."""
    _tell(_at_hand(where), as_json)


@catalogue.command(epilog=examples("atldld catalogue export atlas-tables"))
@click.argument("target")
@source_option
def export(target: str, source: str | None) -> None:
    """Copy the catalogue that is kept to the folder or URL TARGET, to be used elsewhere."""
    click.echo(_at_hand(source).export(target).where)


def _at_hand(where: str | None) -> Catalogue:
    from ..errors import AtldldError
    from ..source import source_from
    from ..source.allen import AllenSource
    from ..source.catalogue import Catalogue

    if where is not None and not where.startswith(("http://", "https://")):
        return Catalogue.at(where)
    service = source_from(where)
    found = service.catalogue() if isinstance(service, AllenSource) else None
    if found is None:
        raise AtldldError(
            f"no catalogue of {service.name} is kept; `atldld catalogue build` fetches it"
        )
    return found


def _tell(found: Catalogue, as_json: bool) -> None:
    told = {
        "service": found.service,
        "date": found.date,
        "products": None if found.products is None else list(found.products),
        "datasets": len(found),
        "images": found.image_count,
        "bytes": found.size,
        "where": found.name,
    }
    if as_json:
        print_json(told)
        return
    click.echo(f"{found!r}\n{found.size / 1e6:.1f} MB at {found.name}")
