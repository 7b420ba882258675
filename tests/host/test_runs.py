"""Runs that are kept, inside a real ComfyUI: made live, stopped, resumed, extended, retried; on tiny random weights."""

import io
import json
import os
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from clips import probe
from sounds import sound_file, sound_packets

from histream_core.runs.store.journal import read_manifest
from histream_core.video.pixels import to_uint8
from histream_core.video.reading import frames_of

FRAMES = 13  # latent ones: 5 chunks, the last one cropped


@pytest.fixture
def nodes(pack, output):
    """The nodes by short names; runs lie under the output folder of this test."""
    names = {
        "video.video_output": "VideoOutputNode",
        "sampling.anchor_window_sampler": "AnchorWindowSampler",
        "runs.resume_run": "ResumeRun",
        "runs.extend_run": "ExtendRun",
        "runs.branch_run": "BranchRun",
        "runs.list_runs": "ListRuns",
        "runs.clean_run": "CleanRun",
    }
    parts = {file: pack.part(f"nodes.{file}") for file in names}
    found = {file.split(".")[1]: getattr(parts[file], name).execute for file, name in names.items()}
    return SimpleNamespace(**found, output=output)


@pytest.fixture
def keep(nodes, load_wan, vae, positive, latent):
    """Make a kept run of 13 latent frames and seed 3; returns what the sampler gives out."""

    def run(folder="shots/run", *, model=None, frames=FRAMES, prompt=None, seed=3, **settings):
        [choice] = nodes.video_output(folder, **({"format": "ffv1", "bit_depth": "8"} | settings)).result
        sampler = nodes.anchor_window_sampler
        return sampler(model or load_wan(), prompt or positive, latent(frames), seed, vae=vae, output=choice).result

    return run


@pytest.fixture
def stop(monkeypatch):
    """Press Cancel when the network is about to make this call; calls are counted from 1."""
    import comfy.model_management as mm

    from_here = []

    def at(pack, call):
        host_run = pack.part("nodes.host.run")
        denoise = host_run.HostRun.denoise

        def count(self, *args):
            from_here.append(1)
            if len(from_here) == call:
                mm.interrupt_current_processing()
            return denoise(self, *args)

        monkeypatch.setattr(host_run.HostRun, "denoise", count)
        return mm.InterruptProcessingException

    return at


