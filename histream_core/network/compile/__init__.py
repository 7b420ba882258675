"""Ways to save the CPU's work in a pass: layers compiled by torch.compile, passes replayed as CUDA graphs.

Both promise few graphs, none of which is made again for another prompt, and a warning instead of an error where a
compiler or a recorder fails: the run then goes on uncompiled. The package is imported only by runs that have chosen it.
"""

from .graphs import CudaRecorder, GraphedForward
from .layers import CompiledBlocks

__all__ = ["CompiledBlocks", "CudaRecorder", "GraphedForward"]
