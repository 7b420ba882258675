"""Speed choices: one value, on the command line and in a kept run's settings."""

import json
from dataclasses import fields, replace

import pytest
import torch
from tiny_runs import manifest, recipes

from histream_core.network.kernels import choose_kernels
from histream_core.network.ops import attention, elementwise
from histream_core.plan.speed import APPROXIMATE, CHOICES, DEFAULTS, Speed
from histream_core.runs.store.manifest import differences, from_json, to_json

RED = "a red circle moves right"
CPU = torch.device("cpu")


def test_every_choice_is_a_field_and_every_default_is_exact():
    assert list(CHOICES) == [field.name for field in fields(Speed)]
    assert DEFAULTS.approximations == DEFAULTS
    for name, options in APPROXIMATE.items():
        assert set(options) < set(CHOICES[name])


@pytest.mark.parametrize("name", CHOICES)
def test_what_does_not_exist_is_refused_with_what_does(name):
    with pytest.raises(ValueError, match=f'{name} "faster" does not exist: use one of {next(iter(CHOICES[name]))}, '):
        replace(DEFAULTS, **{name: "faster"})


def test_a_kept_run_is_told_by_what_it_approximates_and_by_nothing_else():
    """Seen to fail with the whole value in the settings, and with recipes that leave it out."""
    plain = manifest()
    for name in ("attention", "linears", "elementwise"):
        for option in CHOICES[name]:
            speed = replace(DEFAULTS, **{name: option})
            made = replace(plain, settings=replace(plain.settings, speed=speed.approximations))
            changed = option in APPROXIMATE.get(name, ())
            assert from_json(to_json(made)) == made
            assert (recipes(made) != recipes(plain)) == changed
            said = [f"the setting {name} ({option}, was {getattr(DEFAULTS, name)})"]
            assert differences(plain, made) == (said if changed else [])


def test_what_is_in_use_is_named_with_the_environment_that_decides_last_bits(here, say):
    say("demo", RED, "--seconds", "0.5", "--run-dir", "run", "--attention", "sdpa")
    run = json.loads((here / "run" / "manifest.json").read_text())["run"]
    assert run["made_with"]["attention"] == "sdpa"
    assert run["settings"]["speed"]["attention"] == "auto"
    status, result = say("resume", "run", "--attention", "auto")
    assert (status, result["kernels"]["attention"], result["notes"]) == (0, "sdpa", [])


def test_a_run_in_fp8_products_goes_on_in_them_and_only_a_branch_can_leave_them(here, say):
    """Seen to fail with a resumed run that takes the defaults."""
    status, result = say("demo", RED, "--seconds", "1", "--run-dir", "run", "--linears", "fp8")
    assert (status, result["kernels"]["linears"]) == (0, "fp8, emulated")
    whole = (here / "run" / "chunks" / "00001.safetensors").read_bytes()
    (here / "run" / "chunks" / "00001.safetensors").unlink()
    (here / "run" / "segments" / "seg-00001.mp4").unlink()
    status, said = say("resume", "run", "--linears", "plain")
    assert status == 2 and "the setting linears (plain, was fp8)" in said
    assert say("resume", "run")[1]["kernels"]["linears"] == "fp8, emulated"
    assert (here / "run" / "chunks" / "00001.safetensors").read_bytes() == whole
    status, result = say("branch", "run", "other", "--from", "1", "--linears", "plain")
    assert (status, result["kernels"]["linears"]) == (0, "plain")
    assert (here / "other" / "chunks" / "00001.safetensors").read_bytes() != whole


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--attention", "fa3"], "attention fa3 is not installed: install flash-attn-3 for this torch, or choose auto"),
        (["--elementwise", "fused"], "elementwise fused is not installed: install comfy-kitchen, or choose plain"),
        (["--attention", "host"], "attention host is ComfyUI's own: outside of it choose auto or sdpa"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_sentence_and_nothing_is_left(here, say, monkeypatch, words, said):
    monkeypatch.setattr(attention, "find_spec", lambda module: None)
    monkeypatch.setattr(elementwise, "find_spec", lambda module: None)
    for place in (["--out", "video.mp4"], ["--run-dir", "run"]):
        assert say("demo", RED, "--seconds", "0.5", *words, *place) == (2, f"histream: {said}")
    assert not list(here.iterdir())


def test_kernels_of_the_defaults_import_nothing(monkeypatch):
    """Seen to fail when comfy-kitchen is imported to look whether it is there."""
    for module in (attention, elementwise):
        monkeypatch.delattr(module, "import_module")
    kernels = choose_kernels(DEFAULTS, CPU, torch.float32)
    assert kernels.in_use.items() >= {"attention": "sdpa", "linears": "plain", "elementwise": "plain"}.items()
