"""A run with sound: kept in its folder, copied into its video, the same however the run was cut.

Seen to fail: sound in the unfinished video only, a folder without its check, `clean` and a branch that forget it, an
extension that keeps the old stretch only.
"""

import io
import os
import shutil
from dataclasses import replace
from fractions import Fraction

import pytest
from slow import slow
from sounds import RATE, sound_file, sound_packets
from tiny_runs import SMALL, complete, files_in, manifest, plan

from histream_core import runs as session
from histream_core.runs import clean, create_branch, create_run, hash_bytes, resume
from histream_core.runs.store import video
from histream_core.runs.store.journal import read_manifest
from histream_core.runs.store.video import check_room, unfinished_path
from histream_core.video.reading import index_video
from histream_core.video.sound import pack_sound

SECONDS = Fraction(53, 16)
PACKET = Fraction(1024, RATE)


@pytest.fixture(scope="module")
def sounds(tmp_path_factory):
    """A sound of 6 seconds, packed, and another one."""
    folder = tmp_path_factory.mktemp("sound")
    return tuple(pack_sound(sound_file(folder / f"{tone}.m4a", 6, tone=tone)) for tone in (20, 30))


def described(sound, a_plan=None, **settings):
    return manifest(a_plan, sound=sound and hash_bytes(sound), **SMALL | settings)


@pytest.fixture(scope="module")
def whole(sounds, tmp_path_factory):
    """A finished run with sound."""
    return complete(create_run(tmp_path_factory.mktemp("run") / "whole", described(sounds[0]), sound=sounds[0]))


@pytest.fixture
def run(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "run")


def stopped(folder, sound, call, **settings):
    """A run that the user stopped at that call of the network."""
    calls = iter(range(1000))

    def stop():
        if next(calls) == call:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        complete(create_run(folder, described(sound, **settings), sound=sound), on_call=stop)
    return folder


def check_copied(path, sound, seconds):
    """The packets are those of the source, the last one begins less than a packet before the pictures end."""
    source = sound_packets(io.BytesIO(sound))
    copied = sound_packets(path)
    assert [data for data, _ in copied] == [data for data, _ in source][: len(copied)]
    assert seconds - PACKET <= copied[-1][1] < seconds
    assert all(abs(time - wanted) < Fraction(1, 1000) for (_, time), (_, wanted) in zip(copied, source, strict=False))


@pytest.mark.parametrize(
    ("format", "output"), [("h264-mp4", "video.mp4"), slow("prores-422hq", "video.mov"), slow("ffv1", "video.mkv")]
)
def test_a_run_that_was_stopped_has_the_sound_of_one_that_was_not(sounds, tmp_path, format, output):
    """Byte for byte; and what is shown of the stopped one has the sound of that part."""
    cut = stopped(tmp_path / "cut", sounds[0], 13, format=format, output=output)
    shown = unfinished_path(cut, read_manifest(cut))
    check_copied(shown, sounds[0], Fraction(index_video(shown).num_frames, 16))
    complete(resume(cut))
    check_copied(cut / output, sounds[0], SECONDS)
    run = described(sounds[0], format=format, output=output)
    assert files_in(cut) == files_in(complete(create_run(tmp_path / "whole", run, sound=sounds[0])))
    assert index_video(cut / output).num_frames == 53
    assert not shown.exists()


def test_a_run_reads_no_sound_outside_its_folder(tmp_path):
    """The file that it came from may be gone."""
    source = sound_file(tmp_path / "voice.m4a", 4)
    sound = pack_sound(source)
    wanted = sound_packets(source)
    cut = stopped(tmp_path / "cut", sound, 5)
    source.unlink()
    cut.rename(tmp_path / "moved")
    copied = sound_packets(complete(resume(tmp_path / "moved")) / "video.mp4")
    assert copied == wanted[: len(copied)]
    assert len(copied) == 156


def test_a_sound_that_is_shorter_than_the_pictures_ends_where_it_ends(tmp_path):
    source = sound_file(tmp_path / "voice.m4a", 1)
    sound = pack_sound(source)
    folder = complete(create_run(tmp_path / "run", described(sound), sound=sound))
    assert sound_packets(folder / "video.mp4") == sound_packets(source)
    assert index_video(folder / "video.mp4").num_frames == 53


