"""The pack inside a running ComfyUI server: over /prompt and the web socket, as a browser uses it."""

import copy
import io
import json
from pathlib import Path

import numpy as np
import pytest
from clips import probe, read_frames

ROOT = Path(__file__).parents[2]
OBJECT_INFO = ROOT / "docs" / "object_info.json"
DEMO = "HiStream 01 Try it now, no download"
LONG = "HiStream 04 Long video to disk, prompt timeline"
PICTURE = "HiStream 05 Image to video"
EXTEND = "HiStream 06 Extend, retry, branch, resume"
RESTYLE = "HiStream 07 Restyle a video"
LIVE = "HiStream 08 Live camera"
EDITOR = "HiStream 10 Video to an editor"
CUSTOM = "HiStream 12 Wan sampler in a custom graph"
AWAKE = 0
"""The `mode` of a node that is neither muted nor bypassed."""


@pytest.fixture(scope="module")
def object_info(server) -> dict:
    return server.get("/object_info")


@pytest.fixture
def convert(object_info):
    """Turn a shipped workflow into what a browser would send; nodes of the classes `awake` are not bypassed."""
    to_api = pytest.importorskip("comfy_cli.workflow_to_api", reason="comfy-cli is not installed").convert_ui_to_api

    def run(name: str, *awake: str) -> dict:
        workflow = json.loads((ROOT / "workflows" / f"{name}.json").read_text())
        for node in workflow["nodes"]:
            node["mode"] = AWAKE if node["type"] in awake else node["mode"]
        return to_api(workflow, object_info)

    return run


def change(prompt: dict, kind: str, **inputs) -> dict:
    """The prompt with other inputs on the one node of a class."""
    prompt = copy.deepcopy(prompt)
    [node] = [node for node in prompt.values() if node["class_type"] == kind]
    node["inputs"] |= inputs
    return prompt


def shorten(prompt: dict, length: int) -> dict:
    """The prompt at 64 x 64, at most `length` frames long, and extended by one chunk at a time."""
    prompt = copy.deepcopy(prompt)
    for node in prompt.values():
        if node["class_type"] == "EmptyHunyuanLatentVideo":
            node["inputs"] |= {"width": 64, "height": 64, "length": min(length, node["inputs"]["length"])}
        if node["class_type"] == "HiStreamExtendRun":
            node["inputs"]["seconds"] = 0.7
    return prompt


def node_of(prompt: dict, kind: str) -> str:
    [key] = [key for key, node in prompt.items() if node["class_type"] == kind]
    return key


def sections(folder: Path) -> list[tuple]:
    """The sections of the cut list: first frame, frame after the last, prompt, seed."""
    cuts = json.loads((folder / "cuts.json").read_text())
    return [(cut["start"], cut["stop"], cut["prompt"].split()[1], cut["seed"]) for cut in cuts["sections"]]


def without_files(info):
    """`info` without the names of files that are in the server's input folder by now."""
    if isinstance(info, dict):
        names = {"options": []} if info.get("video_upload") else {}
        return {key: without_files(value) for key, value in info.items()} | names
    return [without_files(value) for value in info] if isinstance(info, list) else info


def test_the_committed_object_info_is_that_of_the_host(object_info):
    """Our nodes, and those of the host that the workflows use; rewritten where it is stale. Commit it then."""
    used = {
        node["type"]
        for path in (ROOT / "workflows").glob("*.json")
        for node in json.loads(path.read_text())["nodes"]
        if node["type"] in object_info
    }
    ours = {name for name in object_info if name.startswith("HiStream")}
    facts = ("input", "input_order", "output", "output_is_list", "output_name", "output_node", "display_name")
    words = ("description", "output_tooltips")
    wanted = {
        name: {key: object_info[name][key] for key in (*facts, *(words if name in ours else ()))}
        for name in sorted(ours | used)
    }
    text = json.dumps(without_files(wanted), indent=1) + "\n"
    stale = not OBJECT_INFO.exists() or OBJECT_INFO.read_text() != text
    if stale:
        OBJECT_INFO.write_text(text)
    assert not stale, f"{OBJECT_INFO} was stale and is now rewritten: commit it"


