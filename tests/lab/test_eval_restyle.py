"""Restyled pairs: scores of painted clips, the arms, records, what is printed and refused. Tiny random weights."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_clip import own_features, write_clip

from histream_core import demo
from histream_core.cli import main
from histream_core.cli.verbs import evaluate_restyle
from histream_core.demo.painter import SHAPES, paint
from histream_core.lab.judge.bootstrap import estimate
from histream_core.lab.judge.restyle import (
    FARTHEST,
    NEAR,
    Clips,
    ablation_arms,
    below_bars,
    draw_pairs,
    restyle_pair,
    score_restyled,
    strength_arms,
)
from histream_core.lab.judge.video import MeasureSettings
from histream_core.plan.presets import find_preset
from histream_core.runs.weights import load_demo

SIDE = 64
NUM_FRAMES = 9
CLIPS = Clips(find_preset("demo"), "histream", (SIDE, SIDE), NUM_FRAMES)
PAIRS = draw_pairs(12, 0)


def painted(pair, start=None):
    """The clip that a perfect model makes of a pair."""
    what, start = pair.asked.combination, start or pair.start
    return paint(what, range(NUM_FRAMES), size=SIDE, start=start, training=False)


def test_pairs_differ_in_all_that_a_prompt_changes_and_in_nothing_else():
    """Seen to fail with a source that is drawn from all combinations."""
    for pair in PAIRS:
        target = pair.asked.combination
        for word in ("colour", "background", "shape"):
            assert getattr(pair.source, word) != getattr(target, word)
        assert pair.source.direction == target.direction
    assert [pair.asked.held_out for pair in PAIRS] == [False] * 6 + [True] * 6
    assert len({pair.start for pair in PAIRS}) == 12
    assert draw_pairs(12, 0) == PAIRS and draw_pairs(12, 1) != PAIRS


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.asked.combination.shape}-{pair.source.shape}")
def test_the_painters_target_scores_one(pair):
    """Seen to fail with centres of mass, which a triangle has below its middle."""
    _, scores = score_restyled(painted(pair), pair)
    assert [scores[name] for name in ("restyled", "colour", "background", "shape", "direction")] == [1] * 5
    assert scores["distance"] < 0.01


@pytest.mark.parametrize("pair", PAIRS[:3], ids=lambda pair: pair.source.shape)
def test_the_source_itself_scores_nothing_that_the_prompt_changes(pair):
    _, scores = score_restyled(pair.paint_source(NUM_FRAMES, SIDE), pair)
    assert [scores[name] for name in ("restyled", "colour", "background", "shape", "direction")] == [0, 0, 0, 0, 1]
    assert scores["distance"] < 0.01 and scores["warp_error"] < 0.01


@pytest.mark.parametrize("shape", SHAPES)
def test_an_object_elsewhere_is_not_restyled(shape):
    """Its distance is known, also across the edges. Seen to fail where only words count."""
    pair = next(pair for pair in PAIRS if pair.asked.combination.shape == shape)
    x, y = pair.start
    for way, far in (((0.1, 0), 0.1), ((0.9, 0.1), 0.1 * 2**0.5), ((0.5, 0.5), FARTHEST)):
        _, scores = score_restyled(painted(pair, (x + way[0], y + way[1])), pair)
        assert scores["distance"] == pytest.approx(far, abs=0.01) and far > NEAR
        assert scores["colour"] == scores["shape"] == 1 and scores["restyled"] == 0


def test_a_word_counts_where_it_holds_to_the_end():
    """Seen to fail where words are read once from the whole clip."""
    pair = PAIRS[0]
    long = paint(pair.asked.combination, range(41), size=SIDE, start=pair.start, training=False)
    source = pair.paint_source(41, SIDE)
    _, whole = score_restyled(long, pair)
    assert whole["restyled"] == whole["held"] == whole["last_second"] == 1
    _, scores = score_restyled(np.concatenate([long[:28], source[28:]]), pair)
    assert [scores[name] for name in ("restyled", "colour", "background", "shape")] == [0] * 4
    assert scores["held"] == pytest.approx(1 / 3)


def test_an_empty_picture_is_as_far_as_can_be():
    _, scores = score_restyled(np.zeros((NUM_FRAMES, SIDE, SIDE, 3), np.float32), PAIRS[0])
    assert scores["distance"] == pytest.approx(FARTHEST)
    assert scores["restyled"] == 0


def test_a_clip_score_is_that_of_a_frame_and_its_source():
    settings = MeasureSettings(8, encode=lambda frame: F.normalize(frame.mean((0, 1)), dim=0))
    pair = PAIRS[0]
    (_, same), (_, other) = (
        score_restyled(clip, pair, settings) for clip in (pair.paint_source(NUM_FRAMES, SIDE), painted(pair))
    )
    assert same["clip_reference"] == pytest.approx(100, abs=1e-3) and other["clip_reference"] < 99
    assert "clip_reference" not in score_restyled(painted(pair), pair)[1]


def test_every_bar_counts():
    """Seen to fail where the distance is left out."""
    held = {"colour": 0.9, "background": 0.9, "shape": 0.9, "direction": 0.95, "distance": NEAR}
    found = {name: estimate([value]) for name, value in held.items()}
    assert below_bars(found) == []
    worse = {name: estimate([value + (0.01 if name == "distance" else -0.01)]) for name, value in held.items()}
    assert [below_bars(found | {name: one}) for name, one in worse.items()] == [[name] for name in held]


def test_strengths_and_controls_are_arms():
    arms = {arm.name: arm for arm in strength_arms(CLIPS, [0.8, 0.9, 0.8], controls=True)}
    assert list(arms) == ["s=0.8", "s=0.9", "s=1", "s=0", "random weights"]
    assert [arm.name for arm in arms.values() if arm.untrained] == ["random weights"]
    assert arms["random weights"].plan == arms["s=0.8"].plan
    assert [arm.plan.restyle.share for arm in arms.values()] == [0.8, 0.9, 1, 0, 0.8]


def test_the_ablation_differs_in_sink_and_noise_and_in_nothing_else():
    """Seen to fail with a window that sees fewer frames without its sink."""
    arms = {arm.name: arm.plan for arm in ablation_arms(CLIPS, 0.8)}
    assert list(arms) == ["none", "dynamic-noise", "sink", "sink+dynamic-noise"]
    assert [plan.window.anchor_frames for plan in arms.values()] == [0, 0, 1, 1]
    assert [plan.restyle.motion is not None for plan in arms.values()] == [False, True, False, True]
    assert {plan.window.anchor_frames + plan.window.local_frames for plan in arms.values()} == {3}
    assert {plan.restyle.share for plan in arms.values()} == {0.8}
    with pytest.raises(ValueError, match="use --mode histream"):
        ablation_arms(Clips(CLIPS.preset, "history", CLIPS.size, NUM_FRAMES), 0.8)


def test_strength_0_is_the_source_and_the_pair_decides_the_clip(here):
    weights, pair = load_demo(), PAIRS[0]
    text = demo.load_text_encoder().encode([pair.asked.prompt])
    one, none = (strength_arms(CLIPS, [share], controls=False)[0] for share in (0.8, 0.0))
    assert np.array_equal(restyle_pair(one, weights, text, pair), restyle_pair(one, weights, text, pair))
    assert not np.array_equal(restyle_pair(one, weights, text, pair), restyle_pair(one, weights, text, PAIRS[1]))
    assert np.array_equal(restyle_pair(none, weights, text, pair), restyle_pair(none, weights, text, pair))


@pytest.fixture
def evaluate(capsys):
    """A function that runs the verb and returns its JSON."""

    def run(*words):
        assert main(["eval", "--demo", "--v2v", *map(str, words), "--json"]) == 0
        return json.loads(capsys.readouterr().out)

    return run


@pytest.fixture
def by_the_painter(monkeypatch):
    """Replace the model by the painter; at strength 0 comes the source. Returns the clips made, by arm and prompt."""
    made = []

    def restyle_pair(arm, weights, text, pair):
        made.append((arm.name, pair.asked.prompt))
        return painted(pair) if arm.plan.restyle.share and not arm.untrained else pair.paint_source(NUM_FRAMES, SIDE)

    monkeypatch.setattr(evaluate_restyle, "restyle_pair", restyle_pair)
    return made


def test_a_painter_restyles_every_pair_and_the_controls_none(here, by_the_painter, evaluate):
    found = evaluate("--prompts", 4, "--frames", NUM_FRAMES, "--strength", 0.8, "--controls", "--out", "v")["arms"]
    for kind in ("all", "seen", "held_out"):
        assert found["s=0.8"][kind]["restyled"] == found["s=1"][kind]["restyled"] == 1
        assert found["s=0"][kind]["restyled"] == found["random weights"][kind]["restyled"] == 0
    assert found["s=0.8"]["all"]["intervals"]["restyled"] == [0.25, 1]
    assert found["s=0"]["all"]["direction"] == 1
    assert found["s=0.8"]["all"]["missed"] == []
    assert found["s=0"]["held_out"]["missed"] == ["colour", "background", "shape"]
    said = (here / "v" / "restyle.md").read_text()
    assert "| held out | restyled | colour |" in said and "CLIP score: not measured" in said
    assert "0.8 of noise; reaches all bars" in said and "decoded; misses the bars of colour, background" in said
    assert json.loads((here / "v" / "restyle.json").read_text())["arms"] == found


@pytest.mark.slow
def test_with_a_clip_its_score_is_the_one_of_transformers(here, tmp_path_factory, by_the_painter, evaluate):
    """Seen to fail where the frames are compared with the prompt's."""
    folder = write_clip(tmp_path_factory.mktemp("clip"))
    words = ("--prompts", 2, "--frames", NUM_FRAMES, "--strength", 0.8, 0, "--out", "v", "--clip", folder)
    found, scores = evaluate(*words)["arms"], []
    for pair in draw_pairs(2, 0):
        ours, source = (torch.from_numpy(clip[::8]) for clip in (painted(pair), pair.paint_source(NUM_FRAMES, SIDE)))
        features, _ = own_features(folder, torch.cat([ours, source]), "")
        scores.append(100 * float((features[: len(ours)] * features[len(ours) :]).sum(1).mean()))
    assert found["s=0.8"]["all"]["clip_reference"] == pytest.approx(sum(scores) / 2, abs=0.1)
    assert sum(scores) / 2 < 99
    assert found["s=0"]["all"]["clip_reference"] == pytest.approx(100, abs=1e-3)
    assert "| clip_reference |" in (here / "v" / "restyle.md").read_text()


