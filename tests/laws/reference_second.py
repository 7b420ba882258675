"""The network of `reference.py` with two sets of weights, as SGF+ has them: one for clean frames, one for the others.

Every segment keeps its tokens to itself; in self-attention alone it looks at those of others.
B batch, C channels, T latent frames, H W latent grid, L tokens, N heads, D head dim, E model width.
"""

import torch
from laws.reference import Positions, Segment, attend
from torch import Tensor


def flow_of_two(model, segments: list[Segment], positions: Positions, nag: float = 1.0) -> Tensor:
    """Run all segments, clean ones by the second set; what comes back is the flow of the last one, [B, C, T, H, W]."""
    assert nag == 1  # there is no negative prompt here
    (h, w), heads = positions.grid, (model.num_heads, -1)
    sets = [model if segment.timestep else model.second for segment in segments]
    frames = [frame for segment in segments for frame in segment.frames]
    place = torch.arange(len(frames)).repeat_interleave(h * w // 4)
    ends = torch.tensor([len(segment.frames) for segment in segments]).cumsum(0).tolist()
    xs, es, texts = [], [], []
    for weights, segment in zip(sets, segments, strict=True):
        half = model.freq_dim // 2
        angle = segment.timestep * 10000.0 ** (-torch.arange(half).float() / half)
        e = weights.time_embedding(torch.cat((angle.cos(), angle.sin()))[None])
        es.append((e, weights.time_projection(e).unflatten(1, (6, -1))))
        texts.append(weights.text_embedding(segment.text))
        xs.append(weights.patch_embedding(segment.latents).flatten(2).transpose(1, 2))
    for layer in range(len(model.blocks)):
        blocks = [weights.blocks[layer] for weights in sets]
        ms = [(block.modulation + e6).unbind(1) for block, (_, e6) in zip(blocks, es, strict=True)]
        ys = [block.norm1(x) * (1 + m[1]) + m[0] for block, x, m in zip(blocks, xs, ms, strict=True)]
        atts = [block.self_attn for block in blocks]
        k = torch.cat([a.norm_k(a.k(y)).unflatten(2, heads) for a, y in zip(atts, ys, strict=True)], dim=1)
        v = torch.cat([a.v(y).unflatten(2, heads) for a, y in zip(atts, ys, strict=True)], dim=1)
        for i, (segment, block, m) in enumerate(zip(segments, blocks, ms, strict=True)):
            mine = range(ends[i] - len(segment.frames), ends[i])
            seen = torch.isin(place, torch.tensor([*mine, *segment.seen]))
            q = atts[i].norm_q(atts[i].q(ys[i])).unflatten(2, heads)
            q = positions.rotate(q, positions.times(segment.frames, segment.start))
            turned = positions.rotate(k, positions.times(frames, segment.start))
            x = xs[i] + atts[i].o(attend(q, turned, v, segment.scale, seen)) * m[2]
            y, cross = block.norm3(x), block.cross_attn
            of_text = cross.norm_k(cross.k(texts[i])).unflatten(2, heads), cross.v(texts[i]).unflatten(2, heads)
            x = x + cross.o(attend(cross.norm_q(cross.q(y)).unflatten(2, heads), *of_text))
            xs[i] = x + block.ffn(block.norm2(x) * (1 + m[4]) + m[3]) * m[5]
    head, (e, _) = sets[-1].head, es[-1]
    m = (head.modulation + e[:, None]).unbind(1)
    x = head.head(head.norm(xs[-1]) * (1 + m[1]) + m[0])
    x = x.unflatten(2, (2, 2, -1)).unflatten(1, (-1, h // 2, w // 2))  # [B, T, h, w, 2, 2, C]
    return x.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)
