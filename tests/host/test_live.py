"""Live inside a real ComfyUI: workflow 8 over /prompt, Cancel, its page, and what it refuses."""

import contextlib
import json
import re
import socket
import threading
import time
import urllib.request
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from clips import probe, read_frames, shapes

from histream_core.video.formats import find_format
from histream_core.video.writers import open_writer

ADDRESS = re.compile(r"http://127\.0\.0\.1:(\d+)/#([\w-]{22})")
MODEL, CLIP, VAE = (["demo", index] for index in range(3))
WAIT_SECONDS = 120
"""Longest wait for what happens on a busy machine too; nothing is timed."""


def clip(path, count=12, *, size=(64, 64), fps=8):
    """A clip of moving shapes in a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open_writer(path, find_format("h264-mp4"), size=size, fps=fps) as writer:
        writer.write(shapes(count, size[1], size[0]))
    return path


def graph(**live) -> dict:
    """A stream of the demo model over a file of the input folder."""
    inputs = {"model": MODEL, "positive": ["words", 0], "vae": VAE, "source": "in.mp4", "seed": 1, "strength": 0.8}
    inputs |= {"fps": 8, "width": 64, "height": 64, "seconds": 2, "record": True, "policy": "all"}
    return {
        "demo": {"class_type": "HiStreamDemoModel", "inputs": {}},
        "words": {"class_type": "CLIPTextEncode", "inputs": {"clip": CLIP, "text": "a red square moves right on blue"}},
        "live": {"class_type": "HiStreamLive", "inputs": inputs | live},
        "says": {"class_type": "PreviewAny", "inputs": {"source": ["live", 1]}},
    }


def recording(server, run):
    """The recording that the node shows."""
    [shown] = run.outputs["live"]["images"]
    return server.folder / "output" / shown["subfolder"] / shown["filename"]


def is_open(port: int) -> bool:
    with socket.socket() as found:
        return found.connect_ex(("127.0.0.1", port)) == 0


def until(found):
    """Wait until `found` gives something, and return it."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        if value := found():
            return value
        time.sleep(0.05)
    raise AssertionError("it has not happened")


@contextlib.contextmanager
def playing(server, prompt):
    """A prompt that runs in the block, in which its page is open: the port, the token, and what it has told."""
    start, told = len(server.read_log()), SimpleNamespace(run=None)
    thread = threading.Thread(target=lambda: setattr(told, "run", server.run(prompt)))
    thread.start()
    try:
        found = until(lambda: ADDRESS.search(server.read_log(), start))
        told.port, told.token = int(found[1]), found[2]
        yield told
    finally:
        server.post("/interrupt", {})
        thread.join(WAIT_SECONDS)


def test_over_the_server_a_file_is_restyled_while_it_plays_and_the_page_is_gone_afterwards(server):
    """Over /prompt. Seen to fail where the server is left open."""
    clip(server.folder / "input" / "in.mp4")
    start = len(server.read_log())
    run = server.run(graph())
    assert run.error == ""
    path = recording(server, run)
    assert path.parent == server.folder / "output" / "histream"
    info = probe(path)
    assert (info.width, info.height, info.fps) == (64, 64, 8) and info.num_frames > 9
    [summary] = run.outputs["says"]["text"]
    assert re.match(r"live, 64x64: \d+ frames in", summary) and ", 0 of " in summary
    assert f"recorded in histream/{path.name}" in summary
    port = int(ADDRESS.search(server.read_log(), start)[1])
    assert f"its page was http://127.0.0.1:{port}/#" in summary
    assert not is_open(port)
    assert run.previews


def test_the_server_answers_while_it_runs_and_cancel_leaves_a_whole_recording(server):
    """And the next prompt works. Seen to fail where Cancel is not looked at between two pictures."""
    clip(server.folder / "input" / "in.mp4")
    with playing(server, graph(seconds=0, source="page")) as waiting:
        assert len(server.get("/queue")["queue_running"]) == 1  # no picture comes, and none is waited for
    assert waiting.run.interrupted and not is_open(waiting.port)
    before = set((server.folder / "output" / "histream").glob("*"))
    with playing(server, graph(seconds=600)) as told:
        until(lambda: report_of(told)["frames"] > 12)
        assert server.get("/system_stats") and len(server.get("/queue")["queue_running"]) == 1
    assert told.run.interrupted and not is_open(told.port)
    [path] = set((server.folder / "output" / "histream").glob("*")) - before
    assert probe(path).num_frames > 12
    assert f"the live stream is over, recorded in histream/{path.name}" in server.read_log()
    assert server.run(graph(seconds=1)).error == ""


def test_a_second_one_waits_in_the_queue_of_the_server(server):
    clip(server.folder / "input" / "in.mp4")
    with playing(server, graph(seconds=600)) as told:
        server.post("/prompt", {"prompt": graph(seconds=1), "client_id": "other"})
        until(lambda: len(server.get("/queue")["queue_pending"]) == 1)
        assert report_of(told)["state"] == "on"
    until(lambda: not server.get("/queue")["queue_running"])
    assert len([*ADDRESS.finditer(server.read_log())]) >= 2


