"""The bars of `histream bench --cpu`, with counted operations in the place of seconds."""

import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from histream_core.lab.bench import cpu


class Operations(TorchDispatchMode):
    """Counts multiplications and additions of convolutions, products and attention."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        name = function.name()
        if "convolution" in name:
            self.count += 2 * found.numel() * args[1][0].numel()
        elif "linear" in name:
            self.count += 2 * found.numel() * args[0].shape[-1]
        elif "attention" in name:
            self.count += 4 * args[0].numel() * args[1].shape[-2]
        return found


def operations(work):
    """Operations of `work`, in the place of its seconds."""
    with Operations() as found:
        work()
    return found.count


def calls(work):
    """Python functions that `work` calls, in the place of its seconds: a thousand for a millisecond."""
    count = [0]

    def profile(_frame, event, _result):
        count[0] += event == "call"

    before = sys.getprofile()
    sys.setprofile(profile)
    try:
        work()
    finally:
        sys.setprofile(before)
    return count[0] / 1e6


@pytest.mark.parametrize(("group", "cost"), [
    ("exact_decoding", None), pytest.param("still_decoding", operations, marks=pytest.mark.slow),
    pytest.param("half_resolution", operations, marks=pytest.mark.slow),
    pytest.param("orchestration", calls, marks=pytest.mark.slow),
])  # fmt: skip
def test_a_bar_is_kept_and_its_control_fails(monkeypatch, group, cost):
    """Counted once, not timed again and again. Seen to fail with a decoder that sees no frame before its own."""
    monkeypatch.setattr(cpu, "spent", cost)
    monkeypatch.setattr(cpu, "in_turns", lambda one, other, times: cost(one) / cost(other))
    plan = cpu.small_plan
    monkeypatch.setattr(cpu, "small_plan", lambda mode, chunks, **sizes: plan(mode, min(chunks, 60), **sizes))
    with cpu.one_thread():
        (bar,) = getattr(cpu, group)()
    assert bar.ok, bar
    assert bar.caught, bar


def test_in_turns_compares_medians():
    """A disturbance of one turn changes nothing. Seen to fail with means."""
    ticks = iter([0, 2, 0, 1, 0, 50, 0, 1, 0, 2, 0, 1])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cpu.time, "process_time", lambda: next(ticks))
        assert cpu.in_turns(lambda: None, lambda: None, times=3) == 2


def test_a_ratio_is_tried_again_where_it_misses_and_real_growth_stays():
    noisy, grown = iter([1.3, 0.95]), iter([1.3, 1.4, 1.35])
    assert cpu.flatness(lambda: next(noisy), 1.1) == pytest.approx(1 / 0.95)
    assert cpu.flatness(lambda: next(grown), 1.1) == 1.3


def test_threads_are_as_they_were_afterwards():
    before = torch.get_num_threads()
    with cpu.one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == before


def test_all_groups_are_part_of_the_bench(monkeypatch):
    groups = (
        "memory", "flat_chunks", "half_resolution",
        "exact_decoding", "flat_decoding", "still_decoding", "orchestration",
    )  # fmt: skip
    for group in groups:
        monkeypatch.setattr(cpu, group, lambda group=group: iter([group]))
    assert list(cpu.cpu_bars()) == list(groups)
