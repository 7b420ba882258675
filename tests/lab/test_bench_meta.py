"""The counted bars: each is kept, each control fails, and what counts them counts right."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
import torch
from slow import slow

from histream_core.cli import main
from histream_core.cost.cost import Cost, PassSize, pass_flops
from histream_core.lab.bench import meta
from histream_core.lab.bench.census import Census
from histream_core.lab.bench.dry_run import dry_run
from histream_core.lab.bench.naive import decode_at_once, full_history_plan, unfused_block
from histream_core.network import transfer
from histream_core.network.forward import Denoiser
from histream_core.network.model import WAN_1_3B
from histream_core.plan.presets import find_preset
from histream_core.plan.schedule import Scale
from histream_core.vae.decode import StreamingDecoder
from histream_core.vae.model import WanVAE

ROOT = Path(__file__).parents[2]
QUICK = ("layer", "small_decoding")
LONG = ("prompt_and_waits", "operations", "savings", "passes", "levers", "long_run", "caches", "decoding", "graphs")


@pytest.mark.parametrize("group", [*QUICK, *map(slow, LONG)])
def test_every_counted_bar_is_kept_and_every_control_fails(monkeypatch, group):
    """Seen to fail with plain copies of the noise, with the keys projected in every call, with a block that adds
    instead of `addcmul_`, with cache passes that run to the end, and with a cache pass after the last chunk."""
    monkeypatch.setattr(meta, "LONG", 20)  # chunks of the long runs, the later of which are all alike
    bars = list(getattr(meta, group)())
    assert bars
    for bar in bars:
        assert bar.ok, bar
        assert bar.naive is not None and bar.caught, bar


def test_all_groups_are_part_of_the_bench(monkeypatch):
    groups = [*QUICK, *LONG]
    for group in groups:
        monkeypatch.setattr(meta, group, lambda group=group: iter([group]))
    assert sorted(meta.meta_bars()) == sorted(groups)


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["histream", "histream-plus"])
def test_thirty_layers_follow_from_one_and_two(mode):
    assert meta.tflops(mode) == pytest.approx(Cost(WAN_1_3B, meta.hd(mode)).tflops_per_frame, rel=1e-12)


@pytest.mark.slow
def test_the_published_schedule_costs_what_the_paper_implies():
    """77.1 and 53.8 TFLOP a frame: the figures that reproduce the published seconds."""
    assert meta.published_tflops("histream") == pytest.approx(77.1, abs=0.05)
    assert meta.published_tflops("histream-plus") == pytest.approx(53.83, abs=0.05)


# What counts


def counts(work):
    census = Census()
    with census():
        work()
    return census.take()


def test_a_value_read_back_is_a_wait():
    x = torch.empty(3, device="meta")
    assert counts(lambda: x + 1).waits == 0
    for read in (lambda: x.sum().item(), lambda: bool(x.any()), lambda: float(x[0]), lambda: torch.equal(x, x)):
        assert counts(read).waits == 1


def test_a_copy_that_blocks_is_a_wait_and_an_upload_is_none():
    x = torch.zeros(3)
    assert counts(lambda: x.to("meta")).waits == 1
    assert counts(lambda: torch.tensor([1], device="meta")).waits == 1
    assert counts(lambda: torch.empty(3, device="meta").copy_(x)).waits == 1
    assert counts(lambda: transfer.upload(x, "meta")).waits == 0


def test_attention_is_one_kernel_and_its_products_are_counted():
    q, k = torch.empty(1, 2, 6, 8, device="meta"), torch.empty(1, 2, 9, 8, device="meta")
    found = counts(lambda: torch.nn.functional.scaled_dot_product_attention(q, k, k))
    assert (found.kernels, found.flops) == (1, 2 * 2 * (2 * 6 * 9 * 8))


def test_views_are_no_kernels_and_other_shapes_leave_another_fingerprint():
    x = torch.empty(4, 6, device="meta")
    assert counts(lambda: x.transpose(0, 1).unflatten(0, (2, 3))[1:]).kernels == 0
    assert counts(lambda: x + 1).shapes == counts(lambda: x + 1).shapes
    assert counts(lambda: x + 1).shapes != counts(lambda: x[1:] + 1).shapes


def test_bytes_moved_are_those_written_into_a_cache_and_those_copied_out_of_it():
    held, new = torch.empty(10, 4, device="meta"), torch.empty(2, 4, device="meta")

    def moved(work):
        census = Census()
        census.watch(held)
        with census():
            work()
        return census.take().moved

    assert moved(lambda: held.index_copy_(0, torch.empty(2, dtype=torch.long, device="meta"), new)) == new.nbytes
    assert moved(lambda: held[2:4].copy_(new)) == new.nbytes
    assert moved(lambda: torch.cat([held[2:], new])) == held.nbytes
    assert moved(lambda: (held[1:], new + 1)) == 0


def test_the_peak_is_what_is_alive_together():
    census = Census(memory=True)
    with census():
        x = torch.empty(100, device="meta")
        x = x + 1
        x = x + 1
    assert census.peak_bytes == 2 * x.nbytes


# The naive variants do the same work


def test_the_block_as_usually_written_gives_the_same_picture():
    model, plan = tiny.wan(), tiny.plan(num_frames=9)
    usual = tiny.video(plan, model=model, denoise=Denoiser(model, block_forward=unfused_block))
    torch.testing.assert_close(usual, tiny.video(plan, model=model), atol=1e-4, rtol=1e-4)


def test_decoding_at_once_gives_the_same_picture():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        vae, latents = WanVAE(dim=4).requires_grad_(False), torch.randn(1, 16, 5, 8, 8)
    streamed = StreamingDecoder(vae, normalised=False).decode(latents)
    torch.testing.assert_close(decode_at_once(vae, latents), streamed, atol=1e-4, rtol=1e-4)


def test_a_full_history_costs_what_the_table_says():
    """4 + 1 passes of a chunk, the last one too: 218 TFLOP a frame at 1920x1088, as for Self-Forcing."""
    preset = find_preset("self-forcing")
    plan = full_history_plan(preset, width=1920, height=1088, num_frames=21)
    frame = plan.tokens_per_frame(Scale.HIGH)
    visible = [(len(chunk.frames) + len(chunk.context)) * frame for chunk in plan.chunks]
    flops = sum(5 * pass_flops(WAN_1_3B, PassSize(3, 3 * frame, keys)) for keys in visible)
    assert flops / 81 / 1e12 == pytest.approx(218.4, abs=0.1)


@pytest.mark.slow
def test_nothing_but_four_packages_is_needed():
    """On a machine of its own there is no PyAV, no transformers, no ComfyUI. Seen to fail with an import of `media`."""
    code = (
        "import sys; sys.path.append(sys.argv[1])\n"
        "for name in ('av', 'kornia', 'transformers', 'comfy', 'sentencepiece'): sys.modules[name] = None\n"
        "from histream_core.lab.bench import cpu, meta, sheet_network, sheet_parts\n"
        "from histream_core.cli import main\n"
        "meta.meta_bars = lambda: iter(())\n"
        "sys.exit(main(['bench', '--meta']))"
    )
    subprocess.run([sys.executable, "-c", code, str(ROOT)], check=True, capture_output=True)


def test_the_last_line_is_one_object_with_bars(monkeypatch, capsys):
    monkeypatch.setattr(meta, "meta_bars", meta.small_decoding)
    assert main(["bench", "--meta", "--json"]) == 0
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["ok"] and len(found["bars"]) == len(found["controls"]) == 3


def test_a_dry_run_is_a_whole_run():
    run = dry_run(replace(WAN_1_3B, num_layers=1), meta.hd("histream-plus", 6))
    assert [len(calls) for calls in run.per_chunk(lambda call: call.step.scale)] == [6, 2]
    assert [call.is_cache_pass for call in run.calls] == [False] * 4 + [True] * 2 + [False] * 2
