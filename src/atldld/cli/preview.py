"""``atldld preview``: a dataset's sections on one sheet."""

from __future__ import annotations

from pathlib import Path

import click

from .shell import region_option, registration_option, source_option, view_choice

_EXAMPLES = """\b
Examples:
    atldld preview 69289763 -o prox1.png
    atldld preview 69289763 -o part.pdf --view expression --region r=2000:4000
"""


@click.command(epilog=_EXAMPLES)
@click.argument("dataset", type=int)
@click.option(
    "-o",
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The picture: a file name with the ending of a format, such as .png or .pdf.",
)
@click.option("--resolution", type=float, default=100, show_default=True, help="Microns a pixel.")
@click.option("--view", type=view_choice, default="image", show_default=True)
@region_option("Only what lies there, in microns; may be given for p, i and r.")
@registration_option
@source_option
def preview(
    dataset: int,
    output: Path,
    resolution: float,
    view: str,
    region: dict[str, tuple[float, float]] | None,
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
