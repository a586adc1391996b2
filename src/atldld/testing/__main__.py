"""Run the stand-in server: ``python -m atldld.testing``."""

from __future__ import annotations

import signal
import threading
from dataclasses import asdict
from typing import Any

import click

from .cutting import phantom_dataset
from .doubts import Doubts
from .phantom import PhantomBrain
from .served import load_recorded
from .server import AllenServer


@click.command()
@click.option("--port", default=0, help="Port on loopback; 0 takes a free one.")
@click.option("--latency", default=0.0, help="Seconds before each answer.")
@click.option("--no-redirects", is_flag=True, help="Answer image downloads at once.")
@click.option("--doubt", "doubts", multiple=True, metavar="NAME=VALUE", help="A field of Doubts.")
@click.option("--recorded", multiple=True, type=click.Path(exists=True, file_okay=False))
@click.option("--dataset-id", default=1001, help="Id of the phantom dataset.")
@click.option(
    "--plane", default="coronal", type=click.Choice(["coronal", "sagittal", "transverse"])
)
@click.option("--tilt", default=3.0, help="Degrees.")
@click.option("--sections", default=12, help="How many; 0 for no phantom.")
@click.option("--resolution", default=8.0, help="Microns per full-resolution pixel.")
@click.option("--image-size", type=(int, int), default=None, metavar="WIDTH HEIGHT")
@click.option("--slides", is_flag=True, help="Four sections on each slide.")
@click.option(
    "--texture", default="tissue", type=click.Choice(["tissue", "smooth", "fine", "linear"])
)
@click.option("--prepare", type=int, multiple=True, help="Tier to encode beforehand.")
def main(**options: Any) -> None:
    """Serve a phantom brain, or recorded data, as the Allen API would.

    Prints the base URL as its first line, and serves until it is interrupted.
    """
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with _from_options(options) as server:
        if options["prepare"]:
            server.prepare(tiers=options["prepare"])
        print(server.url, flush=True)
        ended.wait()


def _from_options(options: dict[str, Any]) -> AllenServer:
    sources: list[Any] = [load_recorded(folder) for folder in options["recorded"]]
    if options["sections"]:
        sources.append(
            phantom_dataset(
                options["dataset_id"],
                options["plane"],
                options["tilt"],
                options["sections"],
                PhantomBrain(options["texture"]),
                resolution=options["resolution"],
                slides=options["slides"],
                image_size=options["image_size"],
            )
        )
    defaults = asdict(Doubts())
    chosen: dict[str, Any] = {}
    for pair in options["doubts"]:
        name, _, value = pair.partition("=")
        if name not in defaults:
            raise click.BadParameter(f"{name!r}; there are {', '.join(defaults)}")
        kind = type(defaults[name])
        chosen[name] = value.lower() in ("true", "1", "yes") if kind is bool else kind(value)
    if options["no_redirects"]:
        chosen["redirects"] = False
    return AllenServer(
        sources, port=options["port"], latency=options["latency"], doubts=Doubts(**chosen)
    )


if __name__ == "__main__":
    main(prog_name="python -m atldld.testing")
