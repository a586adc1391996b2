"""``atldld serve``: a stand-in for the Allen API on this machine, to try everything with."""

from __future__ import annotations

import click

_EXAMPLES = """\b
Example:
    atldld serve --port 8000
    ATLDLD_API_URL=http://127.0.0.1:8000/api/v2 atldld search Prox1
"""

SAGITTAL = 69289763
CORONAL = 1002


@click.command(epilog=_EXAMPLES)
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
