"""Pictures of sections and volumes on their reference axes.

The libraries that draw are imported by the functions that need them.
"""

from .browsing import browse
from .footprints import placement
from .plotting import plot

__all__ = ["browse", "placement", "plot"]
