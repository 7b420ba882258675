"""Seconds of a chunk and of a decoded frame, beside Self-Forcing's public code and ComfyUI's own sampler, in one run.

    python benchmarks/side_by_side.py --comfyui ~/comfy/ComfyUI --self-forcing ~/Self-Forcing --out side-by-side.json

All compute the same tiny random weights in float32 on one thread, from the same noise, and seconds are those of the
process, so that other programs do not count. ComfyUI's sampler and Self-Forcing's model see the whole past, as they do
by default; ours does so too ("full history"), and with its window. The latents of all three with the whole past are
compared. A checkout that is not named is left out of the table. Of Self-Forcing the model, its caches and its loop are
used: diffusers is stood in for, and attention is PyTorch's in float32, where its code asks for FlashAttention.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
import types
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

from histream_core.network.cache.tiers import make_caches
from histream_core.network.forward import Denoiser, Text
from histream_core.network.model import WanConfig, WanModel
from histream_core.plan import Plan, PlanOptions, TemporalPolicy, find_preset, make_plan
from histream_core.plan.schedule import parse_schedule
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.stream.stream import Stream
from histream_core.vae.decode import StreamingDecoder
from histream_core.vae.model import WanVAE

CONFIG = WanConfig(dim=128, ffn_dim=512, num_heads=1, num_layers=4, text_dim=64, freq_dim=64)
SIZE = 64, 64
SIGMAS = (1.0, 0.9375, 0.8333, 0.625)
AT = (5, 20, 60, 200)
"""The chunks whose seconds are told, counted from 1; each is the median of it and the two before."""

FRAMES = 3
"""Latent frames of a chunk."""

SEED, VAE_WIDTH, VAE_SIZE, VAE_FRAMES = 7, 8, (128, 128), 9

Chunks = Iterator[Tensor]
"""Latent chunks [1, C, T, H, W], each yielded when it is finished and remembered."""


def weights() -> dict[str, Tensor]:
    """Random weights of the transformer, none of which is left at zero or one."""
    torch.manual_seed(SEED)
    return {name: 0.05 * torch.randn_like(value) for name, value in WanModel(CONFIG).state_dict().items()}


def text() -> Tensor:
    """A prompt's embedding [1, tokens, channels], as long as Wan's."""
    return torch.randn(1, 512, CONFIG.text_dim, generator=torch.Generator().manual_seed(SEED))


def renoise(chunk: int, step: int, shape: torch.Size) -> Tensor:
    """The noise that a step of a chunk begins with, as ComfyUI's sampler draws it; step 0 begins the chunk."""
    torch.manual_seed(SEED + chunk * 1000 + step - 1 if step else 10**6 + chunk)
    return torch.randn(shape)


def plan(mode: str, num_chunks: int) -> Plan:
    """A plan of ours; `whole` has one resolution and sees the whole past, as the others do."""
    preset, options = find_preset("self-forcing"), PlanOptions()
    if mode == "whole":
        table = " ".join(f"{1000 * sigma:.17g}H" for sigma in SIGMAS)
        schedule = parse_schedule(table, shift_low=1, shift_high=1)
        options = PlanOptions(schedule=schedule, temporal=TemporalPolicy("absolute"), ntk_high=1.0)
    mode = "history" if mode == "whole" else mode
    return make_plan(preset, mode, size=SIZE, num_latent_frames=FRAMES * num_chunks, options=options)


def ours(mode: str, num_chunks: int) -> Chunks:
    model = WanModel(CONFIG).requires_grad_(False)
    model.load_state_dict(weights())
    a_plan = plan(mode, num_chunks)
    noise = renoise if mode == "whole" else SeededNoise(SEED)
    stream = Stream(a_plan, Denoiser(model), make_caches(a_plan, model), noise, [Prompt(Text(text()))])
    for chunk in stream.chunks():
        stream.remember()
        yield chunk


def import_self_forcing(checkout: Path) -> types.ModuleType:
    """Its causal model, without the packages that only its loader and its trainer need."""
    sys.path.insert(0, str(checkout))
    for name in ("wan", "wan.modules"):
        package = sys.modules[name] = types.ModuleType(name)
        package.__path__ = [str(checkout / name.replace(".", "/"))]
    stands_in = {
        "diffusers": {},
        "diffusers.configuration_utils": {"ConfigMixin": object, "register_to_config": lambda function: function},
        "diffusers.models": {},
        "diffusers.models.modeling_utils": {"ModelMixin": nn.Module},
    }
    for name, members in stands_in.items():
        module = sys.modules[name] = types.ModuleType(name)
        vars(module).update(members)
    from wan.modules import attention, causal_model, model  # type: ignore[import-not-found]

    in_float32 = partial(attention.attention, dtype=torch.float32)
    causal_model.attention = in_float32

    model.flash_attention = lambda q, k, v, **_: in_float32(q, k, v)  # for text, whose lengths are none
    return causal_model


