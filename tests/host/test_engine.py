"""Several processes for one video inside a real ComfyUI: the same bytes, Cancel, a lost rank, Release Workers."""

import os
import signal

import pytest

pytest.importorskip("ray", reason="pip install histream[scale]")
FRAMES = 10


@pytest.fixture
def make(pack, output, load_wan, vae, positive, latent, monkeypatch):
    """Make a kept run on so many processes; its files and its name come back."""
    choose = pack.part("nodes.video.video_output").VideoOutputNode.execute
    sample = pack.part("nodes.sampling.anchor_window_sampler").AnchorWindowSampler.execute
    share = pack.part("nodes.model.engine").EngineNode.execute
    monkeypatch.setattr(pack.part("histream_core.plan.sharing"), "LEAST_TOKENS", 1)

    def run(folder, gpus, *, model=None, split="sequence"):
        [shared] = share(model or load_wan(), gpus, split).result
        [choice] = choose(folder, format="ffv1", bit_depth="8").result
        name = sample(shared, positive, latent(FRAMES), 3, vae=vae, output=choice).result[2]
        kept = (path for path in (output / name).rglob("*") if path.suffix in (".mkv", ".safetensors", ".latent"))
        return {str(path.relative_to(output / name)): path.read_bytes() for path in kept}

    return run


@pytest.fixture(scope="module", autouse=True)
def release(pack):
    """The Release Workers node; no process stays behind the tests."""
    node = pack.part("nodes.model.engine").ReleaseWorkers.execute
    yield node
    node()


def workers(pack):
    return pack.part("histream_core.parallel.workers")


def test_two_processes_make_the_bytes_of_one_also_with_a_lora(pack, make, load_wan, lora):
    """Seen to fail when the other rank has the weights without the LoRA."""
    assert make("one", 1) == make("two", 2)
    assert len(workers(pack).kept_gang().pids) == 1
    assert make("one", 1, model=lora(load_wan())) == make("two", 2, model=lora(load_wan()))


def test_cancel_stops_within_a_step_and_the_next_prompt_works(pack, make, monkeypatch):
    import comfy.model_management as mm

    run, calls = pack.part("nodes.host.run").HostRun, []
    denoise = run.denoise

    def count(self, *args):
        calls.append(1)
        if len(calls) == 5:
            mm.interrupt_current_processing()
        return denoise(self, *args)

    monkeypatch.setattr(run, "denoise", count)
    with pytest.raises(mm.InterruptProcessingException):
        make("stopped", 2)
    assert len(calls) == 5
    monkeypatch.setattr(run, "denoise", denoise)
    assert make("stopped", 2) == make("whole", 1)


def test_a_rank_is_killed_and_the_run_ends_as_if_nothing_had_been(pack, make, monkeypatch):
    """Seen to fail when the loss of a rank is told as another node's fault."""
    journal, killed = pack.part("histream_core.runs.store.journal").Journal, []
    write = journal.write

    def written(self, chunk, *rest):
        write(self, chunk, *rest)
        if not killed and workers(pack).kept_gang():
            killed.extend(workers(pack).kept_gang().pids)
            os.kill(killed[0], signal.SIGKILL)

    monkeypatch.setattr(journal, "write", written)
    assert make("killed", 2) == make("alone", 1)
    assert killed and workers(pack).kept_gang().pids != killed


def test_workers_are_released_and_a_decode_apart_needs_none(pack, make, release):
    make("again", 2)
    assert release().result[0] == "1 process ended"
    assert release().result[0] == "there was no process to end"
    assert make("apart", 2, split="decode") == make("one", 1)
    assert workers(pack).kept_gang() is None


def test_what_cannot_be_shared_is_refused_before_the_first_step(make, load_wan):
    with pytest.raises(ValueError, match="the model has 2: use 2 GPUs or fewer"):
        make("many", 3)
    odd = load_wan()
    odd.add_object_patch("diffusion_model.blocks.0.ffn", odd.model.diffusion_model.blocks[0].ffn)
    with pytest.raises(ValueError, match="leave out HiStream Engine"):
        make("odd", 2, model=odd)


def test_without_a_number_the_gpus_of_this_computer_are_counted(pack, load_wan):
    """The CPU is one. Seen to fail when 0 is taken for a number."""
    [shared] = pack.part("nodes.model.engine").EngineNode.execute(load_wan(), 0).result
    assert pack.part("nodes.host.ranks").model_settings(shared).engine.gpus == 1
