"""Videos of any size inside a real ComfyUI: made at the next size that fits and cropped, as on the command line.

Seen to fail: a size that is refused, a picture of the size that was made, one that is not cropped at its centre, a run
whose size changed for a size that needed no crop.
"""

import numpy as np
import pytest
import torch

from histream_core.runs.store.journal import read_manifest
from histream_core.video.pixels import to_uint8
from histream_core.video.reading import frames_of

SIZES = [
    ((64, 80), (64, 96)),
    ((72, 64), (96, 64)),
    ((40, 72), (64, 96)),
    ((24, 64), (32, 64)),
    ((64, 96), (64, 96)),
]
"""Width and height that are asked for, and that are made."""


@pytest.fixture
def sampler(pack, output):
    return pack.part("nodes.sampling.anchor_window_sampler")


@pytest.fixture
def decode(pack, vae):
    """The pictures of a LATENT, by Streaming VAE Decode."""
    node = pack.part("nodes.video.streaming_vae_decode").StreamingVAEDecode.execute
    return lambda latent, **options: node(latent, vae, "a/b", images=True, **options).result[1]


@pytest.fixture
def keep(pack, sampler, load_wan, vae, positive, latent):
    """Make a kept run of four latent frames: its LATENT, and its folder."""

    def run(size, folder, **options):
        [choice] = pack.part("nodes.video.video_output").VideoOutputNode.execute(folder, "ffv1", "8", **options).result
        made = sampler.AnchorWindowSampler.execute(load_wan(), positive, latent(4, *size), 3, vae=vae, output=choice)
        return made.result[0], made.result[2]

    return run


def centre(pictures, size):
    """The centre of pictures [F, H, W, 3]."""
    top, left = (pictures.shape[1] - size[1]) // 2, (pictures.shape[2] - size[0]) // 2
    return pictures[:, top : top + size[1], left : left + size[0]]


@pytest.mark.parametrize(("asked", "made"), SIZES)
def test_any_size_is_made_at_the_next_that_fits_and_cropped(sampler, decode, load_wan, positive, latent, asked, made):
    node = sampler.AnchorWindowSampler.execute
    got, whole = (node(load_wan(), positive, latent(4, *size), 3).result for size in (asked, made))
    assert torch.equal(got[0]["samples"], whole[0]["samples"])
    of = "" if asked == made else " of {}x{}".format(*made)
    assert got[3].startswith("a LATENT of a video: {}x{}{}, 13 frames".format(*asked, of))
    assert torch.equal(decode(got[0]), centre(decode(whole[0]), asked))


@pytest.mark.parametrize(("asked", "made"), SIZES)
def test_a_kept_run_is_cropped_too_and_keeps_its_size(pack, keep, decode, output, asked, made):
    """Seen to fail where a run that is branched gets the size that was made."""
    (latent, run), (whole, _) = keep(asked, "a/run"), keep(made, "b/run")
    settings = read_manifest(output / run).settings
    assert settings.size == asked
    [video] = (output / run).glob("*.mkv")
    wanted = centre(decode(whole), asked)
    shown = np.stack([to_uint8(frame[None])[0] for frame in frames_of(str(video))])
    assert np.array_equal(shown, to_uint8(wanted))
    assert torch.equal(decode(latent), wanted)
    runs, [choice] = (
        pack.part("nodes.host.runs"),
        pack.part("nodes.video.video_output").VideoOutputNode.execute("a").result,
    )
    again = runs.run_settings(choice, runs.generated_size(*settings.size), preset="", mode="")
    assert again.size == asked


def test_in_one_resolution_multiples_of_16_are_made_as_they_are(pack, sampler, decode, load_wan, positive, latent):
    [steps, _] = pack.part("nodes.sampling.step_schedule").StepSchedule.execute("full").result
    made = sampler.AnchorWindowSampler.execute(load_wan(), positive, latent(4, 64, 80), 3, steps).result[0]
    assert made["samples"].shape[-2:] == (10, 8) and decode(made).shape[1:3] == (80, 64)


