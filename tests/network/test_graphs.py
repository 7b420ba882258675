"""Passes at LOW that are recorded and replayed; a recorder on the CPU replaces CUDA graphs."""

import contextlib

import pytest
import tiny
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from histream_core.network.compile.graphs import CudaRecorder, GraphedForward
from histream_core.network.forward import Denoiser, forward_chunk
from histream_core.network.kernels import choose_kernels
from histream_core.plan.guidance import Guidance
from histream_core.plan.schedule import Scale
from histream_core.plan.speed import Speed
from histream_core.stream.prompts import Prompt, led_away


class Recording(TorchDispatchMode):
    """A stand-in for a CUDA graph: it repeats every operation on the tensors of the recording, without Python."""

    def __init__(self):
        super().__init__()
        self.operations = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.operations.append((function, args, kwargs or {}, result))
        return result

    def replay(self):
        for function, args, kwargs, result in self.operations:
            again = function(*args, **kwargs)
            for x, y in zip(*(list(_tensors(tree)) for tree in (result, again)), strict=True):
                if x.data_ptr() != y.data_ptr():
                    x.copy_(y)


def _tensors(tree):
    found = []
    tree_map_only(torch.Tensor, found.append, tree)
    return found


class Recorder:
    """A recorder that counts its recordings, and how often each is replayed."""

    def __init__(self):
        self.replays = []

    def __call__(self, work):
        with Recording() as recording:
            result = work()
        for x in _tensors(result):
            x.fill_(torch.nan)  # a CUDA graph computes nothing while it is recorded
        index = len(self.replays)
        self.replays.append(0)

        def replay():
            self.replays[index] += 1
            recording.replay()
            return result

        return replay


def graphed(model=None, recorder=None, **options):
    """A denoiser whose LOW passes are recorded, the recorder, and the list of warnings."""
    recorder, told = recorder or Recorder(), []
    forward = GraphedForward(recorder, told.append)
    return Denoiser(model or tiny.wan(), forwards={Scale.LOW: forward}, **options), recorder, told


def low_steps(chunks):
    """All calls at LOW, cache passes included."""
    return [step for chunk in chunks for step in (*chunk.steps, *chunk.cache_steps) if step.scale is Scale.LOW]


def test_replayed_passes_make_the_same_video():
    """Two kinds of pass; each runs once unrecorded and is then recorded. Seen to fail when a replay reads the pages,
    the rotations, the latent or the timestep of another chunk."""
    plan = tiny.plan(num_frames=18)
    denoise, recorder, told = graphed()
    assert torch.equal(tiny.video(plan, denoise=denoise), tiny.video(plan))
    calls = [
        step for chunk in plan.chunks[1:] for step in (*chunk.steps, *chunk.cache_steps) if step.scale is Scale.LOW
    ]
    assert sum(recorder.replays) == len(calls) - 2
    assert len(recorder.replays) == 2 and not told


def test_a_moving_anchor_is_replayed_too():
    """Its keys are rotated again for every chunk, in place."""
    plan = tiny.plan("naive", num_frames=30)
    assert plan.moving_anchor
    denoise, recorder, _ = graphed()
    assert torch.equal(tiny.video(plan, denoise=denoise), tiny.video(plan))
    assert len(recorder.replays) == 2


def test_another_prompt_is_read_by_the_same_recording():
    """Seen to fail when the keys of the first prompt are kept."""
    prompts = [Prompt(tiny.text(0)), Prompt(tiny.text(1), first_chunk=3)]
    plan = tiny.plan("naive", num_frames=18)
    denoise, recorder, _ = graphed()
    made = tiny.video(plan, denoise=denoise, prompts=prompts)
    assert torch.equal(made, tiny.video(plan, prompts=prompts))
    assert not torch.equal(made, tiny.video(plan))
    assert len(recorder.replays) == 2


@pytest.mark.parametrize(("guidance", "recordings"), [(Guidance(cfg=3), 4), (Guidance(nag=6), 2)], ids=str)
def test_guided_passes_are_recorded_for_each_prompt(guidance, recordings):
    """Seen to fail where NAG reads the first negative prompt for ever."""
    given = [(0, tiny.text(2)), (3, tiny.text(3))]
    prompts = [led_away([Prompt(tiny.text(chunk), chunk)], negative.context)[0] for chunk, negative in given]
    plan = tiny.plan("naive", num_frames=18, guidance=guidance)
    denoise, recorder, _ = graphed(guidance=guidance)
    plain = Denoiser(tiny.wan(), guidance=guidance)
    made, wanted = (tiny.video(plan, denoise=found, prompts=prompts) for found in (denoise, plain))
    assert torch.equal(made, wanted)
    assert len(recorder.replays) == recordings


