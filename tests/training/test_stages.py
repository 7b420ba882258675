"""Every stage of the training by its command, at tiny sizes: end to end, killed and continued, refused."""

import json
import random

import pytest
import torch
from slow import slow

from histream_core import demo
from histream_core.demo import painter
from histream_core.demo.text import DemoTextEncoder
from histream_core.network.cache.tiers import make_caches
from histream_core.network.forward import Denoiser, Text
from histream_core.plan.make import make_plan
from histream_core.plan.presets import find_preset
from histream_core.plan.schedule import Scale
from histream_core.stream.noise import SeededNoise
from histream_core.stream.prompts import Prompt
from histream_core.stream.stream import Stream
from histream_core.vae.decode import StreamingDecoder
from training import (
    distill,
    export,
    loop,
    make_bank,
    make_pairs,
    train_student,
    train_teacher,
    train_vae,
)
from training.captions import DROPOUT, PARTIAL_SHARE
from training.checkpoint import read
from training.data import Bank, Pairs
from training.make_bank import encode_all

SIZE = ("--size", "64")
TINY = ("--dim", "24", "--ffn-dim", "24", "--heads", "2", "--layers", "2")
HELD_OUT = sorted(painter.HELD_OUT)[0]


@pytest.fixture(scope="module", autouse=True)
def small_pictures():
    """Train the VAE on 32x32 pixels only, as in its first steps."""
    with pytest.MonkeyPatch.context() as patched:
        batch = train_vae.batch
        patched.setattr(train_vae, "batch", lambda rng, progress, pictures=None: batch(rng, 0.0, pictures))
        yield


@pytest.fixture(scope="module")
def runs(tmp_path_factory, small_pictures):
    """A folder with a run of every stage, each begun from the one before; three steps long at most."""
    folder = tmp_path_factory.mktemp("runs")
    train_vae.main(["--out", str(folder / "vae"), "--steps", "1", "--dim", "2"])
    vae, bank = str(folder / "vae" / "checkpoint.pt"), str(folder / "bank.pt")
    make_bank.main(["--vae", vae, "--out", bank, "--every", "76", "--size", "128"])
    train_teacher.main(teacher(folder))
    make_pairs.main(["--teacher", point(folder, "teacher"), "--bank", bank, "--out", str(folder / "pairs.pt"), *SIZE,
                     "--count", "3", "--batch", "2", "--ode-steps", "2"])  # fmt: skip
    train_student.main(student(folder))
    distill.main(distillation(folder))
    export.main(["--vae", vae, "--bank", bank, "--network", point(folder, "distill"), "--out", str(folder / "files")])
    return folder


def point(folder, run):
    return str(folder / run / "checkpoint.pt")


def vae(folder, out="vae", steps=3):
    return ["--out", str(folder / out), "--steps", str(steps), "--dim", "2"]


def teacher(folder, out="teacher", steps=3):
    return ["--bank", str(folder / "bank.pt"), "--out", str(folder / out), "--steps", str(steps), *SIZE, *TINY,
            "--batch", "1", "--grids", "4", "8", "--repa-weight", "0.5", "--shape-groups"]  # fmt: skip


def student(folder, out="student", steps=3):
    return ["--begin", point(folder, "teacher"), "--bank", str(folder / "bank.pt"), "--out", str(folder / out), *SIZE,
            "--pairs", str(folder / "pairs.pt"), "--steps", str(steps), "--batch", "1", "--noise-coupled",
            "--repa-weight", "0.5"]  # fmt: skip


def corrected(folder, out="corrected", steps=3):
    return ["--begin", point(folder, "student"), "--bank", str(folder / "bank.pt"), "--out", str(folder / out), *SIZE,
            "--videos", "3", "--videos-share", "1", "--longest", "3", "--steps", str(steps), "--batch", "1",
            "--shape-groups", "--own-low"]  # fmt: skip


def distillation(folder, out="distill", steps=3):
    return ["--begin", point(folder, "student"), "--teacher", point(folder, "teacher"), *SIZE, "--chunks", "2",
            "--bank", str(folder / "bank.pt"), "--out", str(folder / out), "--steps", str(steps), "--batch", "1",
            "--fake-updates", "2", "--noise-coupled", "--regression-weight", "0.5", "--repa-weight", "0.5",
            "--lead", "1", "--modes", "histream", "histream-plus"]  # fmt: skip


