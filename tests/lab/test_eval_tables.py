"""The tables of the demo model: rows, teacher, records, what is printed and refused. Tiny random weights."""

import csv
import io
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tiny_cli import TOLD
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from histream_core import demo
from histream_core.cli import main
from histream_core.demo.text import DemoTextEncoder
from histream_core.lab.judge import ablations, records
from histream_core.lab.judge.batches import make_latents, noise_of
from histream_core.lab.judge.teacher import Solver, solve
from histream_core.network.model import WanConfig, WanModel
from histream_core.plan.presets import find_preset
from histream_core.plan.schedule import Scale
from histream_core.runs.weights import Weights
from histream_core.stream.noise import SeededNoise
from histream_core.vae.model import WanVAE

SIDE = 64
SIZE = (SIDE, SIDE)
PRESET = find_preset("demo")
CONFIG = WanConfig(dim=64, ffn_dim=64, num_heads=2, num_layers=2, text_dim=64)


def write_network(folder, seed):
    """Write a transformer and its text encoder as training/export.py does; return the transformer's path."""
    torch.manual_seed(seed)
    model = WanModel(CONFIG)
    for parameter in model.parameters():
        parameter.data.normal_(0, 0.1)
    folder.mkdir()
    save_file(model.state_dict(), folder / "demo-wan.safetensors", TOLD)
    save_file(DemoTextEncoder().state_dict(), folder / "demo-text.safetensors")
    return folder / "demo-wan.safetensors"


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("weights")
    torch.manual_seed(0)
    save_file(WanVAE(dim=2).state_dict(), folder / "vae.safetensors")
    return {name: write_network(folder / name, seed) for seed, name in enumerate(("student", "teacher", "untuned"))}