def files(folder):
    """Everything in a run's folder that depends on what was made, by name."""
    kept = (path for path in folder.rglob("*") if path.suffix in (".mkv", ".mp4", ".safetensors", ".latent", ".edl"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in kept}


def test_a_kept_run_is_the_plain_one_and_its_frames_are_the_decoders(
    pack, nodes, keep, load_wan, vae, positive, latent
):
    """Seen to fail with latents that are not un-normalised before they are decoded."""
    plain = nodes.anchor_window_sampler(load_wan(), positive, latent(FRAMES), 3).result[0]["samples"]
    made, video, run, _ = keep()
    assert run == "shots/run_00001"
    assert torch.equal(made["samples"], plain)
    decode = pack.part("nodes.video.streaming_vae_decode").StreamingVAEDecode.execute
    _, images, _ = decode({"samples": plain}, vae, "a/b", images=True).result
    shown = np.stack([to_uint8(frame[None])[0] for frame in frames_of(video.get_stream_source())])
    assert np.array_equal(shown, to_uint8(images))
    assert (nodes.output / run / "cuts.edl").exists()


def test_without_a_video_output_nothing_is_written_and_the_other_sockets_say_what_is_missing(
    nodes, load_wan, positive, latent
):
    made, video, run, _ = nodes.anchor_window_sampler(load_wan(), positive, latent(4), 3).result
    assert made["samples"].shape[2] == 4
    assert "connect a Video Output" in video.message
    assert "connect a Video Output" in run.message
    assert not list(nodes.output.rglob("*"))


def test_a_kept_run_says_how_far_it_is_and_what_it_was(pack, nodes, keep, load_wan, vae, stop, progress, monkeypatch):
    """A run that goes on counts what it makes itself. Seen to fail where the pace is that of the whole plan."""
    told = []
    with monkeypatch.context(), pytest.raises(stop(pack, 9)):
        keep(format="h264-mp4")
    monkeypatch.undo()
    monkeypatch.setattr(pack.part("nodes.host.log"), "tell", told.append)
    progress.clear()
    *_, summary = nodes.resume_run(load_wan(), vae, "shots/run").result
    assert told[0] == "taking up 1 finished chunks, 9 of 49 frames"
    assert re.match(r"chunk 2 of 5, step 2 of 4, 9 of 49 frames, about ", told[3])
    assert re.match(r"all chunks sampled, 49 of 49 frames, .* s for each, slowest: (denoise|decode|write)$", told[-2])
    assert told[-1].startswith("shots/run_00001/video.mp4: 49 of 49 frames")
    pictures = [preview[1].tobytes() for _, _, preview in progress if preview]
    assert len(set(pictures)) == 3 * 3 + 1
    assert progress[-1][0] == progress[-1][1], "the bar ends full"
    lines = summary.splitlines()
    assert lines[0] == (
        "shots/run_00001/video.mp4: 64x64, 49 frames, 5 chunks, 20 steps, h264-mp4 at 16 frames per second"
    )
    assert lines[1] == "preset self-forcing, mode histream, seed 3, 1 prompts"
    assert lines[2] == "9 frames were there before"
    assert lines[3].startswith("40 frames in ")
    assert lines[4].startswith("denoise ")
    assert lines[5].startswith("attention host (")


def test_the_latent_lies_on_the_disk_and_writing_into_it_changes_no_file(nodes, keep):
    """Seen to fail with a file that is mapped to be written."""
    made, _, run, _ = keep(frames=4)
    path = nodes.output / run / "video.latent"
    before = path.read_bytes()
    assert str(path) in Path("/proc/self/maps").read_text()
    made["samples"].add_(1)
    assert path.read_bytes() == before


@pytest.mark.parametrize("call", [2, 9, 12, 25])
def test_a_cancelled_run_goes_on_by_the_node_and_comes_to_the_same_bytes(
    pack, nodes, keep, load_wan, vae, stop, call, monkeypatch
):
    """Seen to fail with caches that are not filled from the finished chunks."""
    keep("whole/run")
    with monkeypatch.context(), pytest.raises(stop(pack, call)):
        keep()
    monkeypatch.undo()
    finished = len(list((nodes.output / "shots/run_00001/chunks").iterdir()))
    unfinished = nodes.output / "shots/run_00001/video.unfinished.mkv"
    assert (probe(unfinished).num_frames if finished else 0) == max(0, 12 * finished - 3)
    _, video, run, _ = nodes.resume_run(load_wan(), vae, "shots/run").result
    assert finished < 5
    assert run == "shots/run_00001"
    assert files(nodes.output / run) == files(nodes.output / "whole/run_00001")
    assert probe(video.get_stream_source()).num_frames == 49


def test_run_pressed_again_goes_on_with_a_run_that_is_the_same_in_all(pack, nodes, keep, stop, monkeypatch):
    """Seen to fail with `resume` ignored: a second folder."""
    with monkeypatch.context(), pytest.raises(stop(pack, 9)):
        keep()
    monkeypatch.undo()
    first = (nodes.output / "shots/run_00001/chunks/00000.safetensors").stat().st_mtime_ns
    assert keep()[2] == "shots/run_00001"
    assert (nodes.output / "shots/run_00001/chunks/00000.safetensors").stat().st_mtime_ns == first
    assert keep(seed=4)[2] == "shots/run_00002"
    assert keep(resume=False)[2] == "shots/run_00003"
    assert files(nodes.output / "shots/run_00003") == files(nodes.output / "shots/run_00001")


def test_a_run_named_by_the_date_goes_on_too(pack, nodes, keep, stop, monkeypatch):
    """Seen to fail with the name as it was written."""
    with monkeypatch.context(), pytest.raises(stop(pack, 9)):
        keep("%year%/run")
    monkeypatch.undo()
    run = keep("%year%/run")[2]
    assert run.endswith("/run_00001")
    assert run[:2] == "20"


def test_cancel_can_discard(pack, nodes, keep, stop, monkeypatch):
    """And no time is left in the line under the node. Seen to fail where the last line stays."""
    told = []
    monkeypatch.setattr(pack.part("nodes.host.log"), "tell", told.append)
    with monkeypatch.context(), pytest.raises(stop(pack, 9)):
        keep(discard_on_cancel=True)
    monkeypatch.undo()
    assert " left" in told[-2] and told[-1].startswith("stopped: chunk 2 of 5, step ")
    assert "left" not in told[-1]
    assert not [path for path in nodes.output.rglob("*") if path.is_file()]


def test_a_snapshot_on_cancel_spares_the_clean_passes(pack, nodes, keep, load_wan, vae, stop, monkeypatch):
    keep("whole/run")
    with monkeypatch.context(), pytest.raises(stop(pack, 21)):
        keep(snapshots=2)
    monkeypatch.undo()
    assert list((nodes.output / "shots/run_00001/snapshots").iterdir())
    calls = []
    host_run = pack.part("nodes.host.run")
    denoise = host_run.HostRun.denoise

    def note(self, latent, step, cache, text):
        calls.append(step.sigma)
        return denoise(self, latent, step, cache, text)

    monkeypatch.setattr(host_run.HostRun, "denoise", note)
    run = nodes.resume_run(load_wan(), vae, "shots/run").result[2]
    assert calls.count(0.0) <= 4
    whole = files(nodes.output / "whole/run_00001")
    assert {name: data for name, data in files(nodes.output / run).items() if name in whole} == whole


def test_an_extended_run_is_the_long_run_byte_for_byte_and_the_short_one_stays(nodes, keep, load_wan, vae):
    """Seen to fail with the cropped chunk's segment shared."""
    keep("whole/run", frames=20)
    keep()
    before = files(nodes.output / "shots/run_00001")
    run = nodes.extend_run(load_wan(), vae, "shots/run_00001", 1.75).result[2]
    assert run == "shots/run_00002"
    assert files(nodes.output / run) == files(nodes.output / "whole/run_00001")
    assert files(nodes.output / "shots/run_00001") == before
    assert nodes.extend_run(load_wan(), vae, "shots/run_00001", 1.75).result[2] == run


def test_an_extension_can_have_another_prompt_and_the_cut_list_tells_where(nodes, keep, load_wan, vae):
    keep(section_files=True)
    prompt = [[torch.randn(1, 7, 32, generator=torch.Generator().manual_seed(8)), {}]]
    _, video, run, _ = nodes.extend_run(load_wan(), vae, "shots/run", 1.0, positive=prompt).result
    cuts = json.loads((nodes.output / run / "cuts.json").read_text())
    assert [(cut["start"], cut["stop"]) for cut in cuts["sections"]] == [(0, 57), (57, 65)]
    assert probe(video.get_stream_source()).num_frames == 65


def test_a_retry_with_the_same_seed_is_the_run_itself_and_with_another_shares_the_beginning(nodes, keep, load_wan, vae):
    keep()
    whole = files(nodes.output / "shots/run_00001")
    again = nodes.branch_run(load_wan(), vae, "shots/run_00001", 2, 3).result[2]
    assert files(nodes.output / again) == whole
    other = nodes.branch_run(load_wan(), vae, "shots/run_00001", 2, 99).result[2]
    segments = {name: data for name, data in files(nodes.output / other).items() if "segments" in name}
    changed = sorted(name for name, data in segments.items() if whole[name] != data and name.endswith(".mkv"))
    assert changed == [f"segments/seg-0000{index}.mkv" for index in (2, 3, 4)]


def test_a_branch_without_changes_writes_another_format_and_samples_nothing(
    pack, nodes, keep, load_wan, vae, monkeypatch
):
    keep()
    [choice] = nodes.video_output("shots/edit", "prores-422hq").result
    monkeypatch.setattr(pack.part("nodes.host.run").HostRun, "denoise", None)
    _, video, run, _ = nodes.branch_run(load_wan(), vae, "shots/run", output=choice).result
    assert run == "shots/edit_00001"
    info = probe(video.get_stream_source())
    assert (info.num_frames, nodes.output / run / "video.mov") == (49, nodes.output / "shots/edit_00001/video.mov")


def test_pictures_are_a_folder_and_the_video_socket_says_so(nodes, keep):
    _, video, run, _ = keep(format="png16", bit_depth="auto", frames=4)
    assert len(list((nodes.output / run / "video").glob("video.*.png"))) == 13
    assert "folder of pictures" in video.message


def test_a_video_carries_the_graph_that_made_it(pack, nodes, keep, monkeypatch):
    """So that it can be dropped into the browser, as the host's own files."""
    graph = {
        "1": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red cat", "clip": ["9", 0]}},
        "2": {"class_type": "Pass", "inputs": {"conditioning": ["1", 0]}},
        "3": {"class_type": "HiStreamAnchorWindowSampler", "inputs": {"positive": ["2", 0]}},
    }
    hidden = SimpleNamespace(prompt=graph, extra_pnginfo={"workflow": {"nodes": []}}, unique_id="3")
    monkeypatch.setattr(pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler, "hidden", hidden)
    _, video, run, _ = keep(frames=4, format="h264-mp4")
    with av.open(video.get_stream_source()) as container:
        tags = container.metadata
    assert json.loads(tags["prompt"]) == graph
    assert json.loads(tags["workflow"]) == {"nodes": []}
    assert read_manifest(nodes.output / run).sections[0].prompt == "a red cat"


@pytest.mark.parametrize("what", ["model", "lora", "vae"])
def test_a_run_does_not_go_on_with_something_else(pack, nodes, keep, stop, load_wan, lora, vae, what, monkeypatch):
    """Seen to fail with a fingerprint of the bare weights."""
    import comfy.sd

    from histream_core.vae.model import WanVAE

    with monkeypatch.context(), pytest.raises(stop(pack, 9)):
        keep()
    monkeypatch.undo()
    model = load_wan()
    if what == "model":
        model.model.diffusion_model.blocks[0].ffn[0].weight.data.add_(0.1)
    if what == "lora":
        model = lora(model)
    torch.manual_seed(5)
    other = comfy.sd.VAE(sd=WanVAE(dim=8).state_dict()) if what == "vae" else vae
    said = "the vae changed" if what == "vae" else "the model changed"
    with pytest.raises(ValueError, match=f"was made otherwise: {said}"):
        nodes.resume_run(model, other, "shots/run")
    assert nodes.resume_run(load_wan(), vae, "shots/run").result[2] == "shots/run_00001"


def test_a_run_with_a_lora_goes_on_with_it_also_while_it_is_in_the_weights(
    pack, nodes, keep, stop, load_wan, lora, vae, monkeypatch
):
    """The host works a LoRA into the weights while it is loaded; the fingerprint must not see that."""
    keep("whole/run", model=lora(load_wan()))
    model = load_wan()
    with monkeypatch.context(), pytest.raises(stop(pack, 9)):
        keep(model=lora(model))
    monkeypatch.undo()
    assert nodes.resume_run(lora(load_wan()), vae, "shots/run").result[2] == "shots/run_00001"
    assert nodes.resume_run(lora(model), vae, "shots/run").result[2] == "shots/run_00001"
    assert files(nodes.output / "shots/run_00001") == files(nodes.output / "whole/run_00001")


@pytest.mark.parametrize(
    ("act", "inputs", "said"),
    [
        ("keep", ["../out/run"], "no folder inside"),
        ("keep", ["shots/run", {"format": "h264-mp4", "bit_depth": "16"}], "16 bits: use 8 or 10"),
        ("resume_run", ["none/run"], 'no run "none/run"'),
        ("extend_run", ["shots/run", 0.0], "0 seconds is no length"),
        ("branch_run", ["shots/run", 7], "2 finished chunks: branch from 0 to 2"),
        ("clean_run", [""], "no folder inside"),
        ("clean_run", ["shots/run"], "there are shots/run_00001"),
        ("list_runs", ["../.."], "no folder inside"),
        ("extend_run", ["", 5.0], "connect a run"),
    ],
)
def test_what_cannot_work_is_refused_and_nothing_is_left(nodes, keep, load_wan, vae, act, inputs, said):
    keep(frames=6)
    before = files(nodes.output)
    models = [load_wan(), vae] if act in ("resume_run", "extend_run", "branch_run") else []
    plain = [value for value in inputs if not isinstance(value, dict)]
    options = next((value for value in inputs if isinstance(value, dict)), {})
    with pytest.raises((ValueError, OSError), match=said) as refusal:
        (keep if act == "keep" else getattr(nodes, act))(*models, *plain, **options)
    assert "\n" not in str(refusal.value)
    assert files(nodes.output) == before


def test_a_kept_run_needs_the_vae_and_makes_one_video(nodes, load_wan, vae, positive, latent):
    [choice] = nodes.video_output("shots/run").result
    with pytest.raises(ValueError, match="connect the VAE"):
        nodes.anchor_window_sampler(load_wan(), positive, latent(4), 3, output=choice)
    with pytest.raises(ValueError, match="set batch_size to 1"):
        nodes.anchor_window_sampler(load_wan(), positive, latent(4, batch=2), 3, vae=vae, output=choice)
    assert not [path for path in nodes.output.rglob("*") if path.is_file()]


def test_memory_that_is_too_small_is_refused_before_the_first_step(pack, keep, nodes, monkeypatch):
    """Seen to fail without `check_memory`."""
    import comfy.model_management as mm

    monkeypatch.setattr(mm, "get_total_memory", lambda device: 1.001 * 2**30)
    with pytest.raises(ValueError, match="GB are needed and 1 GB are there"):
        keep()
    assert not [path for path in nodes.output.rglob("*") if path.is_file()]


@pytest.fixture
def code_for(pack, nodes):
    """The code that Clean Run shows under the node, and nowhere else."""

    def ask(run, **choice):
        answer = nodes.clean_run(run, **choice)
        [shown] = answer.ui.as_dict()["text"]
        [code] = re.findall(r"write ([0-9a-f]{12}) into confirm", shown)
        assert code not in answer.result[0]
        return code

    return ask


def test_runs_are_listed_and_cleaned(nodes, keep, code_for):
    keep(frames=4)
    assert nodes.list_runs("others").result == ("no run is in others",)
    [text] = nodes.list_runs("shots").result
    assert text.startswith("shots/run_00001  finished 2/2 chunks, 0.8 s of 64x64")
    nodes.clean_run("shots/run_00001", confirm=code_for("shots/run_00001"))
    left = sorted(path.name for path in (nodes.output / "shots/run_00001").iterdir())
    assert left == ["cuts.edl", "cuts.json", "video.mkv"]


def test_a_run_is_removed_by_its_own_code_alone(pack, nodes, keep, load_wan, vae, code_for, monkeypatch):
    """Not by one of another run, choice or session, nor of the run before it grew.

    Seen to fail with each part left out of the code.
    """
    keep("shots/run", frames=4)
    run = "shots/run_00001"
    shutil.copytree(nodes.output / run, nodes.output / "shots/other_00001")  # with the same files and times
    before = files(nodes.output)
    answer = nodes.clean_run(run).result[0]
    assert re.match(r"Nothing is removed yet: shots/run_00001  finished 2/2 chunks, .* MB", answer)
    assert "its video stays" in answer and "for good" in nodes.clean_run(run, video=True).result[0]
    wrong = [code_for("shots/other_00001"), code_for(run, video=True), "", "0" * 12, "\N{SNOWMAN}", "x" * 100000]
    with monkeypatch.context() as patch:
        patch.setattr(pack.part("nodes.host.cleaning"), "_SECRET", b"of another session")
        wrong.append(code_for(run))
    for code in wrong:
        assert nodes.clean_run(run, confirm=code).result[0].count("is not the one for this") == bool(code)
    manifest = nodes.output / run / "manifest.json"
    text, code = manifest.read_text(), code_for(run)
    manifest.write_text(f"{text}\n")
    assert "Nothing is removed yet" in nodes.clean_run(run, confirm=code).result[0]
    manifest.write_text(text)
    assert files(nodes.output) == before
    chunk, code = nodes.output / run / "chunks" / "00001.safetensors", code_for(run)
    os.utime(chunk, (1, 1))  # as of a run that was made again under the same name
    assert "Nothing is removed yet" in nodes.clean_run(run, confirm=code).result[0]
    code = code_for(run, video=True)
    assert nodes.clean_run(run, video=True, confirm=f" {code.upper()}\n").result[0].endswith("MB are free again")
    assert not (nodes.output / run).exists()


def test_a_code_must_be_written_by_hand(pack):
    """Seen to fail without a look at the graph: another node could read the code, and hand it on."""
    check = pack.part("nodes.host.cleaning").check_written
    for inputs in ({"confirm": "1"}, {}):
        check(SimpleNamespace(prompt={"5": {"inputs": inputs}}, unique_id="5"), "confirm")
    check(None, "confirm")
    for prompt in ({"5": {"inputs": {"confirm": ["4", 0]}}}, {"4": {"inputs": {}}}):
        with pytest.raises(ValueError, match="takes no connection"):
            check(SimpleNamespace(prompt=prompt, unique_id="5"), "confirm")


@pytest.fixture
def voice(comfyui, tmp_path_factory):
    """A VIDEO that is a sound file of 4 seconds, as Load Video gives one, and its packets."""
    from comfy_api.latest import InputImpl

    path = sound_file(tmp_path_factory.mktemp("input") / "voice.m4a", 4)
    return InputImpl.VideoFromFile(str(path)), sound_packets(path)


@pytest.mark.parametrize("format", ["h264-mp4", "ffv1"])
def test_a_sound_goes_into_the_video_and_a_run_that_was_cancelled_has_it_too(
    pack, nodes, keep, load_wan, vae, stop, voice, format, monkeypatch
):
    """Packet for packet. Seen to fail where the choice is not passed on to the run."""
    video, wanted = voice
    kept = {"format": format, "bit_depth": "8"}
    whole = keep("whole/run", sound=video, **kept)[1].get_stream_source()
    with monkeypatch.context(), pytest.raises(stop(pack, 12)):
        keep(sound=video, **kept)
    monkeypatch.undo()
    run = nodes.resume_run(load_wan(), vae, "shots/run").result[2]
    found = [data for data, _ in sound_packets(whole)]
    assert found == [data for data, _ in wanted][:144]  # 49 frames are 3.0625 s, a packet is 1024 / 48000 s
    assert files(nodes.output / run) == files(nodes.output / "whole/run_00001")
    assert (nodes.output / run / "sound.mka").read_bytes() == (nodes.output / "whole/run_00001/sound.mka").read_bytes()


def test_another_sound_is_another_run_and_a_longer_one_keeps_it(nodes, keep, load_wan, vae, voice):
    """Seen to fail with a manifest that does not name the sound."""
    video, wanted = voice
    assert keep(frames=4, sound=video)[2] == "shots/run_00001"
    assert keep(frames=4)[2] == "shots/run_00002"
    assert keep(frames=4, sound=video.as_trimmed(1.0, 2.0))[2] == "shots/run_00003"
    assert keep(frames=4, sound=video)[2] == "shots/run_00001"
    _, longer, run, _ = nodes.extend_run(load_wan(), vae, "shots/run_00001", 1.0).result
    assert sound_packets(longer.get_stream_source()) == sound_packets_of(wanted, 29 / 16)
    [choice] = nodes.video_output("shots/master", "prores-422hq").result
    _, mute, _, _ = nodes.branch_run(load_wan(), vae, run, output=choice).result
    with pytest.raises(ValueError, match="holds no sound"):
        sound_packets(mute.get_stream_source())
    [choice] = nodes.video_output("shots/master", "prores-422hq", sound=video).result
    _, loud, _, _ = nodes.branch_run(load_wan(), vae, "shots/run_00002", output=choice).result
    assert sound_packets(loud.get_stream_source()) == sound_packets_of(wanted, 13 / 16)


def sound_packets_of(packets, seconds):
    """Those of them that begin before that time; Matroska rounds it to milliseconds."""
    return [(data, pytest.approx(time, abs=1e-3)) for data, time in packets if time < seconds]


def test_a_sound_that_cannot_be_copied_is_refused_by_the_video_output(nodes, voice, tmp_path_factory):
    """The very first node; seen to fail where only the container says so, at the end of a run."""
    from comfy_api.latest import InputImpl, Types

    folder = tmp_path_factory.mktemp("other")
    pcm = InputImpl.VideoFromFile(str(sound_file(folder / "a.wav", 1, "pcm_s16le")))
    frames = Types.VideoComponents(images=torch.zeros(2, 64, 64, 3), audio=None, frame_rate=16)
    for format, video, said in (
        ("png16", voice[0], "png16 is a folder of pictures and holds no sound: leave it out"),
        ("h264-mp4", pcm, "pcm_s16le sound does not fit into h264-mp4: convert a.wav to AAC"),
        ("h264-mp4", InputImpl.VideoFromFile(io.BytesIO(b"words")), "holds no sound that can be read"),
        ("h264-mp4", InputImpl.VideoFromComponents(frames), "is in no file yet: connect Load Video"),
        ("h264-mp4", voice[0].as_trimmed(1.005, 0.01), "holds no sound between"),
    ):
        with pytest.raises(ValueError, match=said):
            nodes.video_output("shots/run", format, sound=video)
    assert not list(nodes.output.iterdir())


def test_a_run_goes_on_in_another_exact_memory_tier_and_not_in_fp8(pack, nodes, keep, stop, load_wan, vae):
    """Seen to fail with snapshots of pages, and with a manifest that does not tell of FP8."""
    tier = pack.part("nodes.model.dual_resolution_cache").DualResolutionCache.execute
    interrupted = stop(pack, 14)
    with pytest.raises(interrupted):
        keep(model=tier(load_wan(), kv_memory="cpu").result[0], snapshots=1)
    with pytest.raises(ValueError, match=r"the setting fp8_kv .True, was False."):
        nodes.resume_run(tier(load_wan(), kv_memory="fp8").result[0], vae, "shots/run_00001")
    nodes.resume_run(tier(load_wan(), kv_memory="lean").result[0], vae, "shots/run_00001")
    keep("shots/whole")
    chunks = [
        [(nodes.output / "shots" / run / "chunks" / f"{n:05d}.safetensors").read_bytes() for n in range(5)]
        for run in ("run_00001", "whole_00001")
    ]
    assert chunks[0] == chunks[1]
    keep(model=tier(load_wan(), kv_memory="fp8").result[0])
    assert read_manifest(nodes.output / "shots" / "run_00002").settings.fp8_kv


def test_the_memory_that_a_run_is_refused_for_is_that_of_its_tier(pack, nodes, keep, load_wan, vae, monkeypatch):
    """Seen to fail with a check that takes every run for a full one."""
    backend = pack.part("nodes.host.backend")
    asked = []
    monkeypatch.setattr(backend, "does_not_fit", lambda cost, size: asked.append(cost) or ["too much"])
    tier = pack.part("nodes.model.dual_resolution_cache").DualResolutionCache.execute
    for kv in ("full", "lean", "cpu", "fp8"):
        with pytest.raises(ValueError, match="too much"):
            keep(model=tier(load_wan(), kv_memory=kv).result[0])
    assert [cost.kv for cost in asked] == ["full", "lean", "cpu", "fp8"]
    assert all(cost.unified for cost in asked), "the tests run on a CPU"
