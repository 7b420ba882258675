"""Frames that leave a GPU as the planes of their file: the same bytes, fewer of them, and nobody waits in vain."""

import threading

import numpy as np
import pytest
import torch

from histream_core.video import pixels, writing
from histream_core.video.formats import FORMATS
from histream_core.video.pixels import Form, Leaving, pictures_of, planes_of
from histream_core.video.writers import form_of, open_writer
from histream_core.video.writing import BackgroundWriter

PLANES = [known for known in FORMATS if not known.linear]


def label(known):
    return f"{known.name}-{known.depth}"


def noise(num_frames, height=70, width=98):
    """Frames that reach past [0, 1] and hold values at which rounding decides, also greys halfway between two lumas."""
    frames = torch.rand(num_frames, height, width, 3, generator=torch.Generator().manual_seed(3)) * 1.2 - 0.1
    columns = torch.arange(width).view(1, 1, width, 1)
    frames[:, ::7] = columns / 255
    frames[:, 1::7] = (columns + 0.5) / 1023
    frames[:, 5::7] = (257 * columns + 40000 + 0.5) / 65535
    for row, scale in enumerate((1, 4, 16), start=2):  # lumas of 8, 10 and 12 bits
        frames[:, row::7] = (2 * scale * columns + 0.5) / (219 * scale)
    return frames


@pytest.mark.parametrize("known", PLANES, ids=label)
def test_planes_are_the_same_by_torch_and_by_numpy(known):
    """Operations of a GPU are rounded alone too. Seen to fail with sums and products in another order."""
    frames, size = noise(3), (96, 64)
    plain = [planes_of(picture, known.pixels, known.depth) for picture in pictures_of(frames, size)]
    for one, other in zip(Leaving(frames, Form(size, known.pixels, known.depth)), plain, strict=True):
        for x, y in zip(one, other, strict=True):
            assert x.dtype == y.dtype and np.array_equal(x, y)


@pytest.mark.parametrize("known", FORMATS, ids=label)
def test_a_file_of_frames_from_a_gpu_has_the_same_bytes(tmp_path, monkeypatch, known):
    """And what is copied is what the file stores, but of linear light. Seen to fail with frames copied as they are."""
    copied = []
    download = pixels.download
    monkeypatch.setattr(pixels, "download", lambda x: copied.append(x.nbytes) or download(x))
    made, size = [], tuple(map(max, known.smallest, (96, 64)))
    for leaves in (False, True):
        monkeypatch.setattr(writing, "_leaves", lambda frames, leaves=leaves: leaves)
        path = tmp_path / str(leaves) / f"video{'' if known.is_sequence else known.suffix}"
        path.parent.mkdir()
        with BackgroundWriter(open_writer(path, known, size=size)) as writer:
            for part in noise(5, size[1] + 6, size[0] + 2).split(3):
                writer.write(part)
        assert writer.num_frames == 5
        made.append([file.read_bytes() for file in sorted(path.iterdir())] if known.is_sequence else path.read_bytes())
    assert made[0] == made[1]
    assert bool(form_of(known, size)) == (not known.linear)
    if form_of(known, size):
        values = 4 if known.pixels == "bgr0" else {"420": 1.5, "422": 2}.get(known.pixels[3:6], 3)
        assert sum(copied) == 5 * size[0] * size[1] * values * (1 if known.depth == 8 else 2)


def test_the_writers_thread_waits_for_the_copy_and_not_the_callers(monkeypatch):
    """A stand-in for the event behind the copies. Seen to fail with planes read before it."""
    waited = []

    class Event:
        def synchronize(self):
            waited.append(threading.current_thread())

    leaving = Leaving(noise(2), Form((96, 64), "yuv420p", 8))
    leaving._there = Event()
    monkeypatch.setattr(writing, "_leaves", lambda frames: True)
    monkeypatch.setattr(writing, "Leaving", lambda frames, form: leaving)
    seen = []

    class Frames:
        form, num_frames, finished = leaving.form, 0, ()

        def write(self, frames):
            seen.extend(frames)

        def close(self):
            pass

    with BackgroundWriter(Frames()) as writer:
        writer.write(noise(2))
    assert len(seen) == 2 and len(waited) == 1
    assert waited[0] is not threading.current_thread()


def test_frames_smaller_than_the_picture_are_refused_before_they_are_copied():
    with pytest.raises(ValueError, match="smaller than the video of 200x64"):
        Leaving(noise(1), Form((200, 64), "yuv420p", 8))