@pytest.fixture
def here(tmp_path, monkeypatch, files):
    """An empty current folder, and the tiny weights as the bundled ones."""
    student = files["student"]
    monkeypatch.setattr(demo, "TRANSFORMER_PATH", student)
    monkeypatch.setattr(demo, "TEXT_PATH", student.with_name("demo-text.safetensors"))
    monkeypatch.setattr(demo, "VAE_PATH", student.parent.parent / "vae.safetensors")
    monkeypatch.setattr(demo, "WIDTH", SIDE)
    monkeypatch.setattr(demo, "HEIGHT", SIDE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def tables(capsys):
    """A function that runs the verb and returns its JSON."""

    def run(*words):
        assert main(["eval", "--demo", "--tables", *map(str, words), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


def rows(num_pixel_frames=21, **settings):
    return {
        row.name: row for row in ablations.ablations(PRESET, size=SIZE, num_pixel_frames=num_pixel_frames, **settings)
    }


def tiny_weights():
    model = WanModel(CONFIG).requires_grad_(False)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    return Weights(model, None, PRESET, torch.device("cpu"), torch.float32)


def test_a_teacher_that_begins_at_half_resolution_ends_at_full():
    weights = tiny_weights()
    solver = Solver(steps=4, low_steps=2)
    plan = solver.plan(PRESET, size=SIZE, num_latent_frames=3)
    assert [step.scale for step in plan.chunks[0].steps] == [Scale.LOW, Scale.LOW, Scale.HIGH, Scale.HIGH]
    assert solve(weights, plan, torch.randn(1, 16, 64), SeededNoise(0), 2.0).shape == (1, 16, 3, 8, 8)
    with pytest.raises(ValueError, match="4 of 4 steps"):
        Solver(steps=4, low_steps=4)


def test_a_clip_is_the_same_alone_and_in_a_batch():
    """Seen to fail when all clips of a batch have the noise of the first."""
    torch.manual_seed(0)
    weights = tiny_weights()
    texts = torch.randn(3, 16, 64)
    row = rows()["histream-plus"]
    together = make_latents(row, weights, texts, noise_of([7, 8, 9]))
    for item, seed in enumerate((7, 8, 9)):
        alone = make_latents(row, weights, texts[item : item + 1], SeededNoise(seed))
        torch.testing.assert_close(together[item : item + 1], alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["histream", "anchor-off", "teacher"])
def test_a_row_is_charged_for_what_torch_counts(name):
    """Seen to fail when the demo model's text is counted as long as Wan's, or guidance as one pass."""
    torch.manual_seed(0)
    weights = tiny_weights()
    row = rows(21, solver=Solver(steps=3))[name]
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:  # the CPU's own is not counted
        make_latents(row, weights, torch.randn(1, 16, 64), SeededNoise(0))
    assert round(21 * row.flops_per_frame(CONFIG)) == counter.get_total_flops()


def test_every_row_leaves_out_what_it_says():
    found = rows(129, solver=Solver(), untuned=True)
    plans = {name: row.plan for name, row in found.items()}
    base = plans["histream"]
    assert next(iter(found)) == "teacher" and len(plans["teacher"].chunks) == 1
    assert [len(chunk.steps) for chunk in plans["histream-plus"].chunks[:3]] == [4, 2, 2]
    assert list(plans["full"].grids) == [Scale.HIGH]
    assert plans["history"].chunks[5].context == tuple(range(15))
    assert {len(chunk.steps) for chunk in plans["naive"].chunks} == {2}
    assert plans["untuned"] == base and found["untuned"].weights == ablations.UNTUNED
    assert plans["anchor-off"].chunks[5].context == base.chunks[5].context[1:]
    assert [plans[f"time-{kind}"].temporal.kind for kind in ("absolute", "reset")] == ["absolute", "reset"]
    assert set(plans["ntk-5"].ntk.values()) == {5.0}
    tokens = {scale: base.tokens_per_frame(scale) for scale in base.grids}
    large = replace(PRESET, trained_tokens=4)
    derived = {r.name: r for r in ablations.ablations(large, size=SIZE, num_pixel_frames=9)}["ntk-sqrt"].plan.ntk
    assert derived == {scale: max(1, (tokens[scale] / 4) ** 0.5) for scale in tokens} and max(derived.values()) == 2


def test_rows_with_the_same_calls_are_made_once():
    """Seen to fail when the temporal policy, or which keys are seen, is left out of what makes two rows differ."""
    short = ablations.twins(list(rows(9).values()))
    assert short["histream-plus"] == short["history"] == short["anchor-off"] == "histream"
    assert "naive" not in short and "full" not in short
    middle = ablations.twins(list(rows(21).values()))
    assert middle["time-absolute"] == middle["time-reset"] == "histream"
    assert "anchor-off" not in middle and "histream-plus" not in middle and "sparse" not in middle
    assert short["sparse"] == "histream"
    others = {"span-18", "anchor-walk", "anchor-average"}
    assert {middle[name] for name in others} == {"histream"}
    assert not {"time-absolute", "time-reset", *others} & ablations.twins(list(rows(129).values())).keys()


def test_arms_of_another_mode_have_names_of_their_own():
    """Both may share a folder. Seen to fail with the plan of the usual mode."""
    found = rows(129, base="histream-plus")
    assert "span-18" not in found and found.keys() >= rows(129).keys() & ablations.MODES.keys()
    assert found["histream-plus-span-18"].plan.temporal.span == 18
    assert [len(chunk.steps) for chunk in found["histream-plus-anchor-walk"].plan.chunks[:2]] == [4, 2]


def test_the_tables_are_made_of_paired_clips(here, files, tables):
    """Seen to fail when the difference is taken the other way round, or of the whole clip for the first chunk."""
    words = ["--prompts", 3, "--frames", 13, "--batch", 2, "--out", "t", "--teacher-steps", 2]
    arms = ["teacher", "histream", "naive", "untuned", "time-reset"]
    found = tables(*words, "--arms", *arms, "--teacher", files["teacher"], "--untuned", files["untuned"])
    assert list(found["arms"]) == ["teacher", "histream", "naive", "untuned", "time-reset"]
    assert found["arms"]["time-reset"]["same_as"] == "histream" and "time-reset" not in found["difference"]
    lines = list(csv.DictReader(io.StringIO((here / "t" / "clips.csv").read_text())))
    assert [line["arm"] for line in lines] == sorted(arms[:4] * 3, key=arms.index)
    for prefix, where in (("score", lambda one: one), ("first", lambda one: one["first_chunk"])):
        ours, theirs = (
            [float(line[f"{prefix}_size"]) for line in lines if line["arm"] == arm] for arm in ("naive", "histream")
        )
        assert where(found["difference"]["naive"])["size"] == pytest.approx(np.subtract(ours, theirs).mean(), abs=1e-5)
    teacher, base = (found["arms"][name] for name in ("teacher", "histream"))
    assert teacher["paper_seconds_per_frame"] == 36.56 and base["paper_seconds_per_frame"] == 0.48
    assert base["seconds_per_frame"]["denoise"] > 0 and found["arms"]["untuned"]["size"] != base["size"]
    said = (here / "t" / "tables.md").read_text()
    assert "| naive |" in said and "the same network calls as histream" in said
    for name in ("plot.svg", "sheet.png", "tables.json"):
        assert (here / "t" / name).stat().st_size > 500


@pytest.mark.slow
def test_a_run_that_was_killed_goes_on(here, tables, monkeypatch):
    """Seen to fail when clips that are there are made again, or a half line is read."""
    words = ["--prompts", 5, "--frames", 9, "--batch", 2, "--arms", "histream", "naive", "--out"]
    whole = tables(*words, "one")
    add, added = records.Records.add, []

    def killed(self, record, strip=None):
        if len(added) == 3:
            raise KeyboardInterrupt
        added.append(record)
        add(self, record, strip)

    monkeypatch.setattr(records.Records, "add", killed)
    assert main(["eval", "--demo", "--tables", *map(str, words), "two"]) == 130
    monkeypatch.setattr(records.Records, "add", add)
    with (here / "two" / "clips.jsonl").open("a") as file:
        file.write('{"arm": "histream", "number": 3, "se')
    again = tables(*words, "two")
    one, two = ((here / name / "clips.jsonl").read_text().splitlines() for name in ("one", "two"))
    assert len(one) == len(two) == 10
    for arm in ("histream", "naive"):
        assert again["arms"][arm]["intervals"] == whole["arms"][arm]["intervals"]
    assert again["difference"] == whole["difference"]


def test_other_settings_are_refused_and_other_arms_may_join(here, files, tables, refusal):
    """Seen to fail when only the settings that both runs name by chance are written down."""
    words = ["--demo", "--tables", "--prompts", 2, "--frames", 9, "--out", "t", "--arms"]
    tables(*words[2:], "histream")
    assert "was made with frames 9, asked for is 13" in refusal(*words, "histream", "--frames", 13)
    assert "was made with batch 1" in refusal(*words, "histream", "--batch", 2)
    found = tables(*words[2:], "histream", "untuned", "--untuned", files["untuned"])
    assert found["difference"]["untuned"]["intervals"]["size"]
    assert "was made with untuned" in refusal(*words, "histream", "untuned", "--untuned", files["teacher"])
    assert len((here / "t" / "clips.jsonl").read_text().splitlines()) == 4


def test_what_cannot_be_tabled_is_refused_before_anything_is_made(here, files, refusal, tmp_path):
    words = ["--demo", "--tables"]
    assert "give one with --out" in refusal(*words)
    words += ["--out", "t"]
    assert "required: --demo" in refusal("--tables", "--out", "t")
    assert "unrecognized arguments: --out t (see histream eval --demo --help)" in refusal("--demo", "--out", "t")
    assert "unrecognized arguments: --controls (see" in refusal(*words, "--controls")
    assert "invalid choice: 'full'" in refusal(*words, "--mode", "full")
    assert "there is no arm fast: use some of histream, histream-plus" in refusal(*words, "--arms", "fast")
    assert "teacher with --teacher FILE" in refusal(*words, "--arms", "teacher")
    assert "use --frames 9 or more" in refusal(*words, "--frames", 5)
    assert "use 9 or 13" in refusal(*words, "--frames", 10)
    assert "use --batch 1" in refusal(*words, "--batch", 0)
    assert "full is not among the arms" in refusal(*words, "--against", "full", "--arms", "histream")
    assert "no.safetensors does not exist" in refusal(*words, "--teacher", "no.safetensors")
    lonely = here / "alone.safetensors"
    lonely.write_bytes(files["teacher"].read_bytes())
    assert "demo-text.safetensors does not exist" in refusal(*words, "--teacher", lonely)
    assert "multiple of 32" in refusal(*words, "--size", "250x250")
    assert [path.name for path in here.iterdir()] == ["alone.safetensors"]