def test_the_pack_loads_without_a_complaint_in_the_log(server, object_info, pack):
    start, _, _ = server.read_log().partition("got prompt")  # what was refused later is no complaint about the pack
    lines = [line for line in start.splitlines() if "histream" in line.lower()]
    assert not [line for line in lines if "fail" in line.lower() or "error" in line.lower()]
    ours = {node.define_schema().node_id for node in pack.part("nodes").NODES}
    assert {name for name in object_info if name.startswith("HiStream")} == ours


def test_the_demo_workflow_runs_and_writes_a_file_that_plays(server, convert):
    """Progress over chunks and steps, a preview for every chunk. Shortened from 81 frames to 33.

    Seen to fail without `show`: no preview in the sampler's node.
    """
    from PIL import Image

    prompt = change(convert(DEMO), "EmptyHunyuanLatentVideo", length=33)
    prompt = change(prompt, "HiStreamAnchorWindowSampler", seed=1)
    run = server.run(prompt)
    assert run.error == ""
    [sampler] = [key for key, node in prompt.items() if node["class_type"] == "HiStreamAnchorWindowSampler"]
    told = [(value, total) for node, value, total in run.progress if node == sampler]
    assert told[-1] == (12, 12)
    assert len(run.previews) == 3 + 8 + 9  # each chunk, then one with every step; each latent frame that is decoded
    assert Image.open(io.BytesIO(run.previews[0])).size == (256, 256), "that of the video"
    [saved] = [file for output in run.outputs.values() for file in output["images"]]
    info = probe(server.folder / "output" / saved["subfolder"] / saved["filename"])
    assert (info.num_frames, info.width, info.height, info.fps) == (33, 256, 256, 16)


def test_the_long_video_has_the_prompts_of_its_timeline_and_two_more_when_they_are_woken(server, convert):
    """And a plot of its drift. Seen to fail with an Extend Run whose `run` is not linked."""
    runs = server.folder / "output" / "histream"
    story = "[0] a red circle\n[0:00.6, blend 2] a yellow circle\n[0:02, cut, new anchor] a green square"

    def short(*woken):
        prompt = shorten(convert(LONG, *woken), 45)
        return change(prompt, "HiStreamPromptTimeline", timeline=story)

    run = server.run(short())
    assert run.error == ""
    assert sections(runs / "long_00001") == [(0, 9, "red", 1), (9, 33, "yellow", 1), (33, 45, "green", 1)]
    [plot] = run.outputs[node_of(short(), "HiStreamDriftMeter")]["images"]
    assert (server.folder / "output" / "drift" / plot["filename"]).exists()
    [said] = [text for output in run.outputs.values() for text in output.get("text", [])]
    assert "begins at frame 9 (0:00.562, chunk 1), the nearest to 0:00.6 (frame 9.6)" in said
    woken = ("HiStreamExtendRun", "CLIPTextEncode", "HiStreamTimelineSection")
    longer = change(change(short(*woken), "HiStreamTimelineSection", seconds=0.75), "HiStreamExtendRun", seconds=1.4)
    assert server.run(longer).error == ""
    assert sections(runs / "long_00002")[3:] == [(45, 57, "turtle", 1), (57, 69, "frog", 1)]
    assert not (runs / "long_00003").exists()


def test_a_video_begins_with_the_picture_that_the_first_frame_node_was_given(server, convert):
    """Seen to fail with a sampler whose `first_frame` is not linked."""
    assert server.run(shorten(convert(PICTURE), 21)).error == ""
    written = server.folder / "output" / "video"
    made, picture = (
        max(written.glob(name), key=lambda path: path.stat().st_mtime_ns) for name in ("HiStream_*", "HiStream-p*")
    )
    last, first = list(read_frames(picture)), list(read_frames(made))
    assert len(first) == 21
    assert np.abs(last[8].astype(float) - first[0]).mean() < 8


def test_a_graph_of_custom_samplers_makes_the_video_of_the_sampler(server, convert):
    """With equal seed, prompt and size, as workflow 12 says. Seen to fail with another seed."""
    custom = shorten(convert(CUSTOM), 21)
    plain = change(shorten(convert(DEMO), 21), "HiStreamAnchorWindowSampler", seed=1)
    videos = []
    for prompt in (custom, change(plain, "HiStreamStreamingVAEDecode", filename_prefix="video/HiStream")):
        run = server.run(prompt)
        assert run.error == ""
        [saved] = run.outputs[node_of(prompt, "HiStreamStreamingVAEDecode")]["images"]
        videos.append(list(read_frames(server.folder / "output" / saved["subfolder"] / saved["filename"])))
    assert len(videos[0]) == 21
    assert np.array_equal(*videos)