def test_over_the_server_prompts_begin_at_the_next_chunk_and_need_the_clip(server):
    """The lines of a timeline are cues. Seen to fail without the CLIP, which then says so on the page."""
    clip(server.folder / "input" / "in.mp4")
    lines = "[0] a red square moves right on blue\n[4, cut] a green circle moves down on white"
    timeline = {"class_type": "HiStreamPromptTimeline", "inputs": {"clip": CLIP, "timeline": lines}}
    with playing(server, {**graph(seconds=600, clip=CLIP), "words": timeline}) as told, page_of(told) as page:
        assert report_of(told)["cues"] == [line.split("] ")[1] for line in lines.splitlines()]
        for asked, words in (
            ({"prompt": "a blue circle"}, "a blue circle"),
            ({"cue": 1}, "a green circle moves down on white"),
        ):
            page.send(json.dumps(asked))
            until(lambda words=words: report_of(told)["prompt"] == words)
    with playing(server, graph(seconds=600)) as told, page_of(told) as page:
        assert "connect the CLIP to the node Live" in report_of(told)["mute"]
        page.send(json.dumps({"prompt": "a blue circle"}))
        until(lambda: "connect the CLIP to the node Live" in page.recv_text())


@contextlib.contextmanager
def page_of(told):
    """A page's socket to a stream that plays."""
    import websocket

    own = f"http://127.0.0.1:{told.port}"
    request = urllib.request.Request(f"{own}/enter", told.token.encode(), {"Origin": own}, method="POST")
    with urllib.request.urlopen(request, timeout=30) as answer:
        cookie = answer.headers["Set-Cookie"].split(";")[0]
    page = websocket.create_connection(f"ws://127.0.0.1:{told.port}/ws", origin=own, cookie=cookie, timeout=30)

    def recv_text():
        while not isinstance(found := page.recv(), str):
            pass
        return found

    page.recv_text = recv_text
    try:
        yield page
    finally:
        page.close()


def report_of(told) -> dict:
    """The numbers of a stream that plays."""
    with page_of(told) as page:
        while "report" not in (found := json.loads(page.recv_text())):
            pass
    return found["report"]


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "", "."])
def test_a_file_outside_the_input_folder_is_refused(pack, comfyui, name):
    """Seen to fail where the name is only joined to the folder."""
    with pytest.raises(ValueError, match="is no file inside ComfyUI's input folder: write page, camera:0"):
        pack.part("nodes.host.source").live_source(name, None, fps=None, size=None, again=False)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"source": "nothing.mp4"}, "there is no 'nothing.mp4' in ComfyUI's input folder"),
        ({"source": "ftp://host/a"}, 'an address cannot begin with "ftp"'),
        ({"source": "camera:97"}, "gives no picture"),
        ({"width": 0}, "width and height go together"),
        ({"width": 65}, "65"),
        ({"fps": 0.5}, "cannot be played at 0.5"),
        ({"model": ["demo", 0], "chunk_frames": 0}, "chunk_frames 0"),
    ],
)
def test_over_the_server_what_cannot_work_is_one_sentence_and_nothing_is_left(server, inputs, said):
    clip(server.folder / "input" / "in.mp4")
    before = set((server.folder / "output").rglob("*"))
    start = len(server.read_log())
    error = server.run(graph(**inputs)).error
    assert said in error and "\n" not in error
    assert set((server.folder / "output").rglob("*")) == before
    assert not ADDRESS.search(server.read_log(), start)


def test_texts_on_the_cpu_are_those_of_the_host_and_load_no_model(pack, comfyui, monkeypatch):
    """Seen to fail where the host's own encoding is called, which makes room on the device."""
    import comfy.model_management as mm

    _, clip, _ = pack.part("nodes.host.load").load_demo_model()
    words = "a green square moves left on white"
    wanted = clip.encode_from_tokens_scheduled(clip.tokenize(words))[0][0]
    speak = pack.part("nodes.host.live").speak_of(clip, wanted.shape[2])
    monkeypatch.setattr(mm, "load_models_gpu", None)
    assert torch.equal(speak(words), wanted)
    monkeypatch.undo()
    with pytest.raises(ValueError, match="use the text encoder that belongs to"):
        pack.part("nodes.host.live").speak_of(clip, 7)(words)


def test_over_the_server_strength_0_calls_no_network(server):
    """The source, through the VAE. Seen to hang where the first step of an endless plan is looked for."""
    clip(server.folder / "input" / "in.mp4")
    run = server.run(graph(strength=0.0))
    assert run.error == ""
    assert probe(recording(server, run)).num_frames > 9


@pytest.fixture
def play(pack, output, load_wan, vae, positive, monkeypatch):
    """Play a clip of the input folder by the node, in this process: what the node gives out."""
    import folder_paths

    folder = output / "input"
    clip(folder / "in.mp4", 24)
    monkeypatch.setattr(folder_paths, "get_input_directory", lambda: str(folder))
    node = pack.part("nodes.video.live").Live

    def run(source="in.mp4", **inputs):
        return node.execute(load_wan(), positive, vae, source, 1, **{"policy": "all"} | inputs).result

    return run


