"""Kept runs whose chunks are looked at before HIGH: a rejected one costs no HIGH call, and its seed is kept."""

import signal

import pytest
from forks import Child
from tiny_runs import SMALL, Backend, Run, complete, files_in, plan, prompts_of, retry
from tiny_runs import manifest as tiny_manifest

from histream_core import runs as session
from histream_core.plan.schedule import Scale
from histream_core.runs.make import Making, make
from histream_core.runs.store.folder import DRAFT, MANIFEST


def manifest(**settings):
    return tiny_manifest(plan(11), **SMALL, **settings)


class Artist:
    """Rejects chunks with the seeds that are listed for them, in turn, and notes what is shown."""

    def __init__(self, **seeds):
        self.seeds, self.shown = {int(chunk[1:]): [*listed] for chunk, listed in seeds.items()}, []

    def __call__(self, chunk, clean, seed):
        self.shown.append((chunk.index, seed))
        left = self.seeds.get(chunk.index)
        return left.pop(0) if left else None


def make_reviewed(journal, look, counted=None, **options):
    """Finish a run under the eyes of `look`; `counted` takes the scale of every call that denoises."""
    run = Run(journal, **options)
    if counted is not None:
        plain = run.call

        def call(latent, step, cache, text):
            counted.extend([step.scale] if step.sigma else [])
            return plain(latent, step, cache, text)

        run.call = call
    with journal:
        make(Backend(run), journal, Making(look=look), prompts=prompts_of(journal.manifest))
    return journal.folder


def whole(folder, seeds):
    """The files of the run that is given these seeds at once, and its manifest."""
    complete(session.create_run(folder, manifest(seeds=seeds)))
    return files_in(folder), (folder / MANIFEST).read_text()


@pytest.mark.parametrize(
    ("artist", "seeds"),
    [
        (Artist(), ((0, 1),)),
        (Artist(c0=[9]), ((0, 9),)),
        (Artist(c1=[5, 6], c3=[7]), ((0, 1), (1, 6), (3, 7))),
    ],
)
def test_a_reviewed_run_is_byte_for_byte_that_of_its_seeds(tmp_path, artist, seeds):
    """Video, cut list and manifest too. Seen to fail with tags from before the review."""
    calls = []
    folder = make_reviewed(session.create_run(tmp_path / "seen", manifest()), artist, calls)
    files, text = whole(tmp_path / "once", seeds)
    assert files_in(folder) == files
    assert (folder / MANIFEST).read_text() == text
    steps = [step.scale for chunk in plan(11).chunks for step in chunk.steps]
    assert calls.count(Scale.HIGH) == steps.count(Scale.HIGH)
    rejected = len(artist.shown) - plan(11).num_chunks
    assert calls.count(Scale.LOW) == steps.count(Scale.LOW) + 2 * rejected


def test_a_retried_run_is_that_of_the_review(tmp_path):
    """A branch from the same chunk with the same seed, which is how a finished chunk is made anew."""
    made = complete(session.create_run(tmp_path / "old", manifest()))
    retried = complete(retry(made, tmp_path / "new", 2, seed=7))
    seen = make_reviewed(session.create_run(tmp_path / "seen", manifest()), Artist(c2=[7]))
    assert {name: data for name, data in files_in(retried).items() if name.startswith("video")} == {
        name: data for name, data in files_in(seen).items() if name.startswith("video")
    }


def test_a_run_that_is_killed_while_somebody_looks_goes_on_with_the_seed_that_was_asked_for(tmp_path):
    """Seen to fail where the manifest is written when a chunk is kept, and where its draft stays."""

    def work(say):
        artist = Artist(c1=[5])

        def look(chunk, clean, seed):
            if (chunk.index, seed) == (1, 5):
                say.write("here\n")
                signal.pause()
            return artist(chunk, clean, seed)

        make_reviewed(session.create_run(tmp_path / "seen", manifest()), look)

    child = Child(work)
    assert child.said.readline() == "here\n"
    child.kill()
    (tmp_path / "seen" / DRAFT).write_bytes(b"of the chunk that was asked about")
    artist = Artist(c2=[8])
    folder = make_reviewed(session.resume(tmp_path / "seen"), artist)
    assert artist.shown == [(1, 5), (2, 5), (2, 8), (3, 8)]
    files, text = whole(tmp_path / "once", ((0, 1), (1, 5), (2, 8)))
    assert files_in(folder) == files
    assert (folder / MANIFEST).read_text() == text


def test_a_review_from_a_snapshot_is_the_same(tmp_path):
    """The caches of a rejected chunk are not those that a snapshot holds."""
    journal = session.create_run(tmp_path / "seen", manifest())
    stopped = Artist(c1=[5])

    def look(chunk, clean, seed):
        if chunk.index == 3:
            raise KeyboardInterrupt
        return stopped(chunk, clean, seed)

    snapshots = session.Snapshots(every=1, on_cancel=True)
    with pytest.raises(KeyboardInterrupt), journal:
        make(Backend(Run(journal)), journal, Making(snapshots, look=look), prompts=prompts_of(journal.manifest))
    folder = make_reviewed(session.resume(tmp_path / "seen"), Artist(c3=[6]))
    wanted, _ = whole(tmp_path / "once", ((0, 1), (1, 5), (3, 6)))
    found = {name: data for name, data in files_in(folder).items() if not name.startswith("snapshots")}
    found.pop("video.unfinished.mp4", None)
    assert found == wanted
