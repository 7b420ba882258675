"""Memory tiers: caches that take less memory of the device and give equal results."""

from dataclasses import replace

import pytest
import tiny
import torch
from slow import crossed

from histream_core import demo
from histream_core.demo.sentence import EXAMPLE
from histream_core.network.cache import tiers
from histream_core.network.cache.tiers import LeanCache, make_caches
from histream_core.network.cache.window import CacheOptions
from histream_core.network.forward import Text
from histream_core.network.transfer import CopyStream
from histream_core.plan.chunks import replay
from histream_core.plan.make import make_plan
from histream_core.plan.positions import TemporalPolicy
from histream_core.plan.presets import find_preset
from histream_core.plan.schedule import Scale
from histream_core.plan.storage import EXACT, TIERS
from histream_core.plan.window import Window
from histream_core.stream.prompts import Prompt
from histream_core.vae.decode import StreamingDecoder, stream_frames

SAVING = [name for name in EXACT if name != "full"]
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
"""Only CUDA devices copy beside the computation; `Late` stands in for that on others."""

MOVING = TemporalPolicy("clamped", span=4)
RUNS = {
    "histream": {},
    "histream-plus": {"mode": "histream-plus"},
    "history": {"mode": "history"},
    "full": {"mode": "full"},
    "one chunk": {"num_frames": 3},
    "cropped": {"num_frames": 11},
    "a moving anchor": {"temporal": MOVING},
    "no anchor": {"window": Window(3, 0, 2)},
    "no local frames": {"window": Window(3, 1, 0)},
    "frame by frame": {"window": Window(1, 1, 5)},
    "twice a chunk": {"window": Window(2, 1, 4)},
    "re-rotated": {"window": Window(1, 3, 2), "temporal": TemporalPolicy("rerotate", 6, 3)},
    "three moving anchors": {"window": Window(3, 3, 6), "temporal": MOVING},
}


class Late(CopyStream):
    """A copy stream that delays copies until they are waited for, as a device may."""

    def __init__(self, device):
        super().__init__(None)
        self.queue, self.done = [], 0

    def run(self, copies):
        self.queue.append(copies)
        return len(self.queue)

    def wait(self, copied):
        while self.done < copied:
            self.queue[self.done]()
            self.done += 1

    def wait_for_all(self):
        self.wait(len(self.queue))

    synchronize = wait_for_all


def recaching(batch=1):
    return [Prompt(tiny.text(batch=batch)), Prompt(tiny.text(5, batch=batch), 3, recache=True)]


def make_cache(kv, a_plan):
    return make_caches(a_plan, tiny.CONFIG, CacheOptions(kv=kv))[Scale.HIGH]


def keys(cache, frames, seed=0):
    shape = 1, frames * cache.rope.grid[0] * cache.rope.grid[1], tiny.CONFIG.num_heads, tiny.CONFIG.head_dim
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def computed(cache, frames, context=()):
    """Run and commit a cache pass over these frames."""
    cache.begin(frames, context)
    for layer in range(tiny.CONFIG.num_layers):
        cache.attend(layer, keys(cache, len(frames)), keys(cache, len(frames)), keep=True)
    cache.commit()


# The same numbers


@pytest.mark.parametrize(("kv", "batch", "name"), crossed(SAVING, [1, 2], RUNS))
def test_every_exact_tier_gives_the_frames_of_the_full_cache_bit_for_bit(kv, batch, name):
    """Seen to fail with scratch pages in temporal order, without the un-rotated keys of the anchor, and with one past
    frame too few."""
    a_plan = tiny.plan(**({"num_frames": 18} | RUNS[name]))
    wanted = tiny.video(a_plan, batch=batch, prompts=recaching(batch))
    assert torch.equal(tiny.video(a_plan, batch=batch, prompts=recaching(batch), kv=kv), wanted)