@pytest.fixture
def host_live(pack):
    return pack.part("nodes.host.live")


def recordings(output):
    return sorted((output / "histream").glob("*"))


def test_the_recording_is_a_video_and_the_summary_says_what_it_took(play, output):
    """Seen to fail with a file that is not closed."""
    video, summary = play()
    [path] = recordings(output)
    assert video.get_stream_source() == str(path) and path.name == "live_00001_.mp4"
    assert video.get_dimensions() == (64, 64) and video.get_frame_count() >= 24
    assert "24 frames in" in summary and "0 of 24 frames left out" in summary
    assert "recorded in histream/live_00001_.mp4" in summary


def test_without_record_there_is_no_file_and_no_video(play, output):
    video, summary = play(record=False)
    assert type(video).__name__ == "ExecutionBlocker" and "not recorded" in summary
    assert recordings(output) == []


def test_cancel_ends_it_before_the_next_call_and_what_was_recorded_is_whole(play, output, pack, monkeypatch):
    """Seen to fail where the interruption is swallowed, and where the recording is not closed."""
    import comfy.model_management as mm

    run = pack.part("nodes.host.run").HostRun
    denoise, calls = run.denoise, []

    def count(self, *args):
        calls.append(1)
        if len(calls) == 13:
            mm.interrupt_current_processing()
        return denoise(self, *args)

    monkeypatch.setattr(run, "denoise", count)
    with pytest.raises(mm.InterruptProcessingException):
        play(seconds=600.0)
    assert len(calls) == 13
    [path] = recordings(output)
    assert path.name == "live_00001_.mp4" and probe(path).num_frames >= 9
    assert not mm.processing_interrupted()


def test_cancel_ends_it_while_it_waits_for_a_picture(play, output, host_live, monkeypatch):
    """Seen to wait on where Cancel is looked at before network calls alone."""
    import comfy.model_management as mm

    late = []

    def cancel(self, _):
        threading.Thread(target=stop, args=(self._stage.session,), daemon=True).start()
        mm.interrupt_current_processing()

    def stop(session):
        time.sleep(WAIT_SECONDS / 4)
        late.append(session)
        session.stop()

    monkeypatch.setattr(host_live.Watch, "tell_address", cancel)
    with pytest.raises(mm.InterruptProcessingException):
        play("page", width=64, height=64)
    assert recordings(output) == [] and not late


def test_where_work_takes_turns_the_frames_are_the_same(play, output, host_live, monkeypatch):
    """A GPU takes turns. Seen to hang where a turn is not given back."""
    play()
    monkeypatch.setattr(host_live, "decodes_apart", lambda _: False)
    play()
    first, second = (list(read_frames(path))[:9] for path in recordings(output))
    assert np.array_equal(first, second)


def test_lines_of_a_timeline_are_cues_and_the_first_is_the_prompt(pack, host_live, positive):
    timeline, other = pack.part("nodes.host.timeline"), [[positive[0][0] + 1, {}]]
    cue = pack.part("histream_core.stream.timeline").Cue
    told = timeline.with_timeline(timeline.Timeline((cue(0.0, "one"), cue(2.0, "two")), (positive, other)))
    prompt, cues = host_live.prompt_and_cues(told, 32, "")
    assert prompt.words == "one" and [found.words for found in cues] == ["one", "two"]
    assert torch.equal(prompt.text.context, positive[0][0]) and torch.equal(cues[1].text, other[0][0])
    prompt, cues = host_live.prompt_and_cues(positive, 32, "a cat")
    assert (prompt.words, cues) == ("a cat", ())


def test_a_new_anchor_is_refused(pack, host_live, positive):
    """Seen to fail where it is ignored."""
    timeline = pack.part("nodes.host.timeline")
    of = pack.part("histream_core.stream.timeline")
    lines = of.Cue(0.0, "one"), of.Cue(2.0, "two", of.Change("cut", new_anchor=True))
    with pytest.raises(ValueError, match='"two" asks for a new anchor'):
        host_live.prompt_and_cues(timeline.with_timeline(timeline.Timeline(lines, (positive, positive))), 32, "")


def test_cancel_works_where_the_node_cannot_show_the_stream(host_live, comfyui, monkeypatch):
    """Seen to fail where an error in what is shown ends the thread."""
    import comfy.model_management as mm

    stopped, shown = threading.Event(), []

    def fail():
        shown.append(1)
        if len(shown) == 2:
            mm.interrupt_current_processing()
        raise OSError("the browser is gone")

    session = SimpleNamespace(report=fail, stop=stopped.set)
    stage = SimpleNamespace(session=session, settings=SimpleNamespace(seconds=1), player=SimpleNamespace(viewers=[]))
    monkeypatch.setattr(host_live, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(host_live, "SHOW_SECONDS", 0.001)
    with host_live.Watch(stage) as watch:
        assert stopped.wait(WAIT_SECONDS)
    with pytest.raises(mm.InterruptProcessingException):
        watch.check()
