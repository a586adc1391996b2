"""``atldld demo``, ``serve`` and ``doctor``: trying it out, and what a service is like."""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import numpy as np
import numpy.typing as npt

from .shell import examples, json_option, print_json

DATASET = 1001
Picture = npt.NDArray[np.uint8]


@click.command(epilog=examples("atldld demo --output demo.png"))
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


SAGITTAL = 69289763
CORONAL = 1002


@click.command(
    epilog=examples(
        "atldld serve --port 8000",
        "ATLDLD_API_URL=http://127.0.0.1:8000/api/v2 atldld search Prox1",
    )
)
@click.option("--port", default=8000, show_default=True, help="On loopback; 0 takes a free one.")
@click.option("--latency", default=0.0, help="Seconds before each answer.")
def serve(port: int, latency: float) -> None:
    """Serve a made-up brain as the Allen API serves real ones, until Ctrl-C.

    There are a sagittal dataset, under the id that the pages of the documentation use, a coronal
    one, and a made-up atlas. Nothing leaves this machine.
    """
    import threading

    from ..testing import AllenServer, phantom_dataset

    brains = [
        phantom_dataset(SAGITTAL, "sagittal", 1, 18, gene="Prox1", first_image_id=69177647),
        phantom_dataset(CORONAL, "coronal", 2, 24, gene="Prox1"),
    ]
    with AllenServer(brains, port=port, latency=latency) as server:
        click.echo(f"Datasets {SAGITTAL} (sagittal) and {CORONAL} (coronal) at {server.url}")
        click.echo("In another terminal, before Python or atldld is started:")
        click.echo(f"    export ATLDLD_API_URL={server.url}")
        click.echo("Or in Python:")
        click.echo(f'    atldld.set_options(api_url="{server.url}")')
        click.echo("Ctrl-C ends it.")
        try:
            threading.Event().wait()
        except KeyboardInterrupt:
            click.echo("Ended.", err=True)


@click.command(
    epilog=examples(
        "atldld doctor",
        "atldld doctor http://127.0.0.1:8000/api/v2 --dataset 1001 --json",
        "atldld doctor --source s3://allen-mouse-brain-atlas",
    )
)
@click.argument("url", required=False)
@click.option("--dataset", type=click.IntRange(min=0), help="Ask about this dataset.")
@json_option
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True, max=600),
    default=20.0,
    show_default=True,
    help="Seconds for one request.",
)
@click.option("--source", metavar="URL|PATH", help="A bucket of slides to ask instead.")
def doctor(
    url: str | None, dataset: int | None, as_json: bool, timeout: float, source: str | None
) -> None:
    """Ask the service at URL what nobody has written down about it.

    About thirty small requests, at most five minutes. Without URL it asks the Allen API; with
    --source a bucket of slides: what its TIFFs are like. What it prints can be pasted into the
    issue template "Answers of the service".
    """
    from .. import __version__
    from ..options import current
    from ..reading.bucket_doctor import examine_bucket
    from ..reading.doctor import examine
    from ..source import source_from
    from ..source.bucket import BucketSource
    from ..urls import base_url, without_credentials

    if source is not None:
        origin = source_from(source)
        if url is not None or not isinstance(origin, BucketSource):
            raise click.UsageError("--source names a bucket of slides, alone; a service is URL")
        name, findings = origin.name, examine_bucket(origin, dataset)
    else:
        address = current().api_url if url is None else url
        try:
            name = without_credentials(base_url(address))
            findings = examine(address, dataset_id=dataset, timeout=timeout)
        except ValueError as error:
            raise click.UsageError(str(error)) from error
    if as_json:
        found = [asdict(finding) for finding in findings]
        print_json({"service": name, "atldld": __version__, "findings": found})
    else:
        click.echo(f"atldld {__version__} asked {name}\n")
        for finding in findings:
            click.echo(
                f"- {finding.question}: **{finding.answer or 'not told'}** ({finding.detail})"
            )
    if findings[0].answer != "yes":
        raise SystemExit(1)