@pytest.mark.slow
def test_the_exported_files_are_the_demos_and_make_a_clip(runs, monkeypatch):
    for name in ("TRANSFORMER", "VAE", "TEXT"):
        path = getattr(demo, f"{name}_PATH")
        monkeypatch.setattr(demo, f"{name}_PATH", runs / "files" / path.name)
    model, encoder = demo.load_transformer(), DemoTextEncoder.load(demo.TEXT_PATH)
    plan = make_plan(find_preset("demo"), "histream-plus", size=(64, 64), num_latent_frames=6)
    prompts = [Prompt(Text(encoder.encode(demo.PROMPT)))]
    stream = Stream(plan, Denoiser(model), make_caches(plan, model), SeededNoise(1), prompts)
    decoder = StreamingDecoder(demo.load_vae())
    frames = torch.cat([decoder.decode(chunk) for chunk in stream.chunks()], dim=2)
    assert frames.shape == (1, 3, 21, 64, 64)
    assert torch.isfinite(frames).all()
    trained = read(runs / "distill" / "checkpoint.pt")["network"]["average"]["model.head.head.weight"]
    assert trained.abs().max() > 0
    torch.testing.assert_close(model.head.head.weight, trained.half().float())


@pytest.mark.parametrize(
    ("stage", "arguments"),
    [
        slow(train_vae, vae),
        slow(train_teacher, teacher),
        (train_student, student),
        slow(train_student, corrected),
        slow(distill, distillation),
    ],
    ids=["vae", "teacher", "student", "corrected", "distill"],
)
def test_a_run_that_was_killed_continues_to_the_same_numbers(stage, arguments, runs, tmp_path, monkeypatch):
    """Seen to fail with the state of Python's generator, of torch's, or the momenta left out of the checkpoint."""
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    stage.main(arguments(runs, tmp_path / "whole", 3))
    with monkeypatch.context() as killed:
        killed.setattr(loop, "save", dying(loop.save))
        with pytest.raises(KeyboardInterrupt):
            stage.main(arguments(runs, tmp_path / "cut", 3))
    assert read(tmp_path / "cut" / "checkpoint.pt")["state"]["step"] == 1
    assert len(curves(tmp_path / "cut")) == 2
    stage.main(arguments(runs, tmp_path / "cut", 3))
    assert curves(tmp_path / "cut") == curves(tmp_path / "whole")
    whole, cut = (read(tmp_path / name / "checkpoint.pt") for name in ("whole", "cut"))
    whole["state"].pop("seconds"), cut["state"].pop("seconds")
    assert_same(whole, cut)


def test_a_run_stopped_early_is_the_beginning_of_the_whole_one(runs, tmp_path):
    """Seen to fail with a schedule that ends where the run stops."""
    teacher_run = teacher(runs, tmp_path / "run", 3)
    train_teacher.main([*teacher_run, "--until", "2"])
    assert read(tmp_path / "run" / "checkpoint.pt")["state"]["step"] == 2
    train_teacher.main(teacher_run)
    found, expected = (read(folder / "checkpoint.pt") for folder in (tmp_path / "run", runs / "teacher"))
    assert_same(found["network"], expected["network"])


def dying(save):
    """A `save` that stops the run at its second call."""
    saved = []

    def wrapped(path, state, **parts):
        if saved:
            raise KeyboardInterrupt
        saved.append(path)
        save(path, state, **parts)

    return wrapped


def curves(folder):
    lines = [json.loads(line) for line in (folder / "losses.jsonl").read_text("utf-8").splitlines()]
    return [{name: value for name, value in line.items() if name != "seconds"} for line in lines]


def assert_same(one, other):
    assert type(one) is type(other)
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same(one[key], other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def test_loss_curves_are_a_line_of_json_each(runs):
    lines = curves(runs / "teacher")
    assert [line["step"] for line in lines] == [3]
    assert {"flow 4", "repa"} <= lines[0].keys()


def test_a_run_with_other_settings_is_refused(runs):
    with pytest.raises(ValueError, match=r"holds a run with batch 1, asked for is 2.*another --out"):
        train_teacher.main([*teacher(runs), "--batch", "2"])


@pytest.mark.parametrize("cells", [7, 10])
def test_windows_that_do_not_fit_are_refused(runs, cells):
    with pytest.raises(ValueError, match=f"--crop {cells}: give an even number of cells, at most 8"):
        train_student.main([*corrected(runs, "none"), "--crop", str(cells)])


def test_a_run_of_no_length_is_refused(runs):
    with pytest.raises(ValueError, match="--steps 1 or more"):
        train_teacher.main(teacher(runs, "none", steps=0))


@pytest.mark.parametrize(
    ("stage", "arguments"), [(train_teacher, teacher), (train_student, student), (distill, distillation)]
)
def test_a_bank_that_is_too_small_is_refused(stage, arguments, runs):
    with pytest.raises(ValueError, match="16 cells a side but 32 are asked for: train with --size 128"):
        stage.main([*arguments(runs, "none"), "--size", "256", *(["--grids", "32"] if stage is train_teacher else [])])


def test_a_checkpoint_that_is_not_there_is_named(runs, tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist: run the stage that makes it first"):
        train_student.main(student(tmp_path))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (["--dmd-weight", "0", "--regression-weight", "0"], "nothing to learn from"),
        (["--places", "4"], "--noise-coupled, or --places 1"),
    ],
)
def test_a_distillation_that_cannot_work_is_refused(changed, message, runs):
    arguments = [argument for argument in distillation(runs, "none") if argument != "--noise-coupled"]
    with pytest.raises(ValueError, match=message):
        distill.main([*arguments, *changed])
    assert not (runs / "none").exists()


