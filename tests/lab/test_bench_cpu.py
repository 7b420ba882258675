"""The timed bars that take a second or two each; the long runs of `--cpu` are in test_long_runs.py."""

import pytest
import torch

from histream_core.lab.bench import cpu


@pytest.mark.parametrize("group", ["exact_decoding", "still_decoding", "half_resolution", "orchestration"])
def test_a_timed_bar_is_kept_and_its_control_fails(group):
    """Seen to fail with a decoder that sees no frame before its own."""
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
