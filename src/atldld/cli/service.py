"""``atldld doctor``: what nobody has written down about a service, asked of it."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

# A line of its own with a backspace keeps click from joining the lines below it.
_DOCTOR_EXAMPLES = """\b
Examples:
    atldld doctor
    atldld doctor http://127.0.0.1:8000/api/v2 --dataset 1001 --json
    atldld doctor --source s3://allen-mouse-brain-atlas
"""


@click.command(epilog=_DOCTOR_EXAMPLES)
@click.argument("url", required=False)
@click.option("--dataset", type=click.IntRange(min=0), help="Ask about this dataset.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
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
        click.echo(
            json.dumps({"service": name, "atldld": __version__, "findings": found}, indent=2)
        )
    else:
        click.echo(f"atldld {__version__} asked {name}\n")
        for finding in findings:
            click.echo(
                f"- {finding.question}: **{finding.answer or 'not told'}** ({finding.detail})"
            )
    if findings[0].answer != "yes":
        raise SystemExit(1)