SHOWN = [
    ((1920, 1088), (1920, 1080)),
    ((1088, 1920), (1080, 1920)),
    ((1088, 1088), (1080, 1080)),
    ((1920, 1080), (1920, 1080)),
    ((1280, 736), (1280, 736)),
    ((1280, 720), (1280, 720)),
    ((3840, 2160), (3840, 2160)),
    ((832, 480), (832, 480)),
]


@pytest.mark.parametrize(("asked", "shown"), SHOWN)
def test_a_side_of_1088_is_cropped_to_1080_where_the_switch_says_so(pack, asked, shown):
    runs, node = pack.part("nodes.host.runs"), pack.part("nodes.video.video_output").VideoOutputNode
    for crop, wanted in ((True, shown), (False, asked)):
        [choice] = node.execute("a/run", crop_1088=crop).result
        assert runs.run_settings(choice, asked, preset="", mode="").size == wanted


PLANNED = [
    ((1280, 720), (1280, 736)),
    ((3840, 2160), (3840, 2176)),
    ((1080, 1920), (1088, 1920)),
    ((1920, 1088), (1920, 1088)),
    ((1280, 736), (1280, 736)),
]


@pytest.mark.parametrize(("asked", "made"), PLANNED)
def test_published_sizes_are_planned_as_on_the_command_line(pack, asked, made):
    settings = pack.part("nodes.settings")
    choices = settings.ModelSettings("histream"), settings.StepChoice(), settings.WindowChoice()
    plan = settings.plan_for(*choices, (1, 16, 6, asked[1] // 8, asked[0] // 8))
    assert plan.size == made


def test_a_latent_that_was_resized_is_decoded_whole(sampler, decode, load_wan, positive, latent):
    """Seen to fail where its old size is believed."""
    made = sampler.AnchorWindowSampler.execute(load_wan(), positive, latent(4, 64, 80), 3).result[0]
    assert decode(made | {"samples": made["samples"][..., :6]}).shape[1:3] == (96, 48)


def test_the_sampler_twin_gives_the_host_the_size_that_it_asked_for(pack, sampler, load_wan, positive, latent):
    from comfy_extras.nodes_custom_sampler import BasicGuider, RandomNoise, SamplerCustomAdvanced

    _, sigmas = pack.part("nodes.sampling.step_schedule").StepSchedule.execute("histream").result
    wanted = sampler.AnchorWindowSampler.execute(load_wan(), positive, latent(4, 64, 80), 3).result[0]["samples"]
    for attached in (False, True):
        model = load_wan()
        if attached:
            model = pack.part("nodes.host.sampler").attach(model, pack.part("nodes.settings").ModelSettings())
        twin = sampler.AnchorWindowSamplerSelect.execute(model).result[0]
        guider, noise = BasicGuider.execute(model, positive).result[0], RandomNoise.execute(3).result[0]
        got = SamplerCustomAdvanced.execute(noise, guider, twin, sigmas, latent(4, 64, 80)).result[0]["samples"]
        assert torch.equal(got, wanted[..., 1:-1, :])


@pytest.mark.parametrize("count", [1, 22])
def test_a_picture_of_the_size_that_was_asked_for_is_drawn_out_at_its_edges(
    pack, sampler, load_wan, vae, positive, latent, count
):
    """Seen to fail where it is encoded at the size that was asked for, which no chunk has."""
    pictures, node = torch.rand(count, 80, 64, 3), pack.part("nodes.sampling.first_frame").FirstFrameNode.execute
    drawn = torch.cat([pictures[:, :1].expand(-1, 8, -1, -1), pictures, pictures[:, -1:].expand(-1, 8, -1, -1)], 1)
    size = latent(10, 64, 80)
    one, two = node(vae, pictures, latent=size).result[0], node(vae, drawn).result[0]
    made, wanted = (
        sampler.AnchorWindowSampler.execute(load_wan(), positive, size, 3, first_frame=first).result[0]["samples"]
        for first in (one, two)
    )
    assert torch.equal(made, wanted)
