"""Sentences that say what does not fit into the memory of a device, and what would."""

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import replace

from ..plan.chunks import Plan
from ..plan.schedule import Scale
from ..plan.sizes import PIXELS_PER_CELL
from ..plan.storage import EXACT, TIERS
from ..vae.decoders import most_strips, strip_ranges
from .cost import GB, RESERVE, Cost, gb

WHERE = "--kv, or kv_memory of Dual-Resolution Cache"
"""Where a tier of memory is chosen."""

LIGHT_VAE_WIDTH = 24
"""Channels at full resolution of a Wan VAE pruned to a quarter."""

DECODERS = {
    "wan": {},
    "wan, 2 strips": {"vae_strips": 2},
    "wan, 4 strips": {"vae_strips": 4},
    "light wan": {"vae_width": LIGHT_VAE_WIDTH},
    "taehv": {"taehv": True},
}
"""Ways to decode, as changes of a `Cost`: a pruned VAE and a TAEHV are files of their own."""


def check_strips(plan: Plan, strips: int) -> None:
    """Refuse more strips than the pictures of a plan have room for. Raises ValueError."""
    strip_ranges(max(plan.size) // PIXELS_PER_CELL, strips)


def does_not_fit(cost: Cost, vram: float) -> tuple[str, ...]:
    """Sentences that say what does not fit into `vram` GB and what to change; none where everything fits."""
    room = vram * GB - RESERVE
    if cost.peak_bytes <= room:
        return ()
    return tuple(_advice(cost, vram, room))


def vae_does_not_fit(cost: Cost, memory: float) -> tuple[str, ...]:
    """Sentences about decoding alone, for a VAE that has a device of its own with `memory` GB."""
    room = memory * GB - RESERVE
    if cost.decoding_bytes <= room:
        return ()
    needed = f"decoding needs {gb(cost.decoding_bytes + RESERVE)} on its device, and {memory:g} GB are there"
    lighter = {name: way.decoding_bytes for name, way in decoders(cost).items() if way.decoding_bytes <= room}
    return (f"{needed}: {_lighter(lighter)}" if lighter else f"{needed}: leave --vae-device out",)


def _advice(cost: Cost, vram: float, room: float) -> Iterator[str]:
    vae_weights, vae_memory, vae_working = cost.vae_weight_bytes, cost.vae_cache_bytes, cost.vae_working_bytes
    vae_memory, vae_working = vae_memory + cost.encoder_bytes, max(vae_working, cost.encoder_working_bytes)
    if cost.vae_elsewhere:
        vae_weights = vae_memory = vae_working = 0
    parts = {
        "weights": 0 if cost.offloaded else cost.weight_bytes + vae_weights,
        "key/value caches": cost.kv_held_bytes,
        "VAE memory": vae_memory,
        "working memory": max(cost.working_bytes, vae_working) + cost.text_bytes + cost.upsampler_bytes + RESERVE,
    }
    listed = ", ".join(f"{name} {gb(size)}" for name, size in parts.items())
    yield f"{gb(cost.peak_bytes + RESERVE)} are needed and {vram:g} GB are there: {listed}"
    if cost.plan.window.local_frames is None:
        yield f"the caches hold the whole history, {gb(cost.kv_bytes)}: use mode histream, whose window does not grow"
    fitting = [_tier(tier) for tier in tiers(cost).values() if tier.peak_bytes <= room]
    if fitting:
        yield f"keys and values in less memory would fit ({WHERE}): {'; '.join(fitting)}"
    if max(cost.sampling_bytes, cost.decoding_bytes) <= room:
        yield (
            f"one after the other would fit (sampling {gb(cost.sampling_bytes)}, decoding "
            f"{gb(cost.decoding_bytes)}): in ComfyUI, sample to a LATENT first and decode it with Streaming VAE Decode"
        )
    lighter = {name: way.peak_bytes for name, way in decoders(cost).items() if way.peak_bytes <= room}
    if lighter:
        yield _lighter(lighter)
    smaller = _largest_that_fits(cost, room)
    if smaller:
        width, height = smaller.plan.size
        yield f"{width}x{height} would fit, in {gb(smaller.peak_bytes + RESERVE)}"
    else:
        yield f"no size fits: the weights alone take {gb(parts['weights'])}, so use a smaller model or a larger GPU"


def tiers(cost: Cost) -> dict[str, Cost]:
    """The cost in every tier of memory, by its name."""
    return {name: replace(cost, kv=name) for name in TIERS}


def decoders(cost: Cost) -> dict[str, Cost]:
    """The cost with every decoder that the size allows, by its name."""
    most = most_strips(max(cost.plan.size) // PIXELS_PER_CELL)
    ways = {name: change for name, change in DECODERS.items() if change.get("vae_strips", 1) <= most}
    if cost.vae_width <= LIGHT_VAE_WIDTH:
        del ways["light wan"]
    if cost.plan.restyle is not None:
        del ways["taehv"]  # which cannot encode the source
    return {name: replace(cost, **({"taehv": False, "vae_strips": 1} | change)) for name, change in ways.items()}


def _lighter(sizes: Mapping[str, int]) -> str:
    said = "; ".join(f"{name} (in {gb(size + RESERVE)})" for name, size in sizes.items())
    return f"another decoder would fit (--vae-strips, or another --vae): {said}"


def _tier(cost: Cost) -> str:
    main = f" and {gb(cost.kv_main_bytes)} of main memory" if cost.kv_main_bytes and not cost.unified else ""
    rounded = "" if cost.kv in EXACT else ", the frames not quite the same"
    return f"{cost.kv} (in {gb(cost.peak_bytes + RESERVE)}{main}{rounded})"


def _largest_that_fits(cost: Cost, room: float) -> Cost | None:
    """The cost at the largest size of about the same shape, sides multiples of 32, that needs at most `room`."""
    width, height = cost.plan.size

    def at(columns: int) -> Cost:
        rows = max(1, round(columns * height / width))
        strips = min(cost.vae_strips, most_strips(max(columns, rows) * 32 // PIXELS_PER_CELL))
        return replace(cost, plan=_resized(cost.plan, columns * 32, rows * 32), vae_strips=strips)

    fitting = bisect_right(range(1, width // 32), room, key=lambda columns: at(columns).peak_bytes)
    return at(fitting) if fitting else None


def _resized(plan: Plan, width: int, height: int) -> Plan:
    """The plan at another size, for its memory alone."""
    high = height // PIXELS_PER_CELL, width // PIXELS_PER_CELL
    before = plan.grids[Scale.HIGH]
    grids = {
        scale: tuple(new * cells // old for cells, old, new in zip(grid, before, high, strict=True))
        for scale, grid in plan.grids.items()
    }
    return replace(plan, grids=grids)