def test_the_files_of_sections_are_pictures_only(sounds, tmp_path):
    """An editor lays the whole sound below the cut, and hears no seam."""
    run = replace(described(sounds[0], section_files=True), seeds=(session.Seed(0, 1), session.Seed(3, 7)))
    folder = complete(create_run(tmp_path / "run", run, sound=sounds[0]))
    check_copied(folder / "video.mp4", sounds[0], SECONDS)
    for name in ("video.01.mp4", "video.02.mp4"):
        with pytest.raises(ValueError, match="holds no sound"):
            sound_packets(folder / name)


def test_an_extension_has_the_sound_of_the_run_that_was_long_from_the_start(sounds, run, tmp_path):
    with resume(run) as journal:
        session.lengthen_run(journal, plan(21))
    complete(resume(run))
    long = complete(create_run(tmp_path / "long", described(sounds[0], plan(21)), sound=sounds[0]))
    assert files_in(run) == files_in(long)
    check_copied(run / "video.mp4", sounds[0], Fraction(81, 16))


def test_a_branch_shares_the_sound_or_has_another_or_none(sounds, run, tmp_path):
    same = create_branch(run, tmp_path / "same", 5)
    assert (tmp_path / "same" / "sound.mka").samefile(run / "sound.mka")
    assert files_in(complete(same)) == files_in(run)
    other = complete(create_branch(run, tmp_path / "other", 5, described(sounds[1]), sound=sounds[1]))
    check_copied(other / "video.mp4", sounds[1], SECONDS)
    assert (other / "segments" / "seg-00004.mp4").samefile(run / "segments" / "seg-00004.mp4")
    mute = complete(create_branch(run, tmp_path / "mute", 5, described(None)))
    assert not (mute / "sound.mka").exists()
    with pytest.raises(ValueError, match="holds no sound"):
        sound_packets(mute / "video.mp4")
    check_copied(run / "video.mp4", sounds[0], SECONDS)


def test_another_sound_is_named_and_refused(sounds, run):
    for other in (sounds[1], None):
        with pytest.raises(ValueError, match="was made otherwise: the sound changed; put it back, or branch"):
            resume(run, described(other))
    resume(run, described(sounds[0])).close()


SPOILT = {
    "missing": (lambda path: path.unlink(), r"sound\.mka is missing: put back the sound"),
    "cut": (lambda path: path.write_bytes(path.read_bytes()[:-1]), r"sound\.mka was changed after it was written"),
    "another": (lambda path: path.write_bytes(path.read_bytes()[::-1]), r"sound\.mka was changed after it was written"),
    "a link": (
        lambda path: path.rename(path.parent.parent / "x") and path.symlink_to(path.parent.parent / "x"),
        r"sound\.mka is a link to another place",
    ),
    "a folder": (lambda path: path.unlink() or path.mkdir(), r"sound\.mka is no ordinary file"),
}


@pytest.mark.parametrize("case", SPOILT)
def test_a_sound_that_is_not_as_it_was_is_named_and_nothing_is_deleted(run, tmp_path, case):
    spoil, said = SPOILT[case]
    spoil(run / "sound.mka")
    before = sorted(run.rglob("*"))
    for act in (resume, lambda folder: create_branch(folder, tmp_path / "new", 2)):
        with pytest.raises(session.DamagedRunError, match=said) as refusal:
            act(run)
        assert "\n" not in str(refusal.value)
    assert sorted(run.rglob("*")) == before
    assert not (tmp_path / "new").exists()


def test_cleaning_takes_the_sound_and_leaves_the_video(sounds, run):
    (run / "sound.partial.mka").write_bytes(b"a kill left this")
    clean(run)
    assert sorted(os.listdir(run)) == ["cuts.edl", "cuts.json", "video.mp4"]
    check_copied(run / "video.mp4", sounds[0], SECONDS)


def test_a_folder_of_pictures_has_no_sound(sounds):
    with pytest.raises(ValueError, match="png16 is a folder of pictures and holds no sound: leave the sound out"):
        described(sounds[0], format="png16", output="shot")


def test_room_is_asked_for_the_sound_and_its_copy_in_the_video(sounds, tmp_path, monkeypatch):
    asked, run = [], described(sounds[0])
    monkeypatch.setattr(video, "check_space", lambda *_, other_bytes, **__: asked.append(other_bytes))
    for sound in (None, bytes(1000)):
        check_room(tmp_path, run.plan, run.settings, sound=sound, low=False)
    assert asked[1] - asked[0] == 2000