def test_distribution_matching_without_a_teacher_is_refused(runs):
    arguments = distillation(runs, "none")
    at = arguments.index("--teacher")
    with pytest.raises(ValueError, match="needs the teacher"):
        distill.main(arguments[:at] + arguments[at + 2 :])


def test_held_out_combinations_are_refused_by_every_stage(runs, monkeypatch):
    """Seen to fail without the check of the bank, or that of the pairs."""
    with pytest.raises(painter.HeldOutError):
        Bank(torch.zeros(1, 4, 16, 16, 16), [HELD_OUT])
    found = read(runs / "pairs.pt")
    assert len(found["combinations"]) == len(found["tokens"]) == len(found["latents"]) == 3
    with pytest.raises(painter.HeldOutError):
        Pairs(found | {"combinations": [*found["combinations"][:2], list(painter.astuple(HELD_OUT))]})
    with pytest.raises(painter.HeldOutError):
        encode_all(None, [HELD_OUT], 128, 1.0, "cpu")
    monkeypatch.setattr(train_vae, "TRAINING", [HELD_OUT])
    with pytest.raises(painter.HeldOutError):
        train_vae.batch(random.Random(0), 0.5)
    monkeypatch.setattr(painter, "training_combinations", lambda: [HELD_OUT])
    with pytest.raises(painter.HeldOutError):
        make_bank.main(["--vae", point(runs, "vae"), "--out", str(runs / "other.pt")])


@pytest.mark.parametrize("low", [(DROPOUT, PARTIAL_SHARE), (0.0, 0.5)])
def test_whole_captions_are_for_high_and_shares_for_low(runs, monkeypatch, tmp_path, low):
    """Seen to fail with whole captions everywhere, and nowhere."""
    seen, draw, loss = [], Bank.draw, train_student.TeacherForcing.loss

    def drawn(self, rng, count, frames, drawing, low):
        seen.append(drawing)
        return draw(self, rng, count, frames, drawing, low)

    def scaled(self, clips, start, scale, *args, **options):
        seen.append(scale)
        return loss(self, clips, start, scale, *args, **options)

    monkeypatch.setattr(Bank, "draw", drawn)
    monkeypatch.setattr(train_student.TeacherForcing, "loss", scaled)
    arguments = ["--out", str(tmp_path / "run"), "--whole-captions", "--videos", "0"]
    arguments += ["--prompt-dropout", str(low[0]), "--partial-captions", str(low[1])]
    train_student.main(corrected(runs, steps=12) + arguments)
    shares = {(scale, drawing.dropout, drawing.partial) for drawing, scale in zip(seen[::2], seen[1::2], strict=True)}
    assert shares == {(Scale.HIGH, 0, 0), (Scale.LOW, *low)}


def test_pairs_that_were_killed_go_on_to_the_same(runs, monkeypatch, tmp_path):
    """Seen to fail with one seed for all batches."""
    whole, part = read(runs / "pairs.pt"), tmp_path / "pairs.pt"
    arguments = ["--teacher", point(runs, "teacher"), "--bank", str(runs / "bank.pt"), "--out", str(part), *SIZE,
                 "--batch", "2", "--ode-steps", "2"]  # fmt: skip
    make_pairs.main([*arguments, "--count", "2"])
    assert not torch.equal(whole["noise"][0], whole["noise"][2])
    make_pairs.main([*arguments, "--count", "3"])
    assert_same(read(part), whole)


@pytest.mark.parametrize(
    ("stage", "arguments"),
    [(train_teacher, teacher), (train_student, student), slow(distill, distillation)],
    ids=lambda x: x.__name__.split(".")[-1],
)
@pytest.mark.filterwarnings("ignore:Mismatch dtype between input and weight")
def test_bfloat16_gives_nearly_the_same_losses_and_keeps_the_weights_in_float32(stage, arguments, runs, tmp_path):
    for name, options in (("whole", []), ("half", ["--bf16"])):
        stage.main([*arguments(runs, tmp_path / name, 1), *options])
    whole, half = (curves(tmp_path / name)[0] for name in ("whole", "half"))
    assert whole.keys() == half.keys()
    assert whole != half
    for name, loss in whole.items():
        assert half[name] == pytest.approx(loss, rel=0.1, abs=0.02), name
    weights = read(tmp_path / "half" / "checkpoint.pt")["network"]["now"]
    assert {weight.dtype for weight in weights.values()} == {torch.float32}
