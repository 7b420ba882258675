"""REPA (arXiv 2410.06940; StreamDiffusionV2, arXiv 2511.07399, appendix B): hidden states that say what is where.

A projection of the hidden state of every token is pulled towards features of the clean clip, by cosine similarity. The
paper's features are DINOv2's. Here they are the painter's own description of every cell (`data.describe`: shape,
distance to the outline, colours, direction): it needs no download, it is what any encoder could at best find out about
this world, and it says exactly what the demo model is slow to learn, which shape an outline belongs to.
"""

import torch
from torch import Tensor, nn

from histream_core.stream.stream import resize


def targets(geometry: Tensor) -> Tensor:
    """Features of tokens [B, T * H/2 * W/2, K] out of the geometry of cells [B, K, T, H, W]."""
    height, width = geometry.shape[-2:]
    features = resize(geometry, (height // 2, width // 2), "area").flatten(2).transpose(1, 2)
    return features - features.mean((0, 1), keepdim=True)


def alignment_loss(projection: nn.Module, hidden: Tensor, features: Tensor) -> Tensor:
    """1 - cosine similarity of projected hidden states [..., L, dim] and features [..., L, K], averaged."""
    return 1 - torch.nn.functional.cosine_similarity(projection(hidden).float(), features, dim=-1).mean()


def layer(num_layers: int) -> int:
    """The block whose input is aligned: half-way, as REPA aligns early rather than late."""
    return max(1, num_layers // 2)
