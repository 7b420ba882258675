"""HiStream (arXiv 2512.21338) a second time, slow and without caches: what the engine has to equal.

Every pass puts the whole past into one sequence of frames, in the order in which a cache would have seen them
(clean chunk 0, clean chunk 1, ..., the noisy chunk), and runs all of it through the network under a mask.
B batch, C channels, T latent frames, H W latent grid, S frames of the sequence, P tokens per frame,
L tokens, N heads, D head dim, E model width.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import interpolate


@dataclass(frozen=True)
class Segment:
    """Frames that pass through the network together and see each other."""

    latents: Tensor  # [B, C, T, H, W], at the resolution of the pass
    frames: list[int]  # their numbers in the video
    seen: list[int]  # places in the sequence, before this segment's own, that it sees too
    start: int  # first frame of the chunk it is run for: from there the anchor's distance is measured
    timestep: float
    text: Tensor  # [B, L, text_dim]
    scale: float  # on top of the softmax scale of self-attention
    unwanted: Tensor | None = None  # a negative prompt [B, L, text_dim] that cross-attention is led away from


@dataclass(frozen=True)
class Positions:
    grid: tuple[int, int]  # in latent cells; a token is 2 by 2 of them
    ntk: float
    anchor: int
    span: int | None  # None: absolute times; else the anchor comes no further away than this
    firsts: tuple[int, ...] = (0,)  # of each anchor the first frame
    sinks: tuple[tuple[int, ...], ...] = ()  # by chunk of one frame: those that it sees, where they give way
    stand: Callable[[int], dict[int, int]] | None = None  # by first frame of a chunk: other times that frames have
    mix: Callable[[int], dict[int, dict[int, float]]] | None = None  # likewise: frames that are sums of others

    def times(self, frames: list[int], start: int) -> list[int]:
        if self.stand:
            placed = self.stand(start)
            return [placed.get(frame, frame) for frame in frames]
        if self.sinks:
            nearest = {} if self.span is None else {f: start - self.span + i for i, f in enumerate(self.sinks[start])}
            return [max(frame, nearest.get(frame, frame)) for frame in frames]
        first = max(first for first in self.firsts if first < max(1, start))  # not one in the chunk itself
        shift = 0 if self.span is None else max(0, start - first - self.span)
        return [frame + shift if first <= frame < first + self.anchor else frame for frame in frames]

    def mixed(self, x: Tensor, frames: list[int], start: int) -> Tensor:
        """Keys or values [B, S * P, N, D] with some frames replaced by weighted sums of frames."""
        parts = x.unflatten(1, (len(frames), -1))
        found = parts.clone()
        for frame, weights in (self.mix(start) if self.mix else {}).items():
            found[:, frames.index(frame)] = sum(weight * parts[:, frames.index(f)] for f, weight in weights.items())
        return found.flatten(1, 2)

    def rotate(self, x: Tensor, times: list[int]) -> Tensor:
        """Turn [B, S * P, N, D] by time, row and column; neighbouring channels are one complex number."""
        space = x.shape[-1] // 6 * 2
        axes = [torch.tensor(times), *(torch.arange(cells // 2) for cells in self.grid)]
        shares = [x.shape[-1] - 2 * space, space, space]
        thetas = [10000.0, *2 * [10000.0 * self.ntk ** (space / (space - 2))]]
        angles = []
        for axis, dims, theta in zip(torch.meshgrid(axes, indexing="ij"), shares, thetas, strict=True):
            frequencies = theta ** (-torch.arange(0, dims, 2, dtype=torch.float64) / dims)
            angles.append(axis.flatten().double()[:, None] * frequencies)
        angle = torch.cat(angles, dim=1)[None, :, None]
        cos, sin, (a, b) = angle.cos().float(), angle.sin().float(), x.unflatten(-1, (-1, 2)).unbind(-1)
        return torch.stack((a * cos - b * sin, a * sin + b * cos), dim=-1).flatten(-2)


def attend(q: Tensor, k: Tensor, v: Tensor, scale: float = 1.0, mask: Tensor | None = None) -> Tensor:
    """Softmax attention in full: [B, L, N, D] in, [B, L, N * D] out; mask [L of k] is true where seen."""
    scores = torch.einsum("blnd,bmnd->bnlm", q, k) * (scale / q.shape[-1] ** 0.5)
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return torch.einsum("bnlm,bmnd->blnd", scores.softmax(-1), v).flatten(2)


def led_away(found: Tensor, unwanted: Tensor, nag: float, limit: float = 2.5, share: float = 0.25) -> Tensor:
    """Normalized attention guidance [B, L, E], token by token."""
    out = torch.empty_like(found)
    for at in torch.cartesian_prod(*map(torch.arange, found.shape[:2])).unbind():
        plus, minus = found[tuple(at)], unwanted[tuple(at)]
        led = nag * plus - (nag - 1) * minus
        ratio = led.abs().sum() / plus.abs().sum()
        out[tuple(at)] = share * (led * limit / ratio if ratio > limit else led) + (1 - share) * plus
    return out


def flow(model, segments: list[Segment], positions: Positions, nag: float = 1.0) -> Tensor:
    """Run all segments as one sequence; what comes back is the flow of the last one, [B, C, T, H, W]."""
    (h, w), heads = positions.grid, (model.num_heads, -1)
    tokens = h * w // 4
    frames = [frame for segment in segments for frame in segment.frames]
    owner = torch.tensor([i for i, s in enumerate(segments) for _ in s.frames]).repeat_interleave(tokens)
    place = torch.arange(len(frames)).repeat_interleave(tokens)
    own = [owner == i for i in range(len(segments))]
    masks = [own[i] | torch.isin(place, torch.tensor([-1, *s.seen])) for i, s in enumerate(segments)]

    t = torch.tensor([segment.timestep for segment in segments for _ in segment.frames])
    half = model.freq_dim // 2
    angle = torch.outer(t, 10000.0 ** (-torch.arange(half).float() / half))
    e = model.time_embedding(torch.cat((angle.cos(), angle.sin()), dim=1)).repeat_interleave(tokens, 0)
    e6 = model.time_projection(e).unflatten(1, (6, -1))  # [S * P, 6, E]
    texts = [model.text_embedding(segment.text) for segment in segments]
    x = model.patch_embedding(torch.cat([segment.latents for segment in segments], dim=2))
    x = x.flatten(2).transpose(1, 2)
    for block in model.blocks:
        m = (block.modulation + e6).unbind(1)
        y, att, out = block.norm1(x) * (1 + m[1]) + m[0], block.self_attn, []
        q = att.norm_q(att.q(y)).unflatten(2, heads)
        k = att.norm_k(att.k(y)).unflatten(2, heads)
        v = att.v(y).unflatten(2, heads)
        for segment, mine, mask in zip(segments, own, masks, strict=True):
            turned_q = positions.rotate(q[:, mine], positions.times(segment.frames, segment.start))
            seen_k, seen_v = (positions.mixed(x, frames, segment.start) for x in (k, v))
            turned_k = positions.rotate(seen_k, positions.times(frames, segment.start))
            out.append(attend(turned_q, turned_k, seen_v, segment.scale, mask))
        x = x + att.o(torch.cat(out, dim=1)) * m[2]
        y, att, out = block.norm3(x), block.cross_attn, []
        for segment, text, mine in zip(segments, texts, own, strict=True):
            both, found = [text], []
            if segment.unwanted is not None:
                both.append(model.text_embedding(segment.unwanted))
            for each in both:
                k, v = att.norm_k(att.k(each)).unflatten(2, heads), att.v(each).unflatten(2, heads)
                found.append(attend(att.norm_q(att.q(y[:, mine])).unflatten(2, heads), k, v))
            out.append(led_away(*found, nag) if len(found) == 2 else found[0])
        x = x + att.o(torch.cat(out, dim=1))
        x = x + block.ffn(block.norm2(x) * (1 + m[4]) + m[3]) * m[5]
    m = (model.head.modulation + e[:, None]).unbind(1)
    x = model.head.head(model.head.norm(x) * (1 + m[1]) + m[0])[:, own[-1]]
    x = x.unflatten(2, (2, 2, -1)).unflatten(1, (-1, h // 2, w // 2))  # [B, T, h, w, 2, 2, C]
    return x.permute(0, 6, 1, 2, 4, 3, 5).flatten(5, 6).flatten(3, 4)


def resize(latents: Tensor, grid: tuple[int, int]) -> Tensor:
    how = {"mode": "bilinear", "align_corners": False}  # halved so, four cells become their mean
    return torch.stack([interpolate(frame, grid, **how) for frame in latents.unbind(2)], dim=2)


@torch.no_grad()
def reference_histream(
    model,
    chunks,
    noise,
    *,
    grids,
    ntk,
    window=(1, 2),
    span=None,
    first_scale=1.0,
    given=None,
    recache=(),
    firsts=(0,),
    negative=None,
    cfg=1.0,
    nag=1.0,
    flow=flow,
    see=None,
    stand=None,
    mix=None,
) -> Tensor:
    """Latents [B, C, T, H, W] of the whole video.

    chunks: (text [B, L, text_dim], number of frames, [(sigma, "low" or "high") per step]) each; without steps
    the chunk is taken from `given` [B, C, T, H, W]. noise(chunk, step, shape): step 0 begins a chunk, step i
    re-noises before step i. grids, ntk: of "low" and "high", grids in latent cells. window: how many frames
    stay from the start of the video, and how many before a chunk. span: see Positions. first_scale: on the
    softmax scale of chunk 0 at "high". recache: chunks before which the context runs again, with its text.
    firsts: the first frames of the anchors, each for all chunks behind its own. negative: the negative prompt
    [B, L, text_dim]; cfg: how many times the distance from its estimate to that of the prompt; nag: see `led_away`.
    flow: the network. see: by first frame of a chunk, the frames that it sees instead; stand, mix: see Positions.
    """
    anchor, local = window
    begins = [sum(length for _, length, _ in chunks[:i]) for i in range(len(chunks))]
    video = torch.empty(chunks[0][0].shape[0], model.in_dim, 0, *grids["high"])

    def predict(x: Tensor, chunk: int, sigma: float, at: str, instead: Tensor | None = None) -> Tensor:
        segments, order = [], []  # order: the frames of the sequence; a frame counts where it stands last
        clean = resize(video, grids[at]) if chunk else video
        for i, (text, length, _) in enumerate(chunks[: chunk + 1]):
            begin = begins[i]
            first = max(first for first in firsts if first < max(1, begin))
            context = [f for f in range(begin) if first <= f < first + anchor or f >= begin - local]
            context = context if see is None else see(begin)
            mine, scale = [*range(begin, begin + length)], first_scale if i == 0 and at == "high" else 1.0
            runs = [(x, mine, 1000 * sigma, scale) if i == chunk else (clean[:, :, mine], mine, 0.0, scale)]
            if i in recache and context:
                runs.insert(0, (clean[:, :, context], context, 0.0, 1.0))
            for latents, frames, timestep, scale in runs:
                last = {frame: place for place, frame in enumerate(order)}
                seen = [last[f] for f in context] if frames is mine else []
                words, unwanted = (text, negative if nag != 1 else None) if instead is None else (instead, None)
                segments.append(Segment(latents, frames, seen, begin, timestep, words, scale, unwanted))
                order += frames
        return flow(model, segments, Positions(grids[at], ntk[at], anchor, span, firsts, stand=stand, mix=mix), nag)

    def guided(x: Tensor, *where) -> Tensor:
        if cfg == 1:
            return predict(x, *where)
        one, other = predict(x, *where), predict(x, *where, instead=negative)
        return other + cfg * (one - other)

    for chunk, (_, length, steps) in enumerate(chunks):
        if not steps:
            x = given[:, :, begins[chunk] : begins[chunk] + length]
        for i, (sigma, at) in enumerate(steps):
            fresh = noise(chunk, i, (*video.shape[:2], length, *grids[at]))
            x = fresh if i == 0 else (1 - sigma) * resize(x, grids[at]) + sigma * fresh
            x = x - sigma * guided(x, chunk, sigma, at)
        video = torch.cat((video, x), dim=2)
    return video


def alike(one: Tensor, other: Tensor) -> float:
    """The cosine of the mean colours of two latent frames."""
    a, b = one.double().mean((0, 2, 3)), other.double().mean((0, 2, 3))
    return float(a @ b / (a.norm() * b.norm()))


@torch.no_grad()
def reference_sinks(model, what, noise, *, grid, window, span, threshold) -> tuple[Tensor, list[tuple[int, ...]]]:
    """Latents [1, C, T, H, W] of a video of single frames whose sinks give way, and the sinks that each frame saw.

    what: text, sigmas of the steps, number of frames. window: how many sinks, and how many frames before a frame.
    """
    (text, sigmas, length), (anchor, local) = what, window
    video, sinks = torch.empty(1, model.in_dim, 0, *grid), [()]
    for frame in range(length):
        x = torch.zeros(1, model.in_dim, 1, *grid)
        for i, sigma in enumerate(sigmas):
            fresh = noise(frame, i, x.shape)
            x = fresh if i == 0 else (1 - sigma) * x + sigma * fresh
            runs = [(video[:, :, f : f + 1], f, 0.0) for f in range(frame)] + [(x, frame, 1000 * sigma)]
            segments = [
                Segment(latent, [f], sorted({*sinks[f], *range(max(0, f - local), f)}), f, timestep, text, 1.0)
                for latent, f, timestep in runs
            ]
            x = x - sigma * flow(model, segments, Positions(grid, 1.0, anchor, span, sinks=tuple(sinks)))
        if len(sinks[-1]) < anchor:
            sinks.append((*sinks[-1], frame))
        else:
            scores = [alike(x[:, :, 0], video[:, :, sink]) for sink in sinks[-1]]
            worst = sinks[-1][scores.index(min(scores))]
            stays = min(scores) >= threshold
            sinks.append(sinks[-1] if stays else tuple(sorted({*sinks[-1], frame} - {worst})))
        video = torch.cat((video, x), dim=2)
    return video, sinks[:length]
