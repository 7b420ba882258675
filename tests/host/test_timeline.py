# ruff: noqa: F401, F811 (fixtures of another file)
"""Timelines of prompts and first frames, inside a real ComfyUI, on tiny random weights."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from test_runs import FRAMES, files, keep, nodes, stop

from histream_core.runs.store.journal import read_manifest
from histream_core.vae.encode import encode_frames, encode_picture
from histream_core.video.pictures import fit_picture
from histream_core.video.pixels import to_uint8
from histream_core.video.reading import frames_of


@pytest.fixture
def text():
    """CONDITIONING of one prompt, another one for each number."""

    def make(number):
        return [[torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(number)), {}]]

    return make


@pytest.fixture
def clip(text):
    """Something like a CLIP, which makes an embedding of the length of a prompt."""
    return SimpleNamespace(
        tokenize=lambda prompt: prompt, encode_from_tokens_scheduled=lambda prompt: text(len(prompt))
    )


@pytest.fixture
def tell(pack, clip):
    """The CONDITIONING of a written timeline."""
    node = pack.part("nodes.sampling.prompt_timeline").PromptTimeline
    return lambda timeline, **settings: node.execute(clip, timeline, **settings).result[0]


@pytest.fixture
def later(pack, monkeypatch):
    """A CONDITIONING with another one behind it."""
    node = pack.part("nodes.sampling.prompt_timeline").TimelineSection
    monkeypatch.setattr(node, "hidden", SimpleNamespace(prompt=None, unique_id="1"), raising=False)
    return lambda *args, **settings: node.execute(*args, **settings).result[0]


def engine(pack, load_wan, frames, prompts, *, anchors=(), scenes=(), given=None):
    """The samples that the engine makes of prompts at chunks, without nodes."""
    plans, stream = pack.part("histream_core.plan"), pack.part("histream_core.stream.noise")
    inputs = pack.part("histream_core.stream.inputs")
    preset = pack.part("histream_core.plan.presets").find_preset("self-forcing")
    model, made = load_wan(), []

    count = 0 if given is None else given.shape[2]
    options = plans.PlanOptions(given_frames=count, first_frame=count == 1)
    plan = plans.make_plan(preset, "histream", size=(64, 64), num_latent_frames=frames, options=options)
    plan = plans.with_anchors(plan, anchors, scenes)

    def work(open_stream):
        for chunk in open_stream(plan, stream.SeededNoise(3), inputs.Inputs(given)).chunks():
            made.append(model.model.process_latent_out(chunk))

    backend = pack.part("nodes.host.backend").HostBackend(model)
    backend.sample(plan, prompts, backend.new_progress(plan), work)
    return torch.cat(made, dim=2)


def test_a_written_timeline_is_the_engines_prompts_at_their_chunks(pack, load_wan, tell, text, sample, latent):
    """Seen to fail with the first prompt alone, and without the anchor."""
    stream, wan = pack.part("histream_core.stream.prompts"), pack.part("histream_core.network.forward")
    old, new, last = (text(number)[0][0] for number in (3, 5, 17))
    prompts = [
        stream.Prompt(wan.Text(old)),
        *stream.blend_prompts(old, new, first_chunk=2, num_chunks=2),
        stream.Prompt(wan.Text(last), 4),
    ]
    wanted = engine(pack, load_wan, 18, prompts, anchors=[12])
    timeline = tell("[0:00-0:01] one\n[0:01, blend 2] three\n[0:02.8, cut, new anchor] seventeen letters")
    assert torch.equal(sample(load_wan(), timeline, latent(18)), wanted)


def test_a_scene_sees_nothing_of_what_came_before(pack, load_wan, tell, text, sample, latent):
    """Seen to fail with a scene that is a cut with a new anchor."""
    stream, wan = pack.part("histream_core.stream.prompts"), pack.part("histream_core.network.forward")
    prompts = [stream.Prompt(wan.Text(text(3)[0][0])), stream.Prompt(wan.Text(text(5)[0][0]), 2)]
    wanted = engine(pack, load_wan, 12, prompts, scenes=[6])
    assert torch.equal(sample(load_wan(), tell("[0] one\n[0:01, scene] three"), latent(12)), wanted)
    assert not torch.equal(engine(pack, load_wan, 12, prompts, anchors=[6]), wanted)


def test_a_scene_is_decoded_as_a_video_of_its_own_by_a_run_and_from_a_latent(
    pack,
    nodes,
    keep,
    load_wan,
    vae,
    tell,
    latent,
):
    """Seen to fail with a LATENT that does not say where its scenes begin."""
    timeline = tell("[0] one\n[0:01, scene] three")
    kept, video, *_ = keep(prompt=timeline)
    decode = pack.part("nodes.video.streaming_vae_decode").StreamingVAEDecode.execute
    plain = nodes.anchor_window_sampler(load_wan(), timeline, latent(FRAMES), 3).result[0]
    wanted = np.stack([to_uint8(frame[None])[0] for frame in frames_of(video.get_stream_source())])
    for made in (kept, plain):
        assert np.array_equal(to_uint8(decode(made, vae, "a/b", images=True).result[1]), wanted)
    scene = plain["samples"][:, :, [6, *range(6, FRAMES)]]  # its first frame held, for the four pictures that it gives
    alone = decode({"samples": scene}, vae, "a/b", images=True).result[1]
    assert np.array_equal(to_uint8(alone)[1:], wanted[21:])
    through = decode({"samples": plain["samples"]}, vae, "a/b", images=True).result[1]
    assert not np.array_equal(to_uint8(through), wanted)


def test_a_chain_of_sections_is_the_written_timeline(load_wan, tell, later, text, sample, latent):
    """Seen to fail with sections of which the last alone is kept."""
    wanted = sample(load_wan(), tell("[0] one\n[0:01] three\n[0:02, cut] seventeen letters"), latent(12))
    chain = later(later(text(3), text(5), 1.0), text(17), 2.0, change="cut")
    assert torch.equal(sample(load_wan(), chain, latent(12)), wanted)
    assert not torch.equal(sample(load_wan(), text(3), latent(12)), wanted)


def test_a_batch_has_every_prompt_in_every_video(load_wan, tell, sample, latent):
    timeline = tell("[0] one\n[0:01] three")
    both, one = (sample(load_wan(), timeline, latent(9, batch=batch)) for batch in (2, 1))
    torch.testing.assert_close(both[:1], one, atol=1e-5, rtol=0)


def test_the_sampler_twin_follows_a_timeline_and_a_first_frame_too(pack, load_wan, tell, vae, latent):
    """Seen to fail with a plan that knows of neither."""
    from comfy_extras.nodes_custom_sampler import BasicGuider, RandomNoise, SamplerCustomAdvanced

    timeline = tell("[0] one\n[0:00.8, cut, new anchor] three")
    first = pack.part("nodes.sampling.first_frame").FirstFrameNode.execute(vae, torch.rand(1, 64, 64, 3)).result[0]
    sampler = pack.part("nodes.sampling.anchor_window_sampler")
    _, sigmas = pack.part("nodes.sampling.step_schedule").StepSchedule.execute("histream").result
    for attached in (False, True):
        model = load_wan()
        if attached:
            model = pack.part("nodes.host.sampler").attach(model, pack.part("nodes.settings").ModelSettings())
        wanted = sampler.AnchorWindowSampler.execute(model, timeline, latent(10), 3, first_frame=first).result[0]
        twin = sampler.AnchorWindowSamplerSelect.execute(model, first_frame=first).result[0]
        guider, noise = BasicGuider.execute(model, timeline).result[0], RandomNoise.execute(3).result[0]
        got = SamplerCustomAdvanced.execute(noise, guider, twin, sigmas, latent(10)).result[0]
        assert torch.equal(got["samples"], wanted["samples"])


def test_the_node_and_the_run_say_which_frame_a_time_became(pack, clip, load_wan, tell, latent):
    node = pack.part("nodes.sampling.prompt_timeline").PromptTimeline
    moved = '"three" begins at frame 21 (0:01.312, chunk 2), the nearest to 0:01 (frame 16)'
    made = node.execute(clip, "[0] one\n[0:01] three")
    assert made.result[1].splitlines() == ['"one" begins at frame 0 (0:00, chunk 0)', moved]
    assert made.ui.as_dict()["text"] == (made.result[1],)
    settings = pack.part("nodes.settings").ModelSettings("causal-forcing-framewise")
    model = pack.part("nodes.host.sampler").attach(load_wan(), settings)
    assert '"three" begins at frame 17' in node.execute(clip, "[0] one\n[0:01] three", model=model).result[1]
    summary = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler.execute(
        load_wan(), tell("[0] one\n[0:01] three"), latent(9), 3
    )
    assert moved in summary.result[3]


def test_a_kept_run_with_a_timeline_is_the_plain_one_and_goes_on_to_the_same_bytes(
    pack,
    nodes,
    keep,
    load_wan,
    vae,
    tell,
    sample,
    latent,
    stop,
    monkeypatch,
):
    """Seen to fail with a run that keeps the first prompt alone."""
    timeline = tell("[0] one\n[0:01, spherical 2] three\n[0:02.8, new anchor] seventeen letters")
    plain = sample(load_wan(), timeline, latent(FRAMES))
    made, *_ = keep("whole/run", prompt=timeline)
    assert torch.equal(made["samples"], plain)
    with monkeypatch.context(), pytest.raises(stop(pack, 20)):
        keep(prompt=timeline)
    monkeypatch.undo()
    run = nodes.resume_run(load_wan(), vae, "shots/run").result[2]
    assert files(nodes.output / run) == files(nodes.output / "whole/run_00001")
    cuts = json.loads((nodes.output / run / "cuts.json").read_text())["sections"]
    assert [(cut["prompt"], cut["start"]) for cut in cuts] == [("one", 0), ("three", 21), ("seventeen letters", 45)]


def test_runs_are_extended_and_branched_with_timelines(nodes, keep, load_wan, vae, tell):
    """Their times count from the first new chunk. Seen to fail with a blend that has nothing to blend from."""
    keep(prompt=tell("[0] one"), frames=9)
    more = tell("[0, blend 2] three\n[0:01.5, scene] seventeen letters")
    run = nodes.extend_run(load_wan(), vae, "shots/run_00001", 3.0, positive=more).result[2]
    whole = tell("[0] one\n[0:02.0625, blend 2] three\n[0:03.5625, scene] seventeen letters")
    keep("whole/run", prompt=whole, frames=21)
    assert files(nodes.output / run) == files(nodes.output / "whole/run_00001")
    other = nodes.branch_run(load_wan(), vae, run, 3, positive=tell("[0, blend 2] three")).result[2]
    manifest = read_manifest(nodes.output / other)
    assert [(s.first_chunk, s.prompt, s.blended) for s in manifest.sections] == [
        (0, "one", False), (3, "three", False), (4, "three", True),
    ]  # fmt: skip
    assert manifest.plan.anchors == (0,)
    frames = {path.name: path.read_bytes() for path in (nodes.output / run / "segments").glob("*.mkv")}
    others = {path.name: path.read_bytes() for path in (nodes.output / other / "segments").glob("*.mkv")}
    assert [name for name in sorted(frames) if frames[name] != others[name]] == ["seg-00005.mkv", "seg-00006.mkv"]


def test_a_first_frame_is_what_the_network_begins_with(pack, load_wan, text, vae, sample, latent):
    """Seen to fail with a latent that is not normalised."""
    picture = torch.rand(1, 64, 64, 3)
    first = pack.part("nodes.sampling.first_frame").FirstFrameNode.execute(vae, picture).result[0]
    given = encode_picture(vae.first_stage_model, picture[0])
    node = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler
    made = node.execute(load_wan(), text(3), latent(10), 3, first_frame=first).result[0]["samples"]
    prompt = pack.part("histream_core.stream.prompts").Prompt(
        pack.part("histream_core.network.forward").Text(text(3)[0][0])
    )
    wanted = engine(pack, load_wan, 10, [prompt], given=given)
    torch.testing.assert_close(made, wanted, atol=1e-4, rtol=0)
    torch.testing.assert_close(made[:, :, :1], first.at((64, 64)).latent, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("count", "window", "used"), [(24, (), 21), (12, (), 9), (8, (), 1), (12, (1, 1, 1), 9)])
def test_several_pictures_are_a_video_to_go_on_from(pack, load_wan, text, vae, sample, latent, count, window, used):
    """The last ones, as many as the window holds. Seen to fail with the first ones."""
    pictures = torch.rand(count, 64, 64, 3)
    first = pack.part("nodes.sampling.first_frame").FirstFrameNode.execute(vae, pictures).result[0]
    given = encode_frames(vae.first_stage_model, pictures[-used:])
    node = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler
    names = ("chunk_frames", "anchor_frames", "local_frames")
    made, again = (
        node.execute(load_wan(), text(3), latent(10), 3, first_frame=first, **dict(zip(names, window, strict=False)))
        for _ in range(2)
    )
    made, again = made.result[0]["samples"], again.result[0]["samples"]
    assert torch.equal(made, again)
    key = given.shape[2], (64, 64)
    assert [key] == [*first.encoded]
    begun = first.encoded[key].latent
    torch.testing.assert_close(made[:, :, : given.shape[2]], begun, atol=1e-5, rtol=0)
    if not window:
        prompt = pack.part("histream_core.stream.prompts").Prompt(
            pack.part("histream_core.network.forward").Text(text(3)[0][0])
        )
        torch.testing.assert_close(made, engine(pack, load_wan, 10, [prompt], given=given), atol=1e-4, rtol=0)


@pytest.mark.parametrize("fit", ["crop", "pad", "stretch"])
def test_a_picture_is_fitted_to_the_latent_that_is_connected(pack, load_wan, text, vae, sample, latent, fit):
    """Seen to fail with the default whatever was chosen."""
    picture, first = torch.rand(1, 96, 150, 3), pack.part("nodes.sampling.first_frame").FirstFrameNode.execute
    fitted = fit_picture(picture[0], (96, 64), fit)[None]
    made = first(vae, picture, 1, fit, latent(10, 96)).result[0]
    assert torch.equal(made.at((96, 64)).latent, first(vae, fitted).result[0].at((96, 64)).latent)
    assert (fit == "crop") == torch.equal(
        made.at((96, 64)).latent, first(vae, picture, latent=latent(10, 96)).result[0].at((96, 64)).latent
    )
    node = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler
    video = node.execute(load_wan(), text(3), latent(10, 96), 3, first_frame=made).result[0]["samples"]
    torch.testing.assert_close(video[:, :, :1], made.at((96, 64)).latent, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("pictures", "hold"), [(1, 1), (1, 3), (22, 1)])
def test_a_kept_run_with_a_first_frame_needs_it_no_more(
    pack,
    nodes,
    keep,
    load_wan,
    vae,
    text,
    latent,
    stop,
    monkeypatch,
    pictures,
    hold,
):
    """Seen to fail with a first chunk that is kept when it is decoded."""
    shown = torch.rand(pictures, 64, 64, 3)
    first = pack.part("nodes.sampling.first_frame").FirstFrameNode.execute(vae, shown, hold).result[0]
    sampler = nodes.anchor_window_sampler
    [choice] = nodes.video_output("shots/run", "ffv1", "8").result
    [whole] = nodes.video_output("whole/run", "ffv1", "8").result
    plain = sampler(load_wan(), text(3), latent(7), 3, first_frame=first).result[0]["samples"]
    made = sampler(load_wan(), text(3), latent(7), 3, vae=vae, output=whole, first_frame=first).result[0]["samples"]
    torch.testing.assert_close(made, plain, atol=1e-6, rtol=0)
    with monkeypatch.context(), pytest.raises(stop(pack, 1)):
        sampler(load_wan(), text(3), latent(7), 3, vae=vae, output=choice, first_frame=first)
    monkeypatch.undo()
    run = nodes.resume_run(load_wan(), vae, "shots/run").result[2]
    assert files(nodes.output / run) == files(nodes.output / "whole/run_00001")
    run = nodes.extend_run(load_wan(), vae, run, 1.0).result[2]
    assert read_manifest(nodes.output / run).plan.num_pixel_frames == 41
    sampler(load_wan(), text(3), latent(7), 3, vae=vae, output=choice)
    assert (nodes.output / "shots/run_00003").exists(), "a run without the picture is another run"


def refusals(pack, clip, load_wan, vae, text, latent, section):
    timeline = pack.part("nodes.sampling.prompt_timeline").PromptTimeline.execute
    first = pack.part("nodes.sampling.first_frame").FirstFrameNode.execute
    sampler = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler.execute
    picture = torch.rand(1, 64, 64, 3)
    return {
        "line 1 of the timeline has no time": lambda: timeline(clip, "a cat"),
        "let its first section begin at 0:00": lambda: timeline(clip, "[0:02] a cat"),
        "use cut, recache, blend 3": lambda: timeline(clip, "[0] a cat\n[0:04, fade] a dog"),
        "let it begin later than 0:04": lambda: section(section(text(1), text(2), 4), text(3), 3),
        "connect a plain prompt": lambda: section(text(1), section(text(1), text(2), 4), 4),
        "ask for 65 frames or more": lambda: sampler(load_wan(), section(text(1), text(2), 4), latent(9), 3),
        "holds 2 prompts": lambda: sampler(load_wan(), section(text(1), text(2) * 2, 1), latent(9), 3),
        "begin at 0:00.562 or later": lambda: sampler(load_wan(), section(text(1), text(2), 0.1), latent(9), 3),
        "use cut or recache between them": lambda: sampler(
            load_wan(), section(text(1), [[torch.zeros(1, 9, 32), {}]], 1, change="blend"), latent(9), 3
        ),
        "holds 2 pictures, and only one can be held": lambda: first(vae, picture.repeat(2, 1, 1, 1), 3),
        "holds no picture": lambda: first(vae, picture[:0]),
        "6 latent frames are given but only 6 asked for": lambda: sampler(
            load_wan(), text(1), latent(6), 3, first_frame=first(vae, picture.repeat(21, 1, 1, 1)).result[0]
        ),
        "width 76 is not a multiple of 8: use 72 or 80; or connect the LATENT": lambda: first(
            vae, torch.rand(1, 64, 76, 3)
        ),
        "the LATENT is not that of a Wan 2.1 video": lambda: first(
            vae, picture, latent={"samples": torch.zeros(1, 16, 8, 8)}
        ),
        'fitted by "zoom": use crop, pad, stretch': lambda: first(vae, picture, fit="zoom", latent=latent(9, 96)),
        "connect this LATENT to First Frame .* fits the picture to 96x64": lambda: sampler(
            load_wan(), text(1), latent(9, 96), 3, first_frame=first(vae, picture).result[0]
        ),
        "set hold to 1 or 3": lambda: sampler(
            load_wan(), text(1), latent(9), 3, first_frame=first(vae, picture, 2).result[0]
        ),
    }


def test_what_cannot_be_shown_is_refused_in_a_sentence_and_the_next_run_works(
    pack, clip, load_wan, vae, text, latent, later, sample
):
    for said, run in refusals(pack, clip, load_wan, vae, text, latent, later).items():
        with pytest.raises(ValueError, match=said) as refused:
            run()
        assert "\n" not in str(refused.value)
    assert torch.isfinite(sample(load_wan(), text(1), latent(3))).all()
