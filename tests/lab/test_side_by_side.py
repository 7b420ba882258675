"""The table of benchmarks/side_by_side.py; nothing that it times is compared here."""

import runpy
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "side_by_side.py"


def test_the_whole_past_of_ours_is_that_of_the_others_loop():
    """It sees everything, at one resolution. Seen to fail with a plan of the window."""
    script = runpy.run_path(str(SCRIPT))
    with torch.no_grad():
        whole, window = (torch.cat(list(script["ours"](mode, 4)), dim=2) for mode in ("whole", "full"))
    assert script["plan"]("whole", 200).chunks[199].visible_frames == 600
    assert [len(step) for step in script["plan"]("whole", 2).schedule] == [4]
    assert whole.shape == window.shape == (1, 16, 12, 8, 8) and not torch.equal(whole, window)
    assert {step.scale.value for step in script["plan"]("whole", 2).schedule[0]} == {"high"}


@pytest.mark.slow
def test_without_other_checkouts_the_table_has_our_rows():
    """Seen to fail where a row of others is expected."""
    script = runpy.run_path(str(SCRIPT))
    with torch.no_grad():
        found = {"sampling": script["sampling"](None, None, (3,)), "decoding": script["decoding"](None, None)}
    lines = script["table"](found).splitlines()
    assert lines[0] == "| ms of chunk | 3 | greatest difference |"
    assert [line.split(" | ")[0] for line in lines[2:5]] == [
        f"| HiStream, {name}" for name in ("full history", "histream", "histream-plus")
    ]
    assert lines[-1].startswith("| HiStream, chunk by chunk | ")