def test_only_the_control_is_made_with_random_weights(here, evaluate, monkeypatch):
    used = {}

    def restyle_pair(arm, weights, text, pair):
        used.setdefault(arm.name, weights.model)
        return painted(pair)

    monkeypatch.setattr(evaluate_restyle, "restyle_pair", restyle_pair)
    evaluate("--prompts", 2, "--frames", NUM_FRAMES, "--controls", "--out", "v")
    assert used["s=0.8"] is used["s=1"] is used["s=0"] is not used["random weights"]


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_and_other_settings_are_refused(here, by_the_painter, evaluate, refusal):
    """Seen to fail with clips that are made again."""
    words = ("--prompts", 2, "--frames", NUM_FRAMES, "--out", "v")
    evaluate(*words)
    assert len(by_the_painter) == 2
    lines = (here / "v" / "clips.jsonl").read_bytes()
    (here / "v" / "clips.jsonl").write_bytes(lines[:-40])
    evaluate(*words)
    assert len(by_the_painter) == 3 and by_the_painter[2] == by_the_painter[1]
    assert (here / "v" / "clips.jsonl").read_bytes() == lines
    evaluate(*words, "--tables")
    assert [name for name, _ in by_the_painter[3:]] == [
        name for name in ("none", "dynamic-noise", "sink", "sink+dynamic-noise") for _ in range(2)
    ]
    assert "was made with seed 0, asked for is 1" in refusal("--demo", "--v2v", *words, "--seed", 1)


