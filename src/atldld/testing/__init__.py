"""A phantom brain, slow obvious arithmetic, and a server that speaks the Allen API.

For the demonstration, for the tests of this package, and for the tests of those who build on
it. Nothing here is shared with the rest of the package, so that a mistake cannot cancel.
"""

from __future__ import annotations

from .archive import TiffForm, write_slides
from .atlas import SyntheticAtlas
from .cutting import phantom_dataset
from .datasets import PhantomDataset
from .doubts import Doubts
from .phantom import PhantomBrain
from .served import RecordedFolder, load_recorded
from .server import AllenServer, SpawnedServer
from .traffic import Fault, Request

__all__ = [
    "AllenServer",
    "Doubts",
    "Fault",
    "PhantomBrain",
    "PhantomDataset",
    "RecordedFolder",
    "Request",
    "SpawnedServer",
    "SyntheticAtlas",
    "TiffForm",
    "load_recorded",
    "phantom_dataset",
    "write_slides",
]
