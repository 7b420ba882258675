"""`reference.py` under levers: the same approximations a second time, slow and without caches.

Letters as there.
"""

from contextlib import contextmanager, nullcontext
from unittest import mock

import torch
from laws import reference
from laws.reference import Positions, Segment, flow, resize
from torch import Tensor
from torch.nn.functional import avg_pool2d


@contextmanager
def outputs(model, replace):
    """While this is on, `replace(layer, name, output)` may put others in the place of keys "k" or values "v"."""
    hooks = []
    for layer, block in enumerate(model.blocks):
        for name, module in (("k", block.self_attn.norm_k), ("v", block.self_attn.v)):
            at = lambda module, inputs, output, layer=layer, name=name: replace(layer, name, output)  # noqa: E731
            hooks.append(module.register_forward_hook(at))
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def pooled(x: Tensor, grid: tuple[int, int]) -> Tensor:
    """Mean of 2 by 2 tokens: [B, S * P, E] on a grid of latent cells to [B, S * P / 4, E]."""
    frames = x.unflatten(1, (-1, grid[0] // 2, grid[1] // 2)).flatten(0, 1).movedim(-1, 1)
    return avg_pool2d(frames, 2).movedim(1, -1).flatten(1, 2).unflatten(0, (x.shape[0], -1)).flatten(1, 2)


def attend_to_half(tokens: int, most_queries: int, most_keys: int):
    """`reference.attend` under a mask that each block of queries and each head has of its own."""
    block_q, block_k = (max(n for n in range(1, most + 1) if tokens % n == 0) for most in (most_queries, most_keys))
    attend = reference.attend

    def sparse(q: Tensor, k: Tensor, v: Tensor, scale: float = 1.0, mask: Tensor | None = None) -> Tensor:
        if mask is None or mask.sum() == q.shape[1]:  # text, or a chunk without a past
            return attend(q, k, v, scale, mask)
        seen = k[:, mask]
        means = q.unflatten(1, (-1, block_q)).mean(2), seen.unflatten(1, (-1, block_k)).mean(2)
        scores = torch.einsum("blnd,bmnd->bnlm", *means)
        kept = -(-scores.shape[-1] // 2)
        best = scores >= scores.sort(dim=-1, descending=True).values[..., kept - 1 : kept]
        best = best.repeat_interleave(block_q, 2).repeat_interleave(block_k, 3)
        return attend(q, seen, v[:, mask], scale, best)

    return mock.patch.object(reference, "attend", sparse)


@torch.no_grad()
def reference_levers(
    model,
    chunks,
    noise,
    *,
    grids,
    ntk,
    window,
    span=None,
    in_flight=(),
    survivors=False,
    pooled_low=False,
    blocks=None,
    given=None,
) -> Tensor:
    """Latents [B, C, T, H, W]; arguments as those of `reference_histream`.

    in_flight: chunks whose keys at "high" stay those of their last step. survivors: a clean pass has only frames that
    later chunks see. pooled_low: what is past at "low" has the keys and values of "high", averaged. blocks: tokens
    that a block of queries and of keys has at most, where attention at "high" is to half of them.
    """
    anchor, local = window
    begins = [sum(length for _, length, _ in chunks[:i]) for i in range(len(chunks))]
    video = torch.empty(chunks[0][0].shape[0], model.in_dim, 0, *grids["high"])
    noisy = {}

    def seen(begin: int) -> list[int]:
        return [f for f in range(begin) if f < anchor or f >= begin - local]

    def past(chunk: int, at: str) -> tuple[list[Segment], list[int]]:
        segments, order = [], []
        for i, (text, length, steps) in enumerate(chunks[:chunk]):
            mine = [*range(begins[i], begins[i] + length)]
            if at == "high" and i in in_flight:
                latents, timestep = noisy[i], 1000 * steps[-1][0]
            else:
                later = seen(begins[i] + length)
                mine = [f for f in mine if f in later or not survivors]
                latents, timestep = resize(video[:, :, mine], grids[at]), 0.0
            places = [order.index(f) for f in seen(begins[i])]
            segments.append(Segment(latents, mine, places, begins[i], timestep, text, 1.0))
            order += mine
        return segments, order

    def half(at: str):
        sparse = blocks and at == "high"
        return attend_to_half(grids[at][0] * grids[at][1] // 4, *blocks) if sparse else nullcontext()

    def positions(at: str) -> Positions:
        return Positions(grids[at], ntk[at], anchor, span)

    def predict(x: Tensor, chunk: int, sigma: float, at: str) -> Tensor:
        segments, order = past(chunk, at)
        memory = {}
        if at == "low" and pooled_low and chunk:
            high, order = past(chunk, "high")
            keep = outputs(model, lambda layer, name, y: memory.update({(layer, name): pooled(y, grids["high"])}))
            with keep, half("high"):
                flow(model, high, positions("high"))
            blank = x.new_zeros(*x.shape[:2], len(order), *grids["low"])
            segments = [Segment(blank, order, [], 0, 0.0, chunks[0][0], 1.0)]
        text, length, _ = chunks[chunk]
        mine = [*range(begins[chunk], begins[chunk] + length)]
        places = [order.index(f) for f in seen(begins[chunk])]
        segments.append(Segment(x, mine, places, begins[chunk], 1000 * sigma, text, 1.0))

        def remember(layer, name, y):
            kept = memory.get((layer, name))
            return y if kept is None else torch.cat((kept, y[:, kept.shape[1] :]), dim=1)

        with outputs(model, remember), half(at):
            return flow(model, segments, positions(at))

    for chunk, (_, length, steps) in enumerate(chunks):
        if not steps:
            x = given[:, :, begins[chunk] : begins[chunk] + length]
        for i, (sigma, at) in enumerate(steps):
            fresh = noise(chunk, i, (*video.shape[:2], length, *grids[at]))
            x = fresh if i == 0 else (1 - sigma) * resize(x, grids[at]) + sigma * fresh
            noisy[chunk] = x
            x = x - sigma * predict(x, chunk, sigma, at)
        video = torch.cat((video, x), dim=2)
    return video