def test_a_run_is_extended_retried_resumed_and_listed(server, convert):
    """Each when its nodes are woken; asleep they do nothing. Seen to fail with a Branch Run that has no seed,
    and with a list that does not wait for the run that is resumed.
    """
    runs = server.folder / "output" / "histream"
    assert server.run(shorten(convert(EXTEND), 21)).error == ""
    assert not (runs / "take_00002").exists()
    prompt = shorten(convert(EXTEND, "HiStreamExtendRun"), 21)
    assert server.run(prompt).error == ""
    assert sections(runs / "take_00002") == [(0, 21, "red", 1), (21, 33, "yellow", 1)]
    prompt = shorten(convert(EXTEND, "HiStreamBranchRun"), 21)
    assert server.run(prompt).error == ""
    assert sections(runs / "take_00003") == [(0, 9, "red", 1), (9, 21, "red", 7)]
    first, other = ([path.read_bytes() for path in segments(runs / f"take_0000{number}")] for number in (1, 3))
    assert first[0] == other[0]
    assert first[1] != other[1]
    (runs / "take_00003" / "video.mp4").unlink()
    prompt = shorten(convert(EXTEND, "HiStreamResumeRun", "HiStreamListRuns", "PreviewAny"), 21)
    run = server.run(prompt)
    assert run.error == ""
    assert probe(runs / "take_00003" / "video.mp4").num_frames == 21
    [text] = run.outputs[node_of(prompt, "PreviewAny")]["text"]
    listed = [line.split(",")[0] for line in text.splitlines() if "take" in line]
    runs_of = (("1", 2), ("2", 3), ("3", 2))
    assert listed == [f"histream/take_0000{number}  finished {count}/{count} chunks" for number, count in runs_of]


def test_a_restyled_video_keeps_frames_rate_and_place_and_becomes_the_prompts_shape(server, convert):
    """Workflow 7 but for its length: the red square covers corners that the circle leaves blue.

    Seen to fail with the source's own prompt, and with strength 1, where the square begins in the middle.
    """
    prompt = change(convert(RESTYLE), "HiStreamDemoVideo", seconds=1.25)
    run = server.run(prompt)
    assert run.error == ""
    [painted] = run.outputs[node_of(prompt, "HiStreamDemoVideo")]["images"]
    [made] = run.outputs[node_of(prompt, "HiStreamVideoToVideo")]["images"]
    source = server.folder / "temp" / painted["filename"]
    restyled = server.folder / "output" / made["subfolder"] / made["filename"]
    assert probe(restyled) == probe(source)
    before, after = (np.stack(list(read_frames(path))) for path in (source, restyled))
    assert len(after) == 20
    for index in (6, 10, 14, 18):
        was, now = is_red(before[index]), is_red(after[index])
        middle = round(256 * (0.3 + index / 64))
        corners = [(128 + dy, middle + dx) for dy in (-52, 52) for dx in (-52, 52)]
        assert abs(np.argwhere(now).mean(0) - np.argwhere(was).mean(0)).max() < 0.04 * 256
        assert (sum(was[place] for place in corners), sum(now[place] for place in corners) >= 3) == (0, True)


def test_a_live_stream_runs_to_its_end_and_gives_a_recording(server, convert):
    """Workflow 8 but for its length. Seen to fail with a Live whose video is not linked, which waits for a page."""
    prompt = change(convert(LIVE), "HiStreamLive", seconds=2)
    run = server.run(prompt)
    assert run.error == ""
    [made] = run.outputs[node_of(prompt, "HiStreamLive")]["images"]
    info = probe(server.folder / "output" / made["subfolder"] / made["filename"])
    assert (info.width, info.height, info.fps) == (256, 256, 12) and info.num_frames >= 9
    [summary] = run.outputs[node_of(prompt, "PreviewAny")]["text"]
    assert f"recorded in histream/{made['filename']}" in summary


def is_red(frame: np.ndarray) -> np.ndarray:
    return (frame[..., 0] > 170) & (frame[..., 1:].max(-1) < 90)


def segments(folder: Path) -> list[Path]:
    return sorted((folder / "segments").glob("*.mp4"))


