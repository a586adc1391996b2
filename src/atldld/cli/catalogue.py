"""``atldld catalogue``: the atlas as tables, fetched once."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from .find import id_or_name
from .shell import Commands, json_option, print_json, source_option

if TYPE_CHECKING:
    from ..source.catalogue import Catalogue

# A line of its own with a backspace keeps click from joining the lines below it.
_EXAMPLES = """\b
Examples:
    atldld catalogue build --images
    atldld catalogue info
    atldld catalogue export atlas-tables
"""


_BUILD_EXAMPLES = """\b
Examples:
    atldld catalogue build --images --product "Mouse Brain"
"""

_INFO_EXAMPLES = """\b
Examples:
    atldld catalogue info
"""

_EXPORT_EXAMPLES = """\b
Examples:
    atldld catalogue export atlas-tables
"""


@click.group(cls=Commands, epilog=_EXAMPLES)
def catalogue() -> None:
    """Keep the atlas as tables, so that finding and opening datasets asks nothing."""


@catalogue.command(epilog=_BUILD_EXAMPLES)
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


@catalogue.command(epilog=_INFO_EXAMPLES)
@click.argument("where", required=False, metavar="[PATH|URL]")
@json_option
def info(where: str | None, as_json: bool) -> None:
    """Tell what the catalogue of a service that is kept, or the copy at PATH, holds."""
    _tell(_at_hand(where), as_json)


@catalogue.command(epilog=_EXPORT_EXAMPLES)
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
