"""The command line: ``atldld``, a module for finding, writing, keeping and trying."""

from __future__ import annotations

import click

from .. import __version__
from .finding import catalogue, info, search
from .keeping import cache, pack, verify
from .shell import Commands, examples
from .trying import demo, doctor, serve
from .writing import download, preview, volume


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog=examples("atldld search Prox1", "atldld preview 69289763 -o prox1.png"),
)
@click.version_option(__version__, package_name="atldld")
def main() -> None:
    """Section datasets of the Allen Brain Atlas as lazy arrays in reference space."""


for command in (
    cache, catalogue, demo, doctor, download, info, pack, preview, search, serve, verify, volume,
):  # fmt: skip
    main.add_command(command)