def test_an_editor_gets_prores_a_file_for_each_section_a_cut_list_and_pictures(server, convert):
    """Seen to fail without `section_files`."""
    runs = server.folder / "output" / "histream"
    assert server.run(shorten(convert(EDITOR), 9)).error == ""
    folder = runs / "edit_00002"
    lengths = {path.name: probe(path).num_frames for path in folder.glob("*.mov")}
    assert lengths == {"video.mov": 21, "video.01.mov": 9, "video.02.mov": 12}
    assert sections(folder) == [(0, 9, "red", 1), (9, 21, "yellow", 1)]
    events = [line for line in (folder / "cuts.edl").read_text().splitlines() if line[:3].isdigit()]
    assert [event.split()[-4:-2] for event in events] == [
        ["00:00:00:00", "00:00:00:09"],
        ["00:00:00:09", "00:00:01:05"],
    ]
    assert server.run(shorten(convert(EDITOR, "HiStreamBranchRun", "HiStreamVideoOutput"), 9)).error == ""
    pictures = sorted(path.name for path in (runs / "frames_00001" / "video").iterdir())
    assert (len(pictures), pictures[0], pictures[-1]) == (21, "video.00000.png", "video.00020.png")


def test_cancel_over_the_wire_stops_the_run_and_the_next_one_works(server, convert):
    prompt = change(convert(DEMO), "EmptyHunyuanLatentVideo", length=241)
    prompt = change(prompt, "HiStreamAnchorWindowSampler", seed=2)
    cancelled = []

    def cancel(node, value, total):
        if total > 12 and not cancelled:
            cancelled.append(value)
            server.post("/interrupt", {})

    run = server.run(prompt, on_progress=cancel)
    assert run.interrupted
    assert max(value for _, value, total in run.progress if total > 12) <= cancelled[0] + 4
    again = change(change(prompt, "EmptyHunyuanLatentVideo", length=1), "HiStreamAnchorWindowSampler", seed=3)
    assert server.run(again).error == ""


@pytest.mark.parametrize(
    ("kind", "inputs", "said"),
    [
        ("HiStreamAnchorWindowSampler", {"chunk_frames": 0}, "use 3, or at least 1"),
        ("HiStreamStepSchedule", {"mode": "custom", "steps": "1000"}, "is not a list of steps"),
        ("HiStreamStreamingVAEDecode", {"filename_prefix": "../../outside"}, "outside"),
    ],
    ids=["chunk", "steps", "folder"],
)
def test_what_cannot_work_is_one_clear_line_and_the_server_lives(server, convert, kind, inputs, said):
    prompt = change(change(convert(DEMO), "EmptyHunyuanLatentVideo", length=1), kind, **inputs)
    error = server.run(prompt).error
    assert said in error
    assert server.get("/system_stats")


@pytest.mark.parametrize(
    "name",
    ["HiStream 02 Text to 1080p video, Wan sampler", "HiStream 03 Text to 1080p video, faster", "HiStream 11 Wan LoRA"],
)
def test_the_other_workflows_lack_nothing_but_their_model_files(server, convert, name):
    """The server checks every input of every node; only the files are not in its folders."""
    prompt = convert(name)
    refused = server.post("/prompt", {"prompt": prompt})["node_errors"]
    missing = {
        (node["class_type"], error["details"].split(":")[0]) for node in refused.values() for error in node["errors"]
    }
    lora = {("LoraLoaderModelOnly", "lora_name")} if name.endswith("LoRA") else set()
    files = {("HiStreamLoadModel", "model_name"), ("CLIPLoader", "clip_name"), ("VAELoader", "vae_name")}
    assert missing == files | lora


def test_every_workflow_is_in_the_template_browser_with_its_picture(server):
    listed = server.get("/workflow_templates")
    [names] = [names for pack, names in listed.items() if pack.startswith("histream")]
    assert sorted(names) == sorted(path.stem for path in (ROOT / "workflows").glob("*.json"))
    for path in (ROOT / "workflows").glob("*.json"):
        assert path.with_suffix(".jpg").exists()


def test_every_node_has_its_help_page_where_the_browser_looks(server, object_info):
    import urllib.request

    for name in (name for name in object_info if name.startswith("HiStream")):
        url = f"http://127.0.0.1:{server.port}/extensions/histream/docs/{name}.md"
        with urllib.request.urlopen(url, timeout=10) as page:
            assert page.read().startswith(b"#")
