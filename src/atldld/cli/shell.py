"""What all commands share: how they end, what they say, and the options that they have in common.

Status 0: done. 1: something could not be had or written; one line on stderr says what. 2: it was
asked for wrongly. 130: stopped by Ctrl-C; the same command goes on where it stopped.
"""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar

import click

from ..errors import AtldldError, AtldldWarning
from ..model.read import VIEWS

_Command = TypeVar("_Command", bound=Callable[..., Any])
Region = dict[str, tuple[float, float]]


class Commands(click.Group):
    """A group of commands that end as this module says."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        if os.environ.get("NO_COLOR"):
            ctx.color = False
        try:
            with _plain_warnings():
                return super().invoke(ctx)
        except AtldldError as error:
            _end(ctx, error, 1)
        except (ValueError, TypeError) as error:
            # Arguments are checked where they are used; that is where these come from.
            _end(ctx, error, 2)
        except (ImportError, OSError) as error:
            if isinstance(error, BrokenPipeError):
                raise
            _end(ctx, error, 1)
        except (KeyboardInterrupt, click.Abort):
            _say("Stopped. The same command goes on where this one stopped.", None)
            ctx.exit(130)


def examples(*commands: str) -> str:
    """Return the end of a command's help: what to type, a line each."""
    # A line of its own with a backspace keeps click from joining the lines below it.
    lines = ["Example:" if len(commands) == 1 else "Examples:", *commands]
    return "\b\n" + "\n    ".join(lines)


source_option = click.option(
    "--source",
    metavar="URL|PATH",
    help="Base URL of a service, or path or URL of a bundle; by default the Allen API.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
registration_option = click.option(
    "--registration",
    metavar="PATH|URL",
    help="Another registration: a file of QuickNII, VisuAlign or DeepSlice, or the folder or URL "
    "of a published one.",
)
skip_failed_option = click.option(
    "--skip-failed", is_flag=True, help="Finish without the images that cannot be had."
)
view_option = click.option("--view", type=click.Choice(VIEWS), default="image", show_default=True)
views_option = click.option(
    "--view",
    "views",
    type=click.Choice(VIEWS),
    multiple=True,
    default=("image",),
    show_default=True,
    help="May be given more than once.",
)


def id_or_name(text: str) -> int | str:
    """Return what a user typed as an id if it can be one."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else text


def region_option(words: str) -> Callable[[_Command], _Command]:
    """Return the option ``--region AXIS=LOW:HIGH``."""
    return click.option(
        "--region", multiple=True, callback=_region, metavar="AXIS=LOW:HIGH", help=words
    )


def _region(
    context: click.Context, parameter: click.Parameter, spans: tuple[str, ...]
) -> Region | None:
    """Return the region that ``AXIS=LOW:HIGH`` options name, or None without any."""
    region: Region = {}
    for span in spans:
        axis, _, ends = span.partition("=")
        low, _, high = ends.partition(":")
        try:
            region[axis] = float(low), float(high)
        except ValueError:
            raise click.BadParameter(f"{span!r} is not like p=6000:7000") from None
    return region or None


def print_json(values: Any) -> None:
    """Print values as JSON."""
    click.echo(json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False))


def table_text(headings: Sequence[str], rows: Sequence[Sequence[Any]], widest: int = 40) -> str:
    """Return a table for people: columns under headings, long texts cut, numbers to the right.

    Examples
    --------
    >>> print(table_text(["id", "gene"], [[7, "Prox1"], [69289763, "x" * 9]], widest=6))
          id  gene
           7  Prox1
    69289763  xxx...
    """
    texts = [[_cell(value, widest) for value in row] for row in rows]
    right = [
        bool(rows)
        and all(isinstance(row[k], int | float) and not isinstance(row[k], bool) for row in rows)
        for k in range(len(headings))
    ]
    widths = [
        max(len(heading), *(len(row[k]) for row in texts)) if texts else len(heading)
        for k, heading in enumerate(headings)
    ]
    lines = []
    for row in [list(headings), *texts]:
        cells = [
            text.rjust(width) if numbers else text.ljust(width)
            for text, width, numbers in zip(row, widths, right, strict=True)
        ]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def _cell(value: Any, widest: int) -> str:
    if isinstance(value, bool):
        return "yes" if value else ""
    if isinstance(value, int):
        return str(value)
    text = ("" if value != value else f"{value:g}") if isinstance(value, float) else str(value)
    return text if len(text) <= widest else text[: widest - 3] + "..."


@contextmanager
def _plain_warnings() -> Iterator[None]:
    """Show each warning of this package as one line."""
    with warnings.catch_warnings():
        shown = warnings.showwarning

        def show(message: Any, category: type[Warning], *where: Any, **more: Any) -> None:
            if issubclass(category, AtldldWarning):
                _say(f"Warning: {_line(str(message))}", "yellow")
            else:
                shown(message, category, *where, **more)

        warnings.showwarning = show
        yield


def _end(context: click.Context, error: Exception, status: int) -> NoReturn:
    words = _line(" ".join([str(error), *getattr(error, "__notes__", [])]))
    _say(f"Error: {words or type(error).__name__}", "red")
    context.exit(status)


def _line(text: str) -> str:
    return " ".join(text.split())


def _say(text: str, colour: str | None) -> None:
    head, colon, rest = text.partition(":") if colour else (text, "", "")
    click.echo(click.style(head + colon, fg=colour) + rest if colour else text, file=sys.stderr)