@pytest.mark.parametrize("kv", SAVING)
def test_a_given_first_frame_and_a_run_cut_in_two_are_the_same_too(kv):
    given = torch.randn(1, 4, 1, 8, 8, generator=torch.Generator().manual_seed(3))
    first = tiny.plan(num_frames=12, given_frames=1, first_frame=True)
    assert torch.equal(tiny.video(first, given=given, kv=kv), tiny.video(first, given=given))
    whole = tiny.video(tiny.plan(num_frames=12))
    rest = tiny.video(tiny.plan(num_frames=12, given_frames=6), given=whole[:, :, :6], kv=kv)
    assert torch.equal(rest, whole)


@pytest.mark.parametrize("name", ["histream", "history", "three moving anchors"])
def test_copies_that_come_as_late_as_they_may_change_nothing(monkeypatch, name):
    """Seen to fail without the wait for the past of a layer, and without the wait of a commit."""
    a_plan = tiny.plan(**({"num_frames": 18} | RUNS[name]))
    wanted = tiny.video(a_plan, prompts=recaching())
    monkeypatch.setattr(tiers, "CopyStream", Late)
    assert torch.equal(tiny.video(a_plan, prompts=recaching(), kv="cpu"), wanted)


@pytest.mark.parametrize("device", DEVICES)
def test_the_past_of_the_next_layer_is_asked_for_before_this_one_computes(monkeypatch, device):
    """Seen to fail without the prefetch."""
    asked = []
    copy_in = LeanCache._copy_in
    monkeypatch.setattr(
        LeanCache, "_copy_in", lambda cache, layer, scratch: asked.append(layer) or copy_in(cache, layer, scratch)
    )
    config, options = replace(tiny.CONFIG, num_layers=4), CacheOptions(device=device, kv="cpu")
    cache = make_caches(tiny.plan(num_frames=9), config, options)[Scale.HIGH]
    cache.begin(range(3), ())
    for _ in range(2):
        for layer in range(4):
            cache.pages(layer)
            assert asked.pop(0) == 0 or layer > 0
            assert asked == ([layer + 1] if layer < 3 else [])
        asked.clear()


# Nearly the same numbers


def test_fp8_is_near_the_full_cache_and_not_the_same():
    """With random weights, which depend little on the past; docs/performance.md has figures of the demo model."""
    a_plan = tiny.plan(num_frames=18, temporal=MOVING)
    wanted, got = (tiny.video(a_plan, kv=kv, prompts=recaching()) for kv in ("full", "fp8"))
    assert torch.equal(got[:, :, :3], wanted[:, :, :3]), "the first chunk sees no past"
    assert 0 < (got - wanted).norm() / wanted.norm() < 0.01


@pytest.mark.slow
def test_fp8_keeps_the_demo_models_picture():
    """PSNR of the second chunk's frames at half size against those of float32 caches: 45.6 dB.

    Seen to fail with two bits behind the first (30.9 dB).
    """
    side, model, vae = demo.WIDTH // 2, demo.load_transformer(), demo.load_vae()
    a_plan = make_plan(find_preset(demo.PRESET), "histream", size=(side, side), num_latent_frames=6)
    text, first = demo.load_text_encoder().encode(EXAMPLE), []

    def frames(kv):
        settings = {"model": model, "seed": 0, "prompts": [Prompt(Text(text))], "kv": kv}
        if not first:
            chunks = list(tiny.stream(a_plan, **settings).chunks())
            first.append(chunks[0])
        else:
            chunks = list(tiny.stream(replay(a_plan, 1), **settings, given=first[0]).chunks())
        return torch.cat(list(stream_frames(StreamingDecoder(vae, rollback=False), chunks)))[9:]

    error = (frames("full") - frames("fp8")).square().mean()
    assert 42 < -10 * error.log10() < 60


@pytest.mark.parametrize("size", [1e-12, 1.0, 1e12])
def test_fp8_keeps_three_bits_of_every_number_that_is_not_small_beside_its_head(size):
    """Seen to fail without scales, and with one scale for all heads."""
    cache = make_cache("fp8", tiny.plan(num_frames=18))
    x = size * keys(cache, 1) * torch.tensor([1.0, 1e-6])[:, None]
    cache._write("v", 1, 2, x)
    out = torch.empty_like(x)
    cache._read("v", 1, 2, out)
    large = x.abs() > x.abs().amax(dim=(1, 3), keepdim=True) * 2**-14
    assert large.float().mean() > 0.99
    assert ((out - x).abs() / x.abs())[large].max() <= 2**-4
    cache._write("v", 1, 2, torch.zeros_like(x))
    cache._read("v", 1, 2, out)
    assert not out.any()


