"""``atldld demo``: the main job against a stand-in server, start to end."""

from __future__ import annotations

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

# A line of its own with a backspace keeps click from joining the lines below it.
_DEMO_EXAMPLES = """\b
Example:
    atldld demo --output demo.png
"""

DATASET = 1001
Picture = npt.NDArray[np.uint8]


@click.command(epilog=_DEMO_EXAMPLES)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    default=Path("atldld-demo.png"),
    show_default=True,
    help="Where the picture goes.",
)
def demo(output: Path) -> None:
    """Open a phantom brain from a stand-in server, and look at it.

    Nothing leaves this machine: the server runs on loopback for the time of the demo.
    """
    import atldld
    from atldld.testing import AllenServer, PhantomBrain, phantom_dataset

    brain = PhantomBrain(texture="tissue")
    phantom = phantom_dataset(
        dataset_id=DATASET, plane="coronal", tilt=3.0, sections=24, brain=brain
    )
    with (
        tempfile.TemporaryDirectory(prefix="atldld-demo-") as cache,
        AllenServer([phantom]) as server,
        atldld.set_options(api_url=server.url, cache_dir=cache),
    ):
        click.echo(f"A stand-in for the Allen API answers at {server.url}\n")
        click.echo(f">>> sections = atldld.open_dataarray({DATASET})")
        sections = atldld.open_dataarray(DATASET)
        click.echo(f"{sections}\n")
        click.echo(f"Images fetched so far: {len(server.image_requests)}\n")

        click.echo(">>> middle = sections.sel(p=slice(4000, 9000)).compute()")
        began = time.perf_counter()
        middle = _computed(sections.sel(p=slice(4000, 9000)))
        seconds = time.perf_counter() - began
        fetched = server.image_requests
        click.echo(
            f"Read {len(fetched)} images, {sum(each.bytes_sent for each in fetched):,} bytes, "
            f"in {seconds:.2f} seconds\n"
        )

        click.echo(">>> section = sections.sel(p=6600, method='nearest')")
        section = middle.sel(p=6600, method="nearest")
        click.echo(f"Section {int(section.section)} lies at p = {float(section.p):.0f} microns")

    places = [middle.sel(p=p, method="nearest") for p in (4600, 6600, 8600)]
    rows = [
        np.hstack(
            [
                _labelled(each.values, f"section {int(each.section)}, registered"),
                _labelled(
                    brain.plane("coronal", at=float(each.p), step=25.0),
                    f"the phantom at p = {float(each.p):.0f} um",
                ),
            ]
        )
        for each in places
    ]
    _write(np.vstack(rows), output)
    click.echo(f"\nRegistered sections beside the phantom's own planes: {output}")


def _computed(array: Any) -> Any:
    from dask.diagnostics.progress import ProgressBar

    if not sys.stderr.isatty():
        return array.compute()
    with ProgressBar(out=sys.stderr):
        return array.compute()


def _labelled(picture: Picture, text: str) -> Picture:
    """Return a picture on a white ground, twice as large, under a line of text."""
    import cv2

    large = np.repeat(np.repeat(picture, 2, axis=0), 2, axis=1)
    framed = np.full((large.shape[0] + 44, large.shape[1] + 16, 3), 255, dtype=np.uint8)
    framed[36:-8, 8:-8] = large
    cv2.putText(framed, text, (10, 26), cv2.FONT_HERSHEY_SIMPLEX, 0.7, (40, 40, 40), 2, cv2.LINE_AA)
    return framed


def _write(picture: Picture, output: Path) -> None:
    import cv2

    output.parent.mkdir(parents=True, exist_ok=True)
    if not cv2.imwrite(str(output), picture[..., ::-1]):
        raise click.ClickException(f"the picture cannot be written to {output}")
