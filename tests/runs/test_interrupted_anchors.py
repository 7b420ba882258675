"""A run that is interrupted while the anchor or the past is rewritten in the cache goes on as it would have."""

import sys

import pytest
from tiny_runs import Run, begin, finish, manifest, plan, same

from histream_core.network.cache.window import KVCache
from histream_core.plan.anchoring import AnchorSource
from histream_core.plan.chunks import with_anchors
from histream_core.plan.positions import TemporalPolicy
from histream_core.runs import Snapshots, create_run, resume


@pytest.mark.parametrize(
    ("where", "source", "jumps"), [("_mix", AnchorSource(share=0.7), []), ("_rerotate", AnchorSource(), [9])]
)
def test_a_cache_that_is_half_rewritten_is_not_kept(where, source, jumps, tmp_path, monkeypatch):
    """Seen to fail where a frame counts as held while some of its layers are rewritten and others not."""
    run = manifest(with_anchors(plan(18, temporal=TemporalPolicy(span=6), anchor_source=source), (), (), jumps))
    wanted, _ = finish(create_run(tmp_path / "whole", run), decoder=False)
    write = KVCache._write

    def interrupted(self, *args):
        write(self, *args)
        if sys._getframe(1).f_code.co_name == where:
            monkeypatch.undo()
            raise KeyboardInterrupt

    monkeypatch.setattr(KVCache, "_write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        begin(tmp_path / "cut", 9, run, snapshots=Snapshots(on_cancel=True), decoder=False)
    with resume(tmp_path / "cut", run) as journal:
        assert same([chunk.latent for chunk in Run(journal, decoder=False).chunks()], wanted)