def test_fp8_rounds_an_anchor_that_moves_once_and_not_again_and_again():
    """Its un-rotated keys are stored without rounding. Seen to fail when those are rounded too."""
    full, rounded = (make_cache(kv, tiny.plan(num_frames=99, mode="full", temporal=MOVING)) for kv in ("full", "fp8"))
    for cache in (full, rounded):
        for start in range(0, 60, 3):
            computed(cache, range(start, start + 3), Window().context(start))
        cache.begin(range(60, 63), Window().context(60))
    out, wanted = torch.empty_like(full.k[0, :, 0]), full.k[0, :, 0]
    rounded._read("k", 0, 0, out)
    assert torch.equal(rounded.anchor_k, full.anchor_k)
    assert ((out - wanted).abs() <= wanted.abs() * 2**-4 + wanted.abs().max() * 2**-14).all()


# Snapshots, interrupts and commits


@pytest.mark.parametrize(("tiers", "cut"), crossed([(a, b) for a in EXACT for b in EXACT if a != b], [2, 4, 6]))
def test_a_snapshot_of_one_tier_brings_a_run_back_in_another(tiers, cut):
    """Seen to fail with a snapshot that holds whole buffers of pages."""
    before, after = tiers
    a_plan, prompts = tiny.plan(num_frames=21, temporal=MOVING), recaching()
    whole = tiny.video(a_plan, prompts=prompts)
    first = tiny.stream(a_plan, prompts=prompts, kv=before)
    for _ in zip(range(cut), first.chunks(), strict=False):
        pass
    snapshot = {name: tensor.clone() for name, tensor in first.snapshot().items()}

    def given(chunk):
        return whole[:, :, chunk.frames.start : chunk.frames.stop]

    second = tiny.stream(replay(a_plan, cut), prompts=prompts, given=given, kv=after)
    second.restore(snapshot)
    assert torch.equal(torch.cat(list(second.chunks(cut - 1)), dim=2), whole[:, :, 3 * (cut - 1) :])


@pytest.mark.parametrize("kv", TIERS)
def test_a_snapshot_holds_the_tensors_that_are_documented(kv):
    """Readers of older runs rely on names, shapes and dtypes. Seen to fail with another name for un-rotated keys."""
    stream = tiny.stream(tiny.plan(num_frames=30, temporal=MOVING), kv=kv)
    for _ in zip(range(4), stream.chunks(), strict=False):
        pass
    found = stream.caches[Scale.HIGH].snapshot()
    sizes = 2, 1, 16, 2, 24  # layers, B, tokens of a frame, heads, head dim
    stored = torch.float8_e4m3fn if kv == "fp8" else torch.float32
    wanted = {"window": ((2,), torch.long), "frames": ((3,), torch.long), "times": ((3,), torch.long)}
    for frame in (0, 7, 8):
        wanted |= {f"{name}.{frame}": (sizes, stored) for name in ("k", "v")}
        if kv == "fp8":
            wanted |= {f"{name}_scale.{frame}": ((2, 1, 1, 2, 1), torch.float32) for name in ("k", "v")}
    wanted |= {"anchor_k.0": (sizes, torch.float32)}
    assert {name: (tuple(x.shape), x.dtype) for name, x in found.items()} == wanted
    assert [found[name].tolist() for name in ("window", "frames", "times")] == [[1, 5], [0, 7, 8], [5, 7, 8]]


