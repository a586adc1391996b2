"""What leans on private parts of xarray: how its alignment tells indexes apart.

Each thing here says what it leans on; ``tests/arrays/test_internals.py`` fails first where that
changes.
"""

from __future__ import annotations

from typing import Any


class AlignedAs(type):
    """Makes xarray align an index of one class with indexes of another.

    Parameters
    ----------
    kind
        The other class.

    Notes
    -----
    xarray groups the indexes of the objects that it aligns by the names and dimensions of their
    coordinates and by ``type(index)``, as a key of a dict; indexes of two types are not compared
    but refused. `xarray.Dataset.interp` makes a plain index of the labels that it is given, and
    aligns variables of truth values with it. So the class of an index over sections equals that
    of plain indexes as such a key. It then decides itself what it can be matched with.
    """

    _kind: type

    def __new__(
        cls, name: str, bases: tuple[type, ...], names: dict[str, Any], kind: type
    ) -> AlignedAs:
        """Make the class that equals `kind`."""
        made = super().__new__(cls, name, bases, names)
        made._kind = kind
        return made

    def __init__(
        cls, name: str, bases: tuple[type, ...], names: dict[str, Any], kind: type
    ) -> None:
        super().__init__(name, bases, names)

    def __eq__(cls, other: object) -> bool:
        return other is cls or other is cls._kind

    def __hash__(cls) -> int:
        return hash(cls._kind)
