"""What a user looks for among section datasets: checked, and held against what is found."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from .checks import LARGEST_ID, listed, near, whole_number
from .space import PLANES, plane_of_section, plane_of_section_ids

_OTHER_PLANES = {"variable": 4, "n/a": 5, "tangential": 1082279372}
PLANE_NAMES = (*PLANES, *_OTHER_PLANES)
"""What can be searched for; only the first three can be opened."""

_LONGEST_TERM = 200
_MOST_WILDCARDS = 20


@dataclass(frozen=True, slots=True)
class SearchTerms:
    """Conditions that a dataset meets; empty ones say nothing.

    Parameters
    ----------
    genes
        Acronyms, of which it has one; a ``*`` stands for any text. Case does not matter.
    planes
        Of `PLANE_NAMES`, of which it has one.
    products
        Ids, or names or abbreviations as in `genes`, of which it has one.
    specimens
        Ids, or names as in `genes`, of which it has one.
    dataset_ids, image_ids
        Of which it has one.
    failed
        Whether it failed quality control; None: either.
    """

    genes: tuple[str, ...] = ()
    planes: tuple[str, ...] = ()
    products: tuple[int | str, ...] = ()
    specimens: tuple[int | str, ...] = ()
    dataset_ids: tuple[int, ...] = ()
    image_ids: tuple[int, ...] = ()
    failed: bool | None = None

    @classmethod
    def checked(
        cls,
        *,
        gene: Any = None,
        plane: Any = None,
        product: Any = None,
        specimen: Any = None,
        dataset_id: Any = None,
        image_id: Any = None,
        failed: Any = False,
    ) -> SearchTerms:
        """Return the terms in their own types, or say which of them is wrong.

        Each is one value or several; None says nothing.

        Raises
        ------
        ValueError, TypeError
            If one of them cannot be searched for.

        Examples
        --------
        >>> SearchTerms.checked(gene="Prox*", plane="Sagittal").planes
        ('sagittal',)
        >>> SearchTerms.checked(plane="sagital")
        Traceback (most recent call last):
        ...
        ValueError: plane is 'sagital'; did you mean 'sagittal'? It must be one of 'coronal', \
'sagittal', 'transverse', 'variable', 'n/a', 'tangential'
        """
        if failed is not None and not isinstance(failed, bool):
            raise TypeError(f"failed is {failed!r}; it must be True, False or None for either")
        return cls(
            genes=tuple(_text("gene", each) for each in _several("gene", gene)),
            planes=tuple(_plane(each) for each in _several("plane", plane)),
            products=tuple(_id_or_text("product", each) for each in _several("product", product)),
            specimens=tuple(
                _id_or_text("specimen", each) for each in _several("specimen", specimen)
            ),
            dataset_ids=_ids("dataset_id", dataset_id),
            image_ids=tuple(_id("image_id", each) for each in _several("image_id", image_id)),
            failed=failed,
        )

    @property
    def plane_ids(self) -> tuple[int, ...]:
        """The service's ids of the planes."""
        ids: list[int] = []
        for name in self.planes:
            ids += plane_of_section_ids(PLANES[name]) if name in PLANES else [_OTHER_PLANES[name]]
        return tuple(ids)


def chosen_ids(name: str, chosen: Any) -> tuple[int, ...]:
    """Return the ids of the datasets that were chosen, each once and at least one.

    Parameters
    ----------
    name
        Of the argument, for messages.
    chosen
        One id, several, or a table with a column ``dataset_id``, such as `search` gives.

    Raises
    ------
    ValueError, TypeError
        If it is none of these.

    Examples
    --------
    >>> chosen_ids("dataset_ids", 7), chosen_ids("dataset_ids", [7, 8])
    ((7,), (7, 8))
    """
    ids = _ids(name, chosen, "there is nothing to open")
    twice = [str(each) for each, count in Counter(ids).items() if count > 1]
    if twice or not ids:
        why = f"names {listed(twice, 10)} more than once" if twice else "is None"
        raise ValueError(f"{name} {why}; it must be one id or more, each once")
    return ids


def plane_name(plane_of_section_id: int | None) -> str:
    """Return what a PlaneOfSection id is called in a search, or an empty text.

    Examples
    --------
    >>> plane_name(8), plane_name(5), plane_name(None)
    ('sagittal', 'n/a', '')
    """
    plane = plane_of_section(plane_of_section_id)
    if plane is not None:
        return plane.name
    return {number: name for name, number in _OTHER_PLANES.items()}.get(
        -1 if plane_of_section_id is None else plane_of_section_id, ""
    )


def fits(term: str, text: str) -> bool:
    """Whether a text is what a term says, whatever the case; a ``*`` stands for any text.

    Examples
    --------
    >>> fits("prox1", "Prox1"), fits("Prox*", "Prox2"), fits("*ox", "Prox1"), fits("a*a", "a")
    (True, True, False, False)
    """
    first, *others = term.casefold().split("*")
    text = text.casefold()
    if not others:
        return text == first
    *middle, last = others
    if len(text) < len(first) + len(last) or not (text.startswith(first) and text.endswith(last)):
        return False
    place, end = len(first), len(text) - len(last)
    for part in middle:
        place = text.find(part, place, end)
        if place < 0:
            return False
        place += len(part)
    return True


def _several(name: str, value: Any, empty: str = "leave it out for any") -> list[Any]:
    if value is None:
        return []
    if isinstance(value, str | bytes | dict) or not isinstance(value, Iterable):
        return [value]
    try:
        values = list(value)
    except TypeError:
        # An array of no dimension says that it can be iterated over, and cannot.
        return [value]
    if not values:
        raise ValueError(f"{name} is an empty {type(value).__name__}; {empty}")
    return values


def _ids(name: str, value: Any, empty: str = "leave it out for any") -> tuple[int, ...]:
    """Return one id, several, or those of a table."""
    if hasattr(value, "columns"):
        if "dataset_id" not in value.columns:
            raise ValueError(
                f"{name} is a table with columns {listed(map(str, value.columns), 8)}; it needs "
                "dataset_id, as those of search() and catalogue().datasets have"
            )
        value = value["dataset_id"]
    return tuple(_id(name, each) for each in _several(name, value, empty))


def _text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is {value!r}; it must be a text, such as 'Prox1' or 'Prox*'")
    text = value.strip()
    if not text or len(text) > _LONGEST_TERM or text.count("*") > _MOST_WILDCARDS:
        raise ValueError(
            f"{name} is {value[:_LONGEST_TERM]!r}; it must have 1 to {_LONGEST_TERM} characters, "
            f"at most {_MOST_WILDCARDS} of them *"
        )
    if not text.isprintable() or any(character in text for character in "'\"[]\\"):
        raise ValueError(
            f"{name} is {value!r}; quotes, brackets, backslashes and line ends cannot be asked "
            "for: put * in their place"
        )
    return text


def _plane(value: Any) -> str:
    text = _text("plane", value)
    name = text.casefold()
    if name not in PLANE_NAMES:
        raise ValueError(
            f"plane is {text!r}; {near(text, PLANE_NAMES)}It must be one of {listed(PLANE_NAMES)}"
        )
    return name


def _id(name: str, value: Any) -> int:
    return whole_number(name, value, 0, LARGEST_ID)


def _id_or_text(name: str, value: Any) -> int | str:
    return _text(name, value) if isinstance(value, str) else _id(name, value)
