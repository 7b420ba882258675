"""`--upsampler` by the command line, on tiny random weights."""

import pytest
import torch
from safetensors.torch import save_file
from tiny_cli import files_in, refusal_of, render_words, result_of

from histream_core.vae.upsampler import LatentUpsampler

SHORT = ("--size", "64x64", "--frames", "33", "--dtype", "fp32", "--preset", "self-forcing")


@pytest.fixture
def upsampler(here):
    """A random one, whose estimates are of the size of latents."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = LatentUpsampler(16, 8, 2)
    save_file({name: 2 * x for name, x in network.state_dict().items()}, here / "up.safetensors")
    return here / "up.safetensors"


def test_a_run_takes_it_and_goes_on_with_it(here, weights, upsampler, capsys, say, stop_at):
    """Found again by the manifest. Seen to fail with a run that goes on without it."""
    words = render_words(weights, *SHORT, "--upsampler", upsampler)
    go_on = stop_at(13)
    assert say(*words, "--run-dir", "cut")[0] == 130
    go_on()
    status, found = say("resume", "cut")
    assert (status, found["chunks_kept"]) == (0, 2)
    result_of([*words, "--run-dir", "whole"], capsys)
    assert files_in("cut")["video.mp4"] == files_in("whole")["video.mp4"]
    result_of(render_words(weights, *SHORT, "--out", "plain.mp4"), capsys)
    result_of([*words, "--out", "up.mp4"], capsys)
    assert (here / "plain.mp4").read_bytes() != (here / "up.mp4").read_bytes()
    assert "up.safetensors" in files_in("cut")["manifest.json"].decode()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        (["--mode", "full"], "not every chunk has an estimate at half resolution"),
        (["--draft"], "leave --upsampler out"),
        (["--upsampler", "vae"], "holds a Wan VAE, not the latent upsampler of Ultra Flash"),
    ],
)
def test_what_it_does_not_fit_is_refused_before_the_weights(here, weights, upsampler, capsys, more, why):
    more = [weights / "vae.safetensors" if word == "vae" else word for word in more]
    assert why in refusal_of(render_words(weights, *SHORT, "--upsampler", upsampler, *more), capsys)
    assert [path.name for path in here.iterdir()] == ["up.safetensors"]


def test_a_run_whose_upsampler_is_gone_says_how_to_name_it(here, weights, upsampler, say, stop_at):
    go_on = stop_at(9)
    say(*render_words(weights, *SHORT, "--upsampler", upsampler), "--run-dir", "cut")
    go_on()
    upsampler.rename(here / "moved.safetensors")
    status, said = say("resume", "cut")
    assert status == 2 and "up.safetensors" in said
    assert say("resume", "cut", "--upsampler", "moved.safetensors")[0] == 0
