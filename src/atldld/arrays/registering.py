"""What a user gives as another registration: a file, what it holds, or one that is read."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import RegistrationError
from ..model.anchoring import registration_of
from ..model.registration import Registration


def registration_from(value: Any, *, mirror: bool = False) -> Registration:
    """Return the registration that a user gave.

    Parameters
    ----------
    value
        Path of a QuickNII or DeepSlice JSON file; a mapping of its content; a mapping from
        section numbers or image ids to nine numbers; or a `Registration`.
    mirror
        Whether to turn left and right over.

    Raises
    ------
    TypeError
        If it is none of these.
    FileNotFoundError
        If there is no such file.
    RegistrationError
        If the file is no JSON, or does not say where sections lie.
    """
    if isinstance(value, Registration):
        return value
    if isinstance(value, Mapping):
        return registration_of(value, name="a mapping", mirror=mirror)
    if not isinstance(value, str | os.PathLike):
        raise TypeError(
            f"registration is {type(value).__name__}; it must be the path of a QuickNII or "
            "DeepSlice JSON file, or a mapping"
        )
    path = Path(value)
    if not path.is_file():
        raise FileNotFoundError(f"there is no registration file {path}")
    body = path.read_bytes()
    try:
        content = json.loads(body)
    except ValueError as error:
        raise RegistrationError(f"{path.name} is no JSON file: {error}") from None
    if not isinstance(content, Mapping) or "slices" not in content:
        raise RegistrationError(
            f"{path.name} has no slices; it must be a JSON file of QuickNII or DeepSlice"
        )
    return registration_of(
        content, name=path.name, checksum=hashlib.sha256(body).hexdigest(), mirror=mirror
    )
