"""A progress bar on a terminal, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from .. import options


class Progress(Protocol):
    """What is told of steps."""

    def update(self, n_steps: int) -> None:
        """Go on by some steps."""


class _Silent:
    def update(self, n_steps: int) -> None:
        """Say nothing."""


@contextmanager
def progress(length: int, label: str) -> Iterator[Progress]:
    """Show how far a loop is, where ``set_options(progress=...)`` or a terminal wants it.

    Parameters
    ----------
    length
        Number of steps.
    label
        What is being done.
    """
    wanted = options.current().progress
    shown = sys.stderr.isatty() if wanted is None else wanted
    if not shown or not length:
        yield _Silent()
        return
    import click

    with click.progressbar(length=length, label=label, file=sys.stderr, show_pos=True) as bar:
        yield bar
