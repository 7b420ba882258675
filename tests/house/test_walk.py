"""The way of a prompt through the engine does not grow; `python tests/house/walk.py` prints it."""

from house.walk import FRAMES, NETWORK, walk

from histream_core.cli import main

FILES, MOVES = 63, 381
"""Up to the first network call, at most. Guidance by a negative prompt brought two files: its values, its options. The
options of the verbs are three more, apart from what runs them, so that --help loads no torch. The demo's sentences
are one, its scenes and their stagings two more: the seed draws what a prompt leaves open. What the anchor holds is one
more, and the bytes of its keys are asked for apart from those of the window."""


def test_a_prompt_passes_through_few_files(here, capsys):
    """Seen to fail with both bars lowered by a quarter."""
    counted = walk(lambda: main(["demo", "--seconds", "1"]))
    files, moves, calls = counted.counts[NETWORK]
    assert 10 < files <= FILES and files < moves <= MOVES and moves < calls
    assert counted.counts[FRAMES] >= counted.counts[NETWORK]
    assert counted.functions["network/forward.py"]
    assert (here / "histream-demo.mp4").exists()
