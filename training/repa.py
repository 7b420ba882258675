"""REPA (arXiv 2410.06940; StreamDiffusionV2, arXiv 2511.07399, appendix B): alignment of hidden states with features.

A projection of the hidden state of every token is pulled towards features of the clean clip, by cosine similarity. The
paper's features are DINOv2's. Here they are the painter's geometry of every cell (`data.describe`: shape, distance to
the outline, colours, direction): no download is needed, no encoder could know more of this world, and the demo model is
slow to learn exactly this, which shape an outline belongs to.
"""

import torch
from torch import Tensor, nn

from histream_core.stream.resize import resize


def targets(geometry: Tensor) -> Tensor:
    """Features of tokens [B, T * H/2 * W/2, K] from the geometry of cells [B, K, T, H, W]."""
    height, width = geometry.shape[-2:]
    features = resize(geometry, (height // 2, width // 2), "area").flatten(2).transpose(1, 2)
    return features - features.mean((0, 1), keepdim=True)


def alignment_loss(projection: nn.Module, hidden: Tensor, features: Tensor) -> Tensor:
    """Mean of 1 - cosine similarity of projected hidden states [..., L, dim] and features [..., L, K]."""
    return 1 - torch.nn.functional.cosine_similarity(projection(hidden).float(), features, dim=-1).mean()


def layer(num_layers: int) -> int:
    """Index of the block whose input is aligned: half-way, as REPA aligns early layers."""
    return max(1, num_layers // 2)