@pytest.mark.parametrize("kv", SAVING)
def test_an_interrupted_chunk_leaves_the_past_as_it_was(kv):
    """Seen to fail when every pass is kept."""
    cache = make_cache(kv, tiny.plan(num_frames=18))
    computed(cache, range(3))
    held = cache.snapshot()["k.1"].clone()
    for _ in range(2):
        cache.begin(range(3, 6), (0, 1, 2))
        for layer in range(2):
            cache.attend(layer, keys(cache, 3, seed=1), keys(cache, 3, seed=1))
    assert cache.frames == (0, 1, 2)
    assert torch.equal(cache.snapshot()["k.1"], held)


@pytest.mark.parametrize("kv", SAVING)
def test_an_interrupted_cache_pass_is_noticed(kv):
    """Seen to fail when overwritten frames are not forgotten."""
    cache = make_cache(kv, tiny.plan(num_frames=18))
    computed(cache, range(3))
    cache.begin(range(3, 6), (0, 1, 2))
    for layer in range(2):
        cache.attend(layer, keys(cache, 3), keys(cache, 3), keep=True)
    with pytest.raises(ValueError, match=r"frames \[1, 2\] are not in the window, which holds \[0\]"):
        cache.begin(range(3, 6), (0, 1, 2))


@pytest.mark.parametrize("kv", SAVING)
def test_a_pass_that_was_not_kept_cannot_be_committed(kv):
    """Seen to fail without the check."""
    cache = make_cache(kv, tiny.plan(num_frames=18))
    cache.begin(range(3), ())
    for layer in range(2):
        cache.attend(layer, keys(cache, 3), keys(cache, 3))
    with pytest.raises(ValueError, match="only a cache pass can be committed"):
        cache.commit()
    assert cache.frames == ()


# Bytes


def test_the_past_alone_is_kept_and_one_window_is_shared():
    """Three frames instead of six, and one scratch window; two scratch windows with the past in main memory."""
    frame = 2 * 16 * tiny.CONFIG.dim * 4  # keys and values of a frame, one layer
    a_plan = tiny.plan(num_frames=99, mode="full")
    full, lean, cpu = (make_cache(kv, a_plan) for kv in EXACT)
    moving = frame // 2
    assert (full.nbytes, tiny.main_bytes(full)) == (2 * (6 * frame + moving), 0)
    assert (lean.nbytes, tiny.main_bytes(lean)) == (2 * (3 * frame + moving) + 6 * frame + moving, 0)
    assert (cpu.nbytes, tiny.main_bytes(cpu)) == (2 * (6 * frame + moving), 2 * (3 * frame + moving))


def test_what_lies_on_the_device_does_not_grow_with_layers_where_the_past_lies_in_main_memory():
    """Two scratch windows. Seen to fail with a scratch window for every layer."""
    few, many = (
        make_caches(tiny.plan(), replace(tiny.CONFIG, num_layers=n), CacheOptions(kv="cpu"))[Scale.HIGH]
        for n in (2, 30)
    )
    assert few.nbytes == many.nbytes
    assert tiny.main_bytes(many) == 15 * tiny.main_bytes(few) > 0


@pytest.mark.parametrize("kv", TIERS)
def test_bytes_never_change(kv):
    stream = tiny.stream(tiny.plan(num_frames=30, temporal=MOVING), kv=kv)

    def sizes():
        return [(cache.nbytes, tiny.main_bytes(cache)) for cache in stream.caches.values()]

    before = sizes()
    for _ in stream.chunks():
        assert sizes() == before


def test_a_tier_that_is_none_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match='"tiny" does not exist: use one of full, lean, cpu, fp8'):
        make_caches(tiny.plan(), tiny.CONFIG, CacheOptions(kv="tiny"))


def test_fp8_rerotates_the_ring_as_nearly_as_it_keeps_it():
    """Seen to fail where the stored numbers are turned without their scale."""
    a_plan = tiny.plan(num_frames=18, **RUNS["re-rotated"])
    reset = tiny.plan(num_frames=18, window=Window(1, 3, 2), temporal=TemporalPolicy("reset", 6, 3))
    wanted, near, other = tiny.video(a_plan), tiny.video(a_plan, kv="fp8"), tiny.video(reset)
    assert 0 < (near - wanted).abs().mean() < (other - wanted).abs().mean()
