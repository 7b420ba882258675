"""The memory that a video takes, and the settings that make it on a card of 8, 12, 16 or 24 GB, with their price."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch

from ..network.cache.tiers import check_tier
from ..plan.storage import EXACT, TIERS
from .cost import GB, RESERVE, Cost, gb
from .fitting import decoders, tiers

CARDS = (8, 12, 16, 24)
"""Sizes of graphics cards, in GB."""

LIGHTER_FILES = ("light wan", "taehv")
"""Ways to decode that need a VAE file of their own."""


@dataclass(frozen=True)
class Way:
    """One choice of settings for a video, and its cost."""

    cost: Cost
    decoder: str
    """One of `fitting.DECODERS`; "wan" is the VAE that is chosen, whole."""
    apart: bool = False
    """Whether everything is sampled first and decoded afterwards."""

    @property
    def bytes_needed(self) -> int:
        """The peak on the device, its driver included."""
        apart = max(self.cost.sampling_bytes, self.cost.decoding_bytes)
        return RESERVE + (apart if self.apart else self.cost.peak_bytes)

    @property
    def same_frames(self) -> bool:
        """Whether the frames are those of the defaults, bit for bit."""
        return self.cost.kv in EXACT and self.decoder == "wan"

    @property
    def moved_bytes(self) -> int:
        """The most that passes from main memory to the device in one network call."""
        return (self.cost.call_weight_bytes if self.cost.offloaded else 0) + self.cost.kv_main_bytes

    @property
    def settings(self) -> str:
        """The widgets to change, in words; empty for the defaults."""
        strips = f"vae_strips {self.cost.vae_strips}" if self.cost.vae_strips > 1 else ""
        file = f"a {self.decoder} VAE file" if self.decoder in LIGHTER_FILES else ""
        kv = f"kv_memory {self.cost.kv}" if self.cost.kv != "full" else ""
        return ", ".join(filter(None, [kv, strips, file, "decoding afterwards" if self.apart else ""]))

    @property
    def prices(self) -> str:
        """The price beside the defaults, in words."""
        return "; ".join(_prices(self)) or "nothing"


def _prices(way: Way) -> Iterator[str]:
    cost = way.cost
    if cost.offloaded:
        yield f"weights wait in main memory, {gb(cost.call_weight_bytes)} pass to the GPU in each network call"
    if cost.kv == "lean":
        yield "past frames are copied once more in every layer"
    if cost.kv == "cpu":
        yield f"{gb(cost.kv_main_bytes)} of main memory, up to as much passes to the GPU in each network call"
    if cost.vae_main_bytes:
        yield f"{gb(cost.vae_main_bytes)} of main memory for the VAE"
    if way.apart:
        yield "nothing to watch before all is sampled"
    if not way.same_frames:
        yield "less detail" if way.decoder in LIGHTER_FILES else "other frames, a little"


def ways(
    cost: Cost,
    *,
    device: torch.device | str | None = None,
    files: Collection[str] = (),
    offload: bool = False,
    apart: bool = False,
) -> tuple[Way, ...]:
    """The ways to make a video that work on that device, the one with the least price first.

    First those that give the same frames, among them those that move least between the memories. `files` are the
    LIGHTER_FILES that are there. `offload`: whether weights may wait in main memory. `apart`: whether a video may be
    decoded after it is sampled.
    """
    found = []
    whether = product((False, True) if offload else (cost.offloaded,), (False, True) if apart else (False,))
    for offloaded, later in whether:
        for tier in running_tiers(cost, device):
            for name, decoding in _decoders(replace(cost, kv=tier, offloaded=offloaded), files).items():
                found.append(Way(decoding, name, later))
    order = list(TIERS)
    return tuple(
        sorted(
            found,
            key=lambda way: (
                not way.same_frames,
                way.moved_bytes,
                way.apart,
                way.decoder in LIGHTER_FILES,
                way.cost.vae_strips,
                order.index(way.cost.kv),
            ),
        )
    )


def _decoders(cost: Cost, files: Collection[str]) -> dict[str, Cost]:
    """The ways to decode with the VAE that is chosen, which goes by the name of "wan", and with the files there are."""
    found = decoders(cost)
    if cost.taehv:
        return {name: replace(way, taehv=True) for name, way in found.items() if name not in LIGHTER_FILES}
    return {name: way for name, way in found.items() if name not in LIGHTER_FILES or name in files}


def running_tiers(cost: Cost, device: torch.device | str | None = None) -> tuple[str, ...]:
    """The tiers of memory that work on the device and save something there."""
    return tuple(name for name in tiers(cost) if not (cost.unified and name == "cpu") and _works(name, device))


def _works(tier: str, device: torch.device | str | None) -> bool:
    try:
        check_tier(tier, device)
    except ValueError:
        return False
    return True


def choices(found: Sequence[Way], card: float) -> tuple[Way, ...]:
    """The first of `found` that fits a card of that many GB.

    Behind it the first that fits and moves less or decodes sooner, where there is one. Empty: nothing fits.
    """
    fitting = [way for way in found if way.bytes_needed <= card * GB]
    if not fitting:
        return ()
    first = fitting[0]
    easier = [way for way in fitting if (way.moved_bytes, way.apart) < (first.moved_bytes, first.apart)]
    return (first, *easier[:1])


def verdict(cost: Cost, found: Sequence[Way], card: float) -> str:
    """One line: whether the video fits a card of that many GB as it is set, else what to change."""
    as_set = [way for way in found if (way.cost.kv, way.cost.vae_strips) == (cost.kv, cost.vae_strips)]
    as_set = [way for way in as_set if way.decoder not in LIGHTER_FILES] or [Way(cost, "wan")]
    fitting = choices(as_set, card)
    if fitting:
        first = fitting[0]
        later = ", decoding afterwards" if first.apart else ""
        costs = "" if first.prices == "nothing" else f"; costs: {first.prices}"
        return f"Fits as it is set{later}: {gb(first.bytes_needed)} of {card:g} GB{costs}"
    needed = gb(min(way.bytes_needed for way in as_set))
    found_here = choices(found, card)
    if found_here:
        first = found_here[0]
        return (
            f"Does not fit as it is set: {needed}, and {card:g} GB are here. It fits with {first.settings}: "
            f"{gb(first.bytes_needed)}; costs: {first.prices}"
        )
    least = gb(min(way.bytes_needed for way in found))
    return f"Does not fit: the least at this size is {least}, and {card:g} GB are here. Choose a smaller size"


def describe(cost: Cost, found: Sequence[Way]) -> Iterator[str]:
    """The plan in lines: what the video takes as it is set, and what runs on each card."""
    yield "on the GPU, as it is set:"
    parts = {
        "weights": cost.weight_bytes,
        f"keys and values, kv_memory {cost.kv}": cost.kv_bytes,
        "working memory of a network call": cost.working_bytes + cost.text_bytes,
        "weights of the VAE": cost.vae_weight_bytes,
        "memory of the VAE": cost.vae_cache_bytes,
        "working memory of the VAE": cost.vae_working_bytes,
    }
    if cost.encoder_bytes:
        parts |= {"encoding the source": cost.encoder_bytes, "working memory of that": cost.encoder_working_bytes}
    for name, size in parts.items():
        yield f"  {name}: {gb(size)}"
    yield f"  together, with 1 GB for the driver: {gb(cost.peak_bytes + RESERVE)}"
    if main := cost.kv_main_bytes + cost.vae_main_bytes:
        yield f"  and {gb(main)} of main memory"
    yield "keys and values in other memory:"
    for name in sorted({way.cost.kv for way in found}, key=list(TIERS).index):
        tier = replace(cost, kv=name)
        main = f" and {gb(tier.kv_main_bytes)} of main memory" if tier.kv_main_bytes else ""
        yield f"  kv_memory {name}: {gb(tier.kv_bytes)}{main}; {TIERS[name]}"
    yield from card_lines(found)


def card_lines(found: Sequence[Way]) -> Iterator[str]:
    """Lines that say what runs on each card."""
    yield "what runs on a card of"
    for card in CARDS:
        yield from card_line(found, card)


def card_line(found: Sequence[Way], card: float) -> Iterator[str]:
    """One line or two that say what runs on one card."""
    fitting = choices(found, card)
    if not fitting:
        least = min(found, key=lambda way: way.bytes_needed)
        yield f"  {card:g} GB: nothing at this size, the least is {gb(least.bytes_needed)}; choose a smaller one"
    for place, way in enumerate(fitting):
        start = f"  {card:g} GB: " if not place else "    or "
        yield f"{start}{way.settings or 'the defaults'}, {gb(way.bytes_needed)}; costs: {way.prices}"
