"""The command line: ``atldld``, one module a command group."""

from __future__ import annotations

import click

from .. import __version__
from .cache import cache
from .catalogue import catalogue
from .demo import demo
from .download import download
from .find import info, search
from .pack import pack, verify
from .preview import preview
from .serve import serve
from .service import doctor
from .shell import Commands
from .volume import volume

_EXAMPLES = """\b
Examples:
    atldld search Prox1
    atldld preview 69289763 -o prox1.png
"""


@click.group(
    cls=Commands, context_settings={"help_option_names": ["-h", "--help"]}, epilog=_EXAMPLES
)
@click.version_option(__version__, package_name="atldld")
def main() -> None:
    """Section datasets of the Allen Brain Atlas as lazy arrays in reference space."""


for command in (
    cache, catalogue, demo, doctor, download, info, pack, preview, search, serve, verify, volume,
):  # fmt: skip
    main.add_command(command)
