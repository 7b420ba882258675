"""Rows of the sheet about parts: the machine, attention, matrix products, rotations, convolutions, the VAE."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ...network.model import MAX_TOKENS
from ...network.ops.attention import PACKAGES, Attention, is_installed, packaged, sdpa
from ...network.ops.elementwise import PLAIN, Elementwise, check_installed, fused
from ...network.ops.linears import fp8_linear, to_fp8
from ...network.ops.rope import Rope, rotate
from ...plan.schedule import Scale
from ...plan.sizes import PIXELS_PER_CELL
from ...vae.decoders import most_strips, open_decoder, slow_convolutions
from ...vae.model import WanVAE
from ...vae.taehv import TAEHV
from .naive import rotate_complex
from .sheet import ABSENT, Row, Setup, try_row

BACKENDS = {
    "flash": SDPBackend.FLASH_ATTENTION,
    "cudnn": SDPBackend.CUDNN_ATTENTION,
    "efficient": SDPBackend.EFFICIENT_ATTENTION,
    "math": SDPBackend.MATH,
}
MATH_LIMIT = 2**31
"""The largest number of scores for the math backend, which holds all of them."""


def machine(setup: Setup) -> Iterator[Row]:
    """The machine that is measured, and the sizes that the other rows are measured at."""
    if setup.device.type == "cuda":
        properties = torch.cuda.get_device_properties(setup.device)
        versions = f"torch {torch.__version__}, cuda {torch.version.cuda}, cudnn {torch.backends.cudnn.version()}"
        note = "; ".join(filter(None, [properties.name, versions, slow_convolutions()]))
        yield setup.row("device memory", properties.total_memory / 2**30, "GiB", note=note, is_main=True)
    else:
        yield Row("device", None, note=f"{setup.device.type}, tiny sizes: no figure here says anything about a GPU")
    plan = setup.plan("histream")
    for scale in (Scale.HIGH, Scale.LOW):
        yield setup.row(f"tokens of a chunk, {scale.value}", 3 * plan.tokens_per_frame(scale), "tokens")


def ceilings(setup: Setup) -> Iterator[Row]:
    """The most that the device does: bytes copied and operations of matrix products in a second."""
    size = 2**30 if setup.has_targets else 2**20
    x = torch.empty(size, dtype=torch.uint8, device=setup.device)
    there, pinned = torch.empty_like(x), torch.empty(size, dtype=torch.uint8, pin_memory=setup.device.type == "cuda")
    for words, moved, copy in (
        ("copy within the device, read and written", 2 * size, partial(there.copy_, x, non_blocking=True)),
        ("copy to main memory, pinned", size, partial(pinned.copy_, x, non_blocking=True)),
        ("copy from main memory, pinned", size, partial(there.copy_, pinned, non_blocking=True)),
    ):
        yield try_row(setup, words, "GB/s", lambda copy=copy, moved=moved: moved / setup.ms(copy) / 1e6, is_main=True)
    side = 8192 if setup.has_targets else 64
    a, b = _random(setup, side, side), _random(setup, side, side)
    rate = partial(_rate, setup, 2 * side**3, partial(torch.mm, a, b))
    yield try_row(setup, f"product {side} x {side} x {side}", "TFLOP/s", rate, is_main=True)
    for tokens_, inner, outer in _product_sizes(setup):
        x, weight = _random(setup, tokens_, inner), _random(setup, outer, inner)
        rate = partial(_rate, setup, 2 * tokens_ * inner * outer, partial(torch.nn.functional.linear, x, weight))
        yield try_row(setup, f"product {tokens_} x {inner} x {outer}", "TFLOP/s", rate, 600.0, at_least=True)


def _rate(setup: Setup, flops: int, work: Callable[[], Tensor]) -> float:
    """Tera-operations a second of `work`."""
    return flops / setup.ms(work) / 1e9


def attention(setup: Setup) -> Iterator[Row]:
    """Milliseconds, operations a second and error of PyTorch's kernels; flash against cuDNN at the main size."""
    for words, (queries, keys) in _attention_sizes(setup).items():
        rates = {}
        for name, backend in BACKENDS.items():
            rows = list(_attend(setup, f"attention {words}, {name}", partial(_by, backend), name, queries, keys))
            rates[name] = rows[0].value
            yield from rows
        if words == "high, later" and rates["flash"] and rates["cudnn"]:
            ratio = rates["flash"] / rates["cudnn"]
            yield setup.row("attention high, later, time of flash / cudnn", ratio, "times", 1.4, at_least=True)


def packaged_attention(setup: Setup) -> Iterator[Row]:
    """Milliseconds, operations a second and error of the kernels of packages."""
    for words, (queries, keys) in _attention_sizes(setup).items():
        for name, package in PACKAGES.items():
            call = partial(packaged, package) if is_installed(package) else None
            yield from _attend(setup, f"attention {words}, {name}", call, name, queries, keys)