def test_a_stopped_evaluation_has_the_table_of_what_is_there(here, by_the_painter, evaluate, monkeypatch, capsys):
    """And says what is missing; seen to fail with a table that is written last."""
    words = ("--prompts", 2, "--frames", NUM_FRAMES, "--strength", 0.8, 0.9, "--out", "v")
    painter = evaluate_restyle.restyle_pair

    def stopping(*asked):
        if len(by_the_painter) == 3:
            raise KeyboardInterrupt
        return painter(*asked)

    monkeypatch.setattr(evaluate_restyle, "restyle_pair", stopping)
    assert main(["eval", "--demo", "--v2v", *map(str, words)]) == 130
    said = "missing: 1 of 2 clips of s=0.9; the same command makes them"
    assert capsys.readouterr().err.endswith(f"histream: stopped: the table in v has what was made; {said}\n")
    assert said in (here / "v" / "restyle.md").read_text()
    found = json.loads((here / "v" / "restyle.json").read_text())
    assert found["missing"] == {"s=0.9": 1}
    assert found["arms"]["s=0.8"]["all"]["restyled"] == found["arms"]["s=0.9"]["all"]["restyled"] == 1
    monkeypatch.setattr(evaluate_restyle, "restyle_pair", painter)
    assert evaluate(*words)["missing"] == {}
    assert len(by_the_painter) == 4 and "missing" not in (here / "v" / "restyle.md").read_text()


def test_what_cannot_be_restyled_is_refused_before_anything_is_made(here, refusal):
    words = ("--demo", "--v2v")
    assert "give one with --out" in refusal(*words)
    assert "required: --demo" in refusal("--v2v", "--out", "v")
    assert "use --frames 9 or more" in refusal(*words, "--out", "v", "--frames", 5)
    assert "is no share of noise" in refusal(*words, "--out", "v", "--strength", 1.2)
    assert "give one --strength" in refusal(*words, "--out", "v", "--tables", "--strength", 0.8, 0.9)
    assert "holds no CLIP" in refusal(*words, "--out", "v", "--clip", here)
    assert list(here.iterdir()) == []
