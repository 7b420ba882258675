"""The cost of a plan before anything is computed: operations, bytes, what fits, and how long it still takes."""

from .cost import Cost
from .fitting import does_not_fit

__all__ = ["Cost", "does_not_fit"]