def _attention_sizes(setup: Setup) -> dict[str, tuple[int, int]]:
    """Queries and keys of the calls of a later chunk."""
    high, low = (3 * setup.plan("histream").tokens_per_frame(scale) for scale in (Scale.HIGH, Scale.LOW))
    return {"high, later": (high, 2 * high), "low, later": (low, 2 * low), "cross": (high, MAX_TOKENS)}


def _by(backend: SDPBackend, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    with sdpa_kernel(backend):
        return sdpa(q, k, v)


def _attend(setup: Setup, row: str, call: Attention | None, name: str, queries: int, keys: int) -> Iterator[Row]:
    if call is None:
        yield setup.row(row, None, "ms", note=f"{ABSENT}: not installed")
        return
    heads, head_dim = setup.config.num_heads, setup.config.head_dim
    if name == "math" and heads * queries * keys > MATH_LIMIT:
        yield setup.row(row, None, "ms", note=f"{ABSENT}: it would hold {heads * queries * keys / 1e9:.0f} G scores")
        return
    q, k, v = (_random(setup, 1, length, heads, head_dim) for length in (queries, keys, keys))
    flops = 4 * queries * keys * heads * head_dim
    first = try_row(setup, row, "ms", lambda: setup.ms(lambda: call(q, k, v)), otherwise=ABSENT)
    yield first
    if first.value:
        yield setup.row(f"{row}, rate", flops / first.value / 1e9, "TFLOP/s")
        yield setup.row(f"{row}, error", _attention_error(call, q, k, v), "relative", 0.02)


def _attention_error(call: Attention, q: Tensor, k: Tensor, v: Tensor) -> float:
    """The relative error of the first 64 queries against plain matrix products in float32."""
    few = q[:, :64]
    scores = torch.einsum("blnd,bknd->bnlk", few.float(), k.float()) / few.shape[-1] ** 0.5
    exact = torch.einsum("bnlk,bknd->blnd", scores.softmax(dim=-1), v.float())
    return float((call(q, k, v)[:, :64].float() - exact).norm() / exact.norm())


def _random(setup: Setup, *shape: int) -> Tensor:
    return torch.randn(shape, device=setup.device, dtype=setup.dtype)


def fp8_products(setup: Setup) -> Iterator[Row]:
    """Milliseconds of a layer's matrix products in FP8 with the rounding, and the gain over unrounded ones."""
    for tokens_, inner, outer in _product_sizes(setup):
        x, weight = _random(setup, tokens_, inner), _random(setup, outer, inner)
        words = f"product {tokens_} x {inner} x {outer}, FP8"
        plain = setup.ms(lambda x=x, weight=weight: torch.nn.functional.linear(x, weight))
        first = try_row(
            setup, words, "ms", lambda x=x, weight=weight: setup.ms(lambda: fp8_linear(x, weight)), otherwise=ABSENT
        )
        yield first
        yield try_row(setup, f"{words}, the rounding in it", "ms", lambda x=x: setup.ms(lambda: to_fp8(x)))
        if first.value:
            yield setup.row(f"{words}, time without / with", plain / first.value, "times", 1.4, at_least=True)


def _product_sizes(setup: Setup) -> tuple[tuple[int, int, int], ...]:
    tokens_, dim, ffn = 3 * setup.plan("histream").tokens_per_frame(Scale.HIGH), setup.config.dim, setup.config.ffn_dim
    return (tokens_, dim, dim), (tokens_, dim, ffn), (tokens_, ffn, dim)


def small_parts(setup: Setup) -> Iterator[Row]:
    """Norms, rotations and convolutions alone."""
    yield from norms(setup)
    yield from rotations(setup)
    yield from convolutions(setup)


def norms(setup: Setup) -> Iterator[Row]:
    """Milliseconds of norm, modulation and rotations of one pass at HIGH, by PyTorch's kernels and by fused ones."""
    height, width = (cells // 2 for cells in setup.plan("histream").grids[Scale.HIGH])
    tokens_, dim = 3 * height * width, setup.config.dim
    table = Rope(setup.config.head_dim, (height, width), device=setup.device).table([0, 1, 2])
    norm = torch.nn.LayerNorm(dim, eps=1e-6, elementwise_affine=False)
    x, shift, scale = _random(setup, 1, tokens_, dim), _random(setup, 1, 1, dim), _random(setup, 1, 1, dim)
    for name, kernels in elementwise_kernels():
        if kernels is None:
            yield setup.row(f"norm with modulation, {name}", None, "ms", note=f"{ABSENT}: not installed")
            continue
        for words, work in (
            ("norm with modulation", partial(kernels.modulate, norm, x, shift, scale)),
            ("rotations of one tensor", partial(kernels.rotate, x.unflatten(2, (setup.config.num_heads, -1)), table)),
        ):
            yield try_row(setup, f"{words}, {name}", "ms", lambda work=work: setup.ms(work))


def elementwise_kernels() -> Iterator[tuple[str, Elementwise | None]]:
    """PyTorch's kernels and the fused ones; None where comfy-kitchen is not installed."""
    yield "plain", PLAIN
    try:
        check_installed("fused")
    except ValueError:
        yield "fused", None
    else:
        yield "fused", fused()


def rotations(setup: Setup) -> Iterator[Row]:
    """Milliseconds of rotations of one pass at HIGH: complex double precision as in Wan's code, eager, compiled."""
    height, width = (cells // 2 for cells in setup.plan("histream").grids[Scale.HIGH])
    table = Rope(setup.config.head_dim, (height, width), device=setup.device).table([0, 1, 2])
    x = _random(setup, 1, 3 * height * width, setup.config.num_heads, setup.config.head_dim)
    compiled = torch.compile(rotate, dynamic=False, backend=setup.backend)
    taken = {}
    for name, turn in (("complex", rotate_complex), ("eager", rotate), ("compiled", compiled)):
        taken[name] = setup.ms(lambda turn=turn: turn(x, table))
        yield setup.row(f"rotations of one tensor, {name}", taken[name], "ms")
    ratio = taken["complex"] / taken["compiled"]
    yield setup.row("rotations, complex / compiled", ratio, "times", 8.0, at_least=True)


def convolutions(setup: Setup) -> Iterator[Row]:
    """Milliseconds of the VAE's widest convolution at full resolution, in both memory layouts."""
    channels = setup.vae_width
    conv = torch.nn.Conv3d(channels, channels, 3, padding=(0, 1, 1)).to(setup.device, setup.dtype)
    x = _random(setup, 1, channels, 4, setup.height, setup.width)
    for name, layout in (("contiguous", torch.contiguous_format), ("channels last", torch.channels_last_3d)):
        laid, module = x.contiguous(memory_format=layout), conv.to(memory_format=layout)  # pyright: ignore[reportCallIssue]

        def convolve(laid: Tensor = laid, module: torch.nn.Module = module) -> Tensor:
            with torch.no_grad():
                return module(laid)

        yield try_row(setup, f"convolution at full resolution, {name}", "ms", lambda work=convolve: setup.ms(work))


def random_vae(setup: Setup, *, part: int = 1) -> WanVAE:
    """A Wan VAE with random weights; `part` 4 has a quarter of its width, as a pruned VAE has."""
    torch.manual_seed(0)
    with torch.device(setup.device):
        return WanVAE(dim=setup.vae_width // part).requires_grad_(False).eval().to(setup.dtype)


def random_taehv(setup: Setup) -> TAEHV:
    """A TAEHV with random weights, of the published size if the VAE is of the published size."""
    torch.manual_seed(0)
    with torch.device(setup.device):
        vae = TAEHV() if setup.has_targets else TAEHV(widths=(8, 8, 4, 4))
        return vae.requires_grad_(False).eval().to(setup.dtype)


def decoding(setup: Setup) -> Iterator[Row]:
    """Milliseconds per pixel frame and peak memory of every decoder and its options."""
    for name, make, options, target in (
        ("channels last", random_vae, {"channels_last": True}, 70.0),
        ("native", random_vae, {}, 110.0),
        ("TAEHV", random_taehv, {}, 10.0),
        ("TAEHV, channels last", random_taehv, {"channels_last": True}, None),
        ("a quarter of the width", partial(random_vae, part=4), {}, None),
        ("2 strips", random_vae, {"strips": 2}, None),
    ):
        setup.forget()
        per_frame = partial(_decode_ms, setup, make, options)
        if most_strips(max(setup.width, setup.height) // PIXELS_PER_CELL) < options.get("strips", 1):
            yield setup.row(f"VAE decode, {name}", None, "ms/frame", note=f"{ABSENT}: the picture is too small")
            continue
        yield try_row(setup, f"VAE decode, {name}", "ms/frame", per_frame, target)
        note = "" if setup.device.type == "cuda" else f"{ABSENT}: this device does not tell"
        yield setup.row(f"VAE decode, {name}, peak memory", setup.peak_gib(), "GiB", note=note)


def _decode_ms(setup: Setup, make: Callable[[Setup], torch.nn.Module], options: dict) -> float:
    """Milliseconds per pixel frame of a later chunk."""
    decoder = open_decoder(make(setup), **options)
    cells = setup.height // PIXELS_PER_CELL, setup.width // PIXELS_PER_CELL
    latents = torch.randn(1, 16, 3, *cells, device=setup.device)
    taken = [setup.seconds(lambda: decoder.decode(latents)) for _ in range(4)]
    return 1000 * statistics.median(taken[2:]) / 12
