"""The command line: one module a command group."""

from __future__ import annotations

import click

from .. import __version__
from .cache import cache
from .demo import demo
from .doctor import doctor
from .pack import pack, verify


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, package_name="atldld")
def main() -> None:
    """Section datasets of the Allen Brain Atlas as lazy arrays in reference space."""


main.add_command(cache)
main.add_command(demo)
main.add_command(doctor)
main.add_command(pack)
main.add_command(verify)
