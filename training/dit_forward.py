"""One forward of the demo transformer over all chunks that a training step needs (teacher forcing).

Every row is a chunk of three latent frames. Rows of one sample: the clean first chunk; unless the later chunk is the
second, the clean chunk before it; `first` noisy first chunks; `later` noisy chunks that start at frame `start`. A later
chunk attends to frame 0, to the two clean frames before it and to itself: the same numbers as the engine's caches.

B batch, R rows, C channels, T frames of a chunk (3), H W latent grid, L tokens of a chunk, N heads, D head dim.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from histream_core.network.forward import embed_time
from histream_core.network.model import WanModel
from histream_core.network.ops.rope import Rope
from histream_core.plan.presets import find_preset

CHUNK = 3
SPAN = find_preset("demo").span


class Rotations:
    """Cache of complex rotations [L, 1, D / 2] of chunks at any time, on one grid of tokens."""

    def __init__(self, rope: Rope) -> None:
        self.rope = rope
        self.known: dict[tuple[int, ...], Tensor] = {}

    def __call__(self, *times: int) -> Tensor:
        if times not in self.known:
            turn = self.rope.table(list(times))
            self.known[times] = torch.complex(turn[..., 0, 0], turn[..., 1, 0])
        return self.known[times]


def rotate(x: Tensor, rotations: Tensor) -> Tensor:
    return torch.view_as_real(torch.view_as_complex(x.float().unflatten(-1, (-1, 2))) * rotations).flatten(-2)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Attention of [..., L, N, D] over [..., K, N, D]; leading dimensions are a batch."""
    lead = q.shape[:-3]
    q, k, v = (x.flatten(0, len(lead) - 1).transpose(1, 2).to(v.dtype) for x in (q, k, v))
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).unflatten(0, lead)


def patches(rows: Tensor) -> Tensor:
    """Patchify [B, R, C, T, H, W] to [B, R, L, C * 4]."""
    b, r, c, t, h, w = rows.shape
    cut = rows.reshape(b, r, c, t, h // 2, 2, w // 2, 2).permute(0, 1, 3, 4, 6, 2, 5, 7)
    return cut.reshape(b, r, t * h * w // 4, c * 4)


def unpatch(tokens: Tensor, frames: int, height: int, width: int) -> Tensor:
    """Unpatchify [B, R, L, 4 * C] to [B, R, C, T, H, W]; within a token the channel is the last index."""
    b, r = tokens.shape[:2]
    cells = tokens.reshape(b, r, frames, height // 2, width // 2, 2, 2, -1).permute(0, 1, 7, 2, 3, 5, 4, 6)
    return cells.reshape(b, r, -1, frames, height, width)


def flow(
    model: WanModel,
    text: Tensor,
    clean: Tensor,
    first: Tensor,
    later: Tensor,
    sigma_first: Tensor,
    sigma_later: Tensor,
    *,
    start: int,
    rotations: Rotations,
    first_attention_scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """Flows of the noisy rows, [B, first, C, T, H, W] and [B, later, C, T, H, W].

    `clean` [B, 0 to 2, C, T, H, W]: the first chunk and, where `start` is beyond the second chunk, the one before
    `start`; none where there are no later rows. `first_attention_scale` is of self-attention in chunk 0.
    """
    num_clean, num_first, num_later = clean.shape[1], first.shape[1], later.shape[1]
    noisy_from = num_clean
    rows = torch.cat([clean, first, later], dim=1)
    b, r, _, frames, height, width = rows.shape
    per_frame = height * width // 4
    heads = (model.num_heads, -1)

    x = F.linear(patches(rows), model.patch_embedding.weight.flatten(1), model.patch_embedding.bias)
    sigma = torch.cat([sigma_first.new_zeros(b, num_clean), sigma_first, sigma_later], dim=1)
    time = model.time_embedding(embed_time(1000 * sigma.flatten(), model.freq_dim)).unflatten(0, (b, r))
    time6 = model.time_projection(time).unflatten(2, (6, -1))
    words = model.text_embedding(text)

    before = range(start - CHUNK, start)
    turns = torch.stack(
        [rotations(0, 1, 2)] * min(1, num_clean)
        + [rotations(*before)] * max(0, num_clean - 1)
        + [rotations(0, 1, 2)] * num_first
        + [rotations(*range(start, start + CHUNK))] * num_later
    )
    anchor_time, anchor_time_before = max(0, start - SPAN), max(0, start - CHUNK - SPAN)
    last = len(model.blocks) - 1
    for layer, block in enumerate(model.blocks):
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (block.modulation[:, None] + time6).unsqueeze(3).unbind(2)
        y = torch.addcmul(shift, block.norm1(x), 1 + scale)
        attention = block.self_attn
        q, raw = (
            attention.norm_q(attention.q(y)).unflatten(3, heads),
            attention.norm_k(attention.k(y)).unflatten(3, heads),
        )
        q, k, v = rotate(q, turns), rotate(raw, turns), attention.v(y).unflatten(3, heads)

        alone = [0] * (num_clean > 0 and layer < last) + [*range(noisy_from, noisy_from + num_first)]
        out = attend(first_attention_scale * q[:, alone], k[:, alone], v[:, alone]) if alone else q[:, :0]
        parts = list(out.split([len(alone) - num_first, num_first], dim=1))
        anchor_v = v[:, :1, :per_frame]

        def anchor(time: int, raw: Tensor = raw) -> Tensor:
            return rotate(raw[:, :1, :per_frame], rotations(time))

        if num_clean == 2 and layer < last:
            seen_k, seen_v = torch.cat([anchor(anchor_time_before), k[:, 1:2]], 2), torch.cat([anchor_v, v[:, 1:2]], 2)
            parts.insert(1, attend(q[:, 1:2], seen_k, seen_v))
        if num_later:
            rows_later = slice(noisy_from + num_first, None)
            local_k, local_v = (z[:, num_clean - 1 : num_clean, per_frame:] for z in (k, v))
            past_k = torch.cat([anchor(anchor_time), local_k], 2).expand(-1, num_later, -1, -1, -1)
            past_v = torch.cat([anchor_v, local_v], 2).expand(-1, num_later, -1, -1, -1)
            seen_k, seen_v = torch.cat([past_k, k[:, rows_later]], 2), torch.cat([past_v, v[:, rows_later]], 2)
            parts.append(attend(q[:, rows_later], seen_k, seen_v))
        y = torch.cat(parts, dim=1).flatten(3)
        if layer == last:  # the clean rows are not read any more
            x, gate, ffn_shift, ffn_scale, ffn_gate = (
                z[:, noisy_from:] for z in (x, gate, ffn_shift, ffn_scale, ffn_gate)
            )
        x = torch.addcmul(x, attention.o(y), gate)

        cross = block.cross_attn
        q = cross.norm_q(cross.q(block.norm3(x))).flatten(1, 2).unflatten(2, heads)
        k, v = cross.norm_k(cross.k(words)).unflatten(2, heads), cross.v(words).unflatten(2, heads)
        x = x + cross.o(attend(q, k, v).flatten(2)).unflatten(1, x.shape[1:3])
        y = block.ffn(torch.addcmul(ffn_shift, block.norm2(x), 1 + ffn_scale))
        x = torch.addcmul(x, y, ffn_gate)

    shift, scale = (model.head.modulation[:, None] + time[:, noisy_from:].unsqueeze(2)).unsqueeze(3).unbind(2)
    x = model.head.head(torch.addcmul(shift, model.head.norm(x), 1 + scale))
    return unpatch(x, frames, height, width).split([num_first, num_later], dim=1)
