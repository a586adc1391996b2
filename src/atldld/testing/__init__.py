"""A phantom brain, slow obvious arithmetic, and a server that speaks the Allen API.

For the demonstration, for the tests of this package, and for the tests of those who build on
it. Nothing here is shared with the rest of the package, so that a mistake cannot cancel.
"""

from __future__ import annotations

from .datasets import PhantomDataset, phantom_dataset
from .phantom import PhantomBrain

__all__ = ["PhantomBrain", "PhantomDataset", "phantom_dataset"]
