"""Seams of ComfyUI 0.38 to 0.46, which the source tree of these tests may not have, by stand-ins of its public code.

Assumed of loops (Start Loop, End Loop): each turn runs copies of the nodes between them under ids of their own, whose
`display id` is that of the node in the artist's graph; the hidden input `prompt` is that graph, without the copies.
"""

from types import SimpleNamespace

import pytest
import torch

COPY = "9.0.1_6"


class Container:
    """A stand-in for AttentionTensorContainer: hands its tensor to one taker, and is empty then."""

    def __init__(self, tensor):
        self.tensor = tensor

    def take(self):
        tensor, self.tensor = self.tensor, None
        return tensor


def attention_of_today(usual, seen):
    """A stand-in for attention from 0.40 on: it takes tensors or containers, and gives an override tensors."""

    def attend(q, k, v, heads, *args, transformer_options=None, preferred_attention=None, **kwargs):
        seen.append({type(x) for x in (q, k, v)})
        q, k, v = (x.take() if isinstance(x, Container) else x for x in (q, k, v))
        override = (transformer_options or {}).get("optimized_attention_override")
        if override:
            return override(usual, q, k, v, heads, *args, **kwargs)
        return usual(q, k, v, heads, *args, **kwargs)

    return attend


def test_attention_that_takes_containers_is_given_tensors_as_the_caches_keep_theirs(
    sample, load_wan, positive, latent, monkeypatch
):
    """A container would hand over keys that lie in the caches. With an override as without one."""
    import comfy.ldm.modules.attention as host_attention
    import other_nodes

    wanted, seen = sample(load_wan(), positive, latent(9)), []
    monkeypatch.setattr(host_attention, "AttentionTensorContainer", Container, raising=False)
    today = attention_of_today(host_attention.attention_pytorch, seen)
    monkeypatch.setattr(host_attention, "optimized_attention", today)
    for model in (load_wan(), other_nodes.AttentionChosen().apply(load_wan())):
        got = sample(model, positive, latent(9))
        torch.testing.assert_close(got, wanted, atol=1e-4, rtol=1e-4)
    assert seen and all(kinds == {torch.Tensor} for kinds in seen)


@pytest.fixture
def looped(pack, monkeypatch):
    """A graph whose sampler runs as a copy in a loop; the hidden inputs of that copy."""
    import comfy_execution.progress as progress
    from comfy_execution.graph import DynamicPrompt

    graph = {
        "5": {"class_type": "CLIPTextEncode", "inputs": {"text": "a red kite", "clip": ["1", 1]}},
        "6": {"class_type": "HiStreamAnchorWindowSampler", "inputs": {"positive": ["5", 0], "seed": ["9", 0]}},
        "7": {"class_type": "SaveVideo", "inputs": {"video": ["6", 1], "filename_prefix": "../out"}},
    }
    prompt = DynamicPrompt(graph)
    prompt.add_ephemeral_node(COPY, graph["6"], "9", "6")
    monkeypatch.setattr(progress, "global_progress_registry", progress.ProgressRegistry("1", prompt))
    return SimpleNamespace(prompt=graph, unique_id=COPY)


def test_a_copy_in_a_loop_has_the_words_of_its_node(pack, looped):
    """Seen to fail without the display id: the run had no words."""
    assert pack.part("nodes.host.graph").words_of(looped, "positive") == "a red kite"


def test_what_a_node_behind_a_loop_would_refuse_is_told_before_the_first_step(pack, looped):
    """Seen to fail without the display id: nothing stood behind the copy."""
    ahead = pack.part("nodes.host.ahead")
    with pytest.raises(ValueError, match=r"SaveVideo|Save Video"):
        ahead.check_ahead(looped, {1: ahead.ComingVideo(9, 16.0)})


def test_the_line_of_a_copy_is_shown_under_its_node(pack, looped, monkeypatch):
    log, sent = pack.part("nodes.host.log"), []
    page = SimpleNamespace(client_id="mine", send_progress_text=lambda *args: sent.append(args))
    monkeypatch.setattr(log.server.PromptServer, "instance", page, raising=False)
    monkeypatch.setattr(log, "get_executing_context", lambda: SimpleNamespace(node_id=COPY))
    log.tell("chunk 1 of 3")
    assert sent == [("chunk 1 of 3", "6", "mine")]


def test_a_run_is_not_removed_in_a_loop(pack, looped):
    """Its code is written by hand, for one run."""
    with pytest.raises(ValueError, match="put the node outside"):
        pack.part("nodes.host.cleaning").check_written(looped, "confirm")
