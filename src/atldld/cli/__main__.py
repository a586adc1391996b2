"""``python -m atldld.cli``: the command line without its entry point."""

from . import main

main(prog_name="atldld")