def self_forcing(checkout: Path, num_chunks: int) -> Chunks:
    """The loop of its inference pipeline over its model and caches, with noise from outside."""
    found = import_self_forcing(checkout)
    sizes = {name: getattr(CONFIG, name) for name in ("dim", "ffn_dim", "num_heads", "num_layers", "freq_dim")}
    model = found.CausalWanModel(text_dim=CONFIG.text_dim, **sizes).requires_grad_(False).eval()
    model.load_state_dict(weights())
    model.num_frame_per_block = FRAMES
    width, height = SIZE
    tokens, length = width * height // 256, num_chunks * FRAMES * width * height // 256
    for block in model.blocks:
        block.self_attn.max_attention_size = length
    shape = 1, length, CONFIG.num_heads, CONFIG.dim // CONFIG.num_heads
    caches = [
        {
            "k": torch.zeros(shape),
            "v": torch.zeros(shape),
            "global_end_index": torch.tensor([0]),
            "local_end_index": torch.tensor([0]),
        }
        for _ in model.blocks
    ]
    texts: list[dict] = [{"is_init": False} for _ in model.blocks]
    prompt = text()

    def call(x: Tensor, sigma: float, chunk: int) -> Tensor:
        t = torch.full((1, FRAMES), 1000 * sigma)
        start = chunk * FRAMES * tokens
        where = {"kv_cache": caches, "crossattn_cache": texts, "current_start": start}
        return x - sigma * model(x, t=t, context=prompt, seq_len=length, **where)

    for chunk in range(num_chunks):
        size = torch.Size((1, 16, FRAMES, height // 8, width // 8))
        clean = x = renoise(chunk, 0, size)
        for step, sigma in enumerate(SIGMAS):
            if step:
                x = (1 - sigma) * clean + sigma * renoise(chunk, step, size)
            clean = call(x, sigma, chunk)
        call(clean, 0.0, chunk)
        yield clean


def import_comfyui(checkout: Path) -> None:
    sys.path.insert(0, str(checkout))
    import comfy.options

    comfy.options.enable_args_parsing(False)
    from comfy.cli_args import args

    args.cpu = True


def comfyui(checkout: Path, num_chunks: int, note: Callable[[], None]) -> Tensor:
    """The latents of ComfyUI's SamplerARVideo; `note` is called when a chunk has its last step."""
    import_comfyui(checkout)
    import comfy.samplers
    import comfy.sd

    config = {"num_heads": CONFIG.num_heads, "text_dim": CONFIG.text_dim, "freq_dim": CONFIG.freq_dim}
    metadata = {"config": json.dumps({"transformer": config | {"causal_ar": True}})}
    model = comfy.sd.load_diffusion_model_state_dict(weights(), metadata=metadata)
    guider = comfy.samplers.CFGGuider(model)
    guider.inner_set_conds({"positive": [[text(), {}]]})
    width, height = SIZE
    size = torch.Size((1, 16, FRAMES, height // 8, width // 8))
    noise = torch.cat([renoise(chunk, 0, size) for chunk in range(num_chunks)], dim=2)
    steps = iter(range(1, num_chunks * len(SIGMAS) + 1))

    def count(*_: object) -> None:
        if next(steps) % len(SIGMAS) == 0:
            note()

    sampler = comfy.samplers.ksampler("ar_video", {"num_frame_per_block": FRAMES})
    sigmas = torch.tensor([*SIGMAS, 0.0])
    found = guider.sample(noise, torch.zeros_like(noise), sampler, sigmas, callback=count, disable_pbar=True, seed=SEED)
    return model.model.process_latent_in(found)


class Clock:
    """Process seconds between one call and the next."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self._last = time.process_time()

    def __call__(self) -> None:
        now = time.process_time()
        self.seconds.append(now - self._last)
        self._last = now

    def at(self, chunk: int) -> float:
        """Milliseconds of a chunk, counted from 1: the median of it and the two before."""
        return 1000 * statistics.median(self.seconds[chunk - 3 : chunk])


def timed(chunks: Chunks) -> tuple[Clock, Tensor]:
    clock, made = Clock(), []
    for chunk in chunks:
        clock()
        made.append(chunk)
    return clock, torch.cat(made, dim=2)


def sampling(self_forcing_at: Path | None, comfyui_at: Path | None, at: tuple[int, ...]) -> dict:
    """Milliseconds of chunks by name, and the greatest difference of latents from ours with the whole past."""
    num_chunks = max(at)
    rows: dict[str, dict] = {}
    whole: Tensor | None = None
    for name, mode in (("full history", "whole"), ("histream", "histream"), ("histream-plus", "histream-plus")):
        clock, made = timed(ours(mode, num_chunks))
        whole = made if whole is None else whole
        rows[f"HiStream, {name}"] = {"ms": {chunk: clock.at(chunk) for chunk in at}}
    assert whole is not None
    others: list[tuple[str, Clock, Tensor]] = []
    if self_forcing_at:
        others.append(("Self-Forcing's code", *timed(self_forcing(self_forcing_at, num_chunks))))
    if comfyui_at:
        clock = Clock()
        others.append(("ComfyUI's SamplerARVideo", clock, comfyui(comfyui_at, num_chunks, clock)))
    for name, clock, made in others:
        difference = float((made - whole).abs().max())
        rows[name] = {"ms": {chunk: clock.at(chunk) for chunk in at}, "greatest_difference": difference}
    return rows


def decoding(self_forcing_at: Path | None, comfyui_at: Path | None) -> dict:
    """Milliseconds of a decoded frame by name, and the greatest difference of pixels from ours."""
    torch.manual_seed(SEED)
    vae = WanVAE(dim=VAE_WIDTH).requires_grad_(False).eval()
    width, height = VAE_SIZE
    latents = torch.randn(1, 16, VAE_FRAMES, height // 8, width // 8)

    def chunk_by_chunk() -> Tensor:
        decoder = StreamingDecoder(vae, normalised=False, rollback=False)
        return torch.cat([decoder.decode(chunk) for chunk in latents.split(FRAMES, dim=2)], dim=2)

    ways: dict[str, Callable[[], Tensor]] = {"HiStream, chunk by chunk": chunk_by_chunk}
    if self_forcing_at:
        import_self_forcing(self_forcing_at)
        from wan.modules.vae import WanVAE_  # type: ignore[import-not-found]

        theirs = WanVAE_(dim=VAE_WIDTH, z_dim=16, temperal_downsample=[False, True, True]).requires_grad_(False).eval()
        theirs.load_state_dict(vae.state_dict())
        ways["Wan's own, at once"] = lambda: theirs.decode(latents, [0.0, 1.0])
    if comfyui_at:
        import_comfyui(comfyui_at)
        from comfy.ldm.wan.vae import WanVAE as HostVAE

        host = HostVAE(dim=VAE_WIDTH, z_dim=16, temperal_downsample=[False, True, True]).requires_grad_(False).eval()
        host.load_state_dict(vae.state_dict())
        ways["ComfyUI's, at once"] = lambda: host.decode(latents)
    rows: dict[str, dict] = {}
    pixels: Tensor | None = None
    for name, way in ways.items():
        seconds = []
        for _ in range(3):
            start = time.process_time()
            found = way()
            seconds.append(time.process_time() - start)
        rows[name] = {"ms_per_frame": 1000 * statistics.median(seconds) / found.shape[2]}
        if pixels is not None:
            rows[name]["greatest_difference"] = float((found - pixels).abs().max())
        pixels = found if pixels is None else pixels
    return rows


def table(found: dict) -> str:
    """The figures as two tables of Markdown."""
    chunks = list(next(iter(found["sampling"].values()))["ms"])
    lines = [
        f"| ms of chunk | {' | '.join(map(str, chunks))} | greatest difference |",
        f"|---|{'---|' * len(chunks)}---|",
    ]
    for name, row in found["sampling"].items():
        lines.append(f"| {name} | {' | '.join(f'{ms:.0f}' for ms in row['ms'].values())} | {_difference(row)} |")
    lines += ["", "| decoding | ms of a frame | greatest difference |", "|---|---|---|"]
    lines += [f"| {name} | {row['ms_per_frame']:.1f} | {_difference(row)} |" for name, row in found["decoding"].items()]
    return "\n".join(lines)


def _difference(row: dict) -> str:
    return f"{row['greatest_difference']:.1g}" if "greatest_difference" in row else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--comfyui", metavar="DIR", type=Path, help="a checkout of ComfyUI 0.33")
    parser.add_argument("--self-forcing", metavar="DIR", type=Path, help="a checkout of guandeh17/Self-Forcing")
    parser.add_argument("--chunks", metavar="N", type=int, nargs="+", default=AT, help="which chunks, 3 or later")
    parser.add_argument("--out", metavar="F.json", type=Path, help="where to keep the figures")
    args = parser.parse_args()
    if min(args.chunks) < 3:
        parser.error("a figure is the median of a chunk and the two before: give --chunks 3 or later")
    for folder, holds in ((args.comfyui, "comfy/sd.py"), (args.self_forcing, "wan/modules/causal_model.py")):
        if folder and not (folder / holds).exists():
            parser.error(f"{folder} is no checkout: it has no {holds}")
    if args.out and not args.out.absolute().parent.is_dir():
        parser.error(f"the folder of {args.out} does not exist")
    torch.set_num_threads(1)
    with torch.no_grad():
        found = {
            "torch": torch.__version__,
            "sampling": sampling(args.self_forcing, args.comfyui, tuple(args.chunks)),
            "decoding": decoding(args.self_forcing, args.comfyui),
        }
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(table(found) + "\n")


if __name__ == "__main__":
    main()
