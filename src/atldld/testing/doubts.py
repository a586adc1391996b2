"""What nobody outside knows about the service: each doubt a field, each reading a value."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, get_args, get_type_hints


@dataclass(frozen=True, slots=True)
class Doubts:
    """How a server reads what is documented badly, or not at all.

    A client should do right under every reading. The defaults are the likelier ones.

    Parameters
    ----------
    window_sizes
        What ``width`` and ``height`` count where ``downsample_dimensions`` is absent:
        ``"tier"`` pixels, or ``"full"``-resolution ones that shrink with the image.
    downsample_dimensions
        What that flag does: ``"honoured"`` (``true``: sizes are full-resolution and shrink;
        ``false``: they are tier pixels), ``"inverted"``, or ``"ignored"``.
    tier_origin
        Which pixel of a tier is centred where. ``"floor"``: pixel k of the slide's tier on
        ``k * 2**tier``, and a window begins at tier pixel ``floor(left / 2**tier)``;
        ``"exact"``: pixel k of a window on ``left + k * 2**tier``.
    pixel_centre
        Where integer pixel coordinates point: the ``"centre"`` of a full-resolution pixel, or
        its ``"corner"``.
    outside
        A window that reaches past the slide is ``"pad"`` ded to its size, or ``"clip"`` ped.
    beyond_tiers
        A ``downsample`` of ``tier_count`` or more: ``"clamp"`` ed to the last tier, or
        ``"404"``.
    missing_expression
        No expression image: ``"404"``, or ``"html"``, a page sent with status 200.
    grey_mask
        Which spelling gives the grey levels of an expression image: ``"filter"``
        (``filter=colormap&filterVals=0,1,0,256,0``), ``"colormap"``
        (``colormap=0,1,0,256,0``), ``"both"``, or ``"neither"`` (the heat map comes back).
    redirects
        Whether an image download is redirected to the image service, or answered at once.
    content_type
        Content-Type of images.
    missing_alignment
        A missing ``alignment2d`` or ``alignment3d`` is a ``"null"``, or the key is
        ``"absent"``.
    rma_error_status
        HTTP status of a query that cannot be answered.
    sync_error_status
        HTTP status of a synchronisation that cannot be answered.
    unaligned
        A synchronisation of an image or dataset without alignment gives an ``"error"``, or an
        entry of ``"null"`` s.
    default_rows
        Rows of a page where ``num_rows`` is not given.
    max_rows
        Most rows of a page, whatever is asked for.
    all_rows
        Whether ``num_rows=all`` is ``"capped"`` at `max_rows`, or ``"uncapped"``.
    row_order
        Rows without an ``order`` come as ``"stored"``, or ``"scrambled"``, differently for
        each request.

    Examples
    --------
    >>> Doubts(max_rows=25_000).default_rows
    50
    >>> Doubts(outside="cut")
    Traceback (most recent call last):
    ...
    ValueError: outside is 'cut'; it must be one of 'pad', 'clip'
    """

    window_sizes: Literal["tier", "full"] = "tier"
    downsample_dimensions: Literal["honoured", "inverted", "ignored"] = "honoured"
    tier_origin: Literal["floor", "exact"] = "floor"
    pixel_centre: Literal["centre", "corner"] = "centre"
    outside: Literal["pad", "clip"] = "pad"
    beyond_tiers: Literal["clamp", "404"] = "clamp"
    missing_expression: Literal["404", "html"] = "404"
    grey_mask: Literal["both", "filter", "colormap", "neither"] = "both"
    redirects: bool = True
    content_type: str = "image/jpeg"
    missing_alignment: Literal["null", "absent"] = "null"
    rma_error_status: int = 200
    sync_error_status: int = 200
    unaligned: Literal["error", "null"] = "error"
    default_rows: int = 50
    max_rows: int = 2000
    all_rows: Literal["capped", "uncapped"] = "capped"
    row_order: Literal["stored", "scrambled"] = "stored"

    def __post_init__(self) -> None:
        for name, readings in _readings().items():
            value = getattr(self, name)
            if value not in readings:
                known = ", ".join(repr(reading) for reading in readings)
                raise ValueError(f"{name} is {value!r}; it must be one of {known}")


@lru_cache(maxsize=1)
def _readings() -> dict[str, tuple[str, ...]]:
    """Return the readings of each doubt that has a few."""
    hints = get_type_hints(Doubts)
    return {name: get_args(hint) for name, hint in hints.items() if get_args(hint)}