@pytest.mark.parametrize("kv", ["lean", "cpu"])
def test_caches_that_move_their_past_are_not_recorded(kv):
    """Seen to fail when passes over every cache are recorded."""
    plan = tiny.plan("naive", num_frames=15)
    denoise, recorder, _ = graphed()
    assert torch.equal(tiny.video(plan, denoise=denoise, kv=kv), tiny.video(plan))
    assert not recorder.replays


def test_windows_that_grow_are_not_recorded():
    """Seen to fail when passes over every window are recorded."""
    plan = tiny.plan("naive", num_frames=10, preset="causal-forcing-framewise")
    denoise, recorder, _ = graphed()
    assert torch.equal(tiny.video(plan, denoise=denoise), tiny.video(plan))
    whole = [chunk for chunk in plan.chunks if len(chunk.context) == 6]
    assert sum(recorder.replays) == len(low_steps(whole)) - 2


def test_weights_that_have_moved_are_noticed():
    """A host unloads and loads weights between chunks. Seen to fail without the comparison of addresses."""
    model, plan = tiny.wan(), tiny.plan("naive", num_frames=18)
    wanted = tiny.video(plan)
    denoise, recorder, _ = graphed(model)
    chunks = []
    for chunk in tiny.stream(plan, model=model, denoise=denoise).chunks():
        chunks.append(chunk)
        if len(chunks) == 4:
            moved = {name: x.clone() for name, x in model.state_dict().items()}
            for parameter in model.parameters():
                parameter.data = torch.full_like(parameter, torch.nan)
            model.load_state_dict(moved, assign=True)
    assert torch.equal(torch.cat(chunks, dim=2), wanted)
    assert len(recorder.replays) == 4


def test_weights_elsewhere_are_not_recorded():
    """Seen to fail when only the first weight is checked."""
    model, plan = tiny.wan(), tiny.plan("naive", num_frames=12)
    model.register_buffer("elsewhere", torch.empty(1, device="meta"))
    denoise, recorder, _ = graphed(model)
    assert torch.equal(tiny.video(plan, denoise=denoise), tiny.video(plan))
    assert not recorder.replays


def test_a_recorder_that_fails_is_told_of_once_and_changes_nothing():
    """Seen to fail when the error ends the run, and when recording is tried again in every pass."""

    def broken(work):
        work()
        raise RuntimeError("operation not permitted when stream is capturing\nand more")

    plan = tiny.plan("naive", num_frames=18)
    denoise, _, told = graphed(recorder=broken)
    assert torch.equal(tiny.video(plan, denoise=denoise), tiny.video(plan))
    [words] = told
    assert "not permitted when stream is capturing" in words and "\n" not in words


def test_graphs_are_refused_without_a_cuda_device():
    """Seen to fail when the choice is accepted and ignored."""
    with pytest.raises(ValueError, match="graphs low needs a CUDA device, and this is cpu: choose graphs off"):
        choose_kernels(Speed(graphs="low"), torch.device("cpu"), torch.float32)
    assert choose_kernels(Speed(), torch.device("cpu"), torch.float32).low_forward() is forward_chunk


class Streams:
    """A stand-in for CUDA's streams, graphs and their memory; a capture fails where `broken`, as CUDA's own does."""

    def __init__(self, monkeypatch):
        self.current, self.broken, self.pools = "the usual one", False, []
        monkeypatch.setattr(torch.cuda, "CUDAGraph", lambda: None)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: self.current)
        monkeypatch.setattr(torch.cuda, "set_stream", lambda stream: setattr(self, "current", stream))
        monkeypatch.setattr(torch.cuda, "graph", self.capture)

    @contextlib.contextmanager
    def capture(self, _graph, *, pool=None, capture_error_mode):
        assert capture_error_mode == "thread_local"
        self.pools.append(pool)
        self.current = "one for captures"
        yield
        if self.broken:
            raise RuntimeError("operation failed due to a previous error during capture")
        self.current = "the usual one"


def test_a_capture_that_fails_leaves_the_stream_that_was_there(monkeypatch):
    """All that follows would be computed on the other one. Seen to fail without the stream set again."""
    streams = Streams(monkeypatch)
    streams.broken = True
    with pytest.raises(RuntimeError, match="during capture"):
        CudaRecorder()(lambda: None)
    assert streams.current == "the usual one"


def test_each_recording_has_memory_of_its_own(monkeypatch):
    """Where weights moved, the recordings are gone, and so is memory that they shared. Seen to fail with their pool."""
    streams, record = Streams(monkeypatch), CudaRecorder()
    for _ in range(3):
        record(lambda: None)
    assert streams.pools == [None] * 3
