"""Sounds to copy: a sine in whatever codec, and what is in a file."""

from fractions import Fraction

import numpy as np

from histream_core.video.sound import Track

RATE = 48000


def sound_file(path, seconds, codec="aac", *, tone=20, late=0):
    """A file of a sine alone; with `late`, its first packet begins so many seconds after 0."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=RATE, layout="mono")
        container.start_encoding()
        resampler = av.AudioResampler(format=stream.codec_context.format.name, layout="mono", rate=RATE)
        size = stream.codec_context.frame_size or 1024
        samples = np.sin(np.arange(round(RATE * seconds)) / tone).astype(np.float32)
        for start in range(0, len(samples), size):
            frame = av.AudioFrame.from_ndarray(samples[None, start : start + size], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = RATE, start + round(late * RATE), Fraction(1, RATE)
            for resampled in resampler.resample(frame):
                container.mux(stream.encode(resampled))
        container.mux(stream.encode(None))
    return path


def sound_packets(source):
    """For every packet of sound that is heard: its bytes, and when it begins, in seconds from the first picture."""
    track = Track(source)
    try:
        return [(bytes(packet), packet.pts * packet.time_base) for packet in track.packets()]
    finally:
        track.close()
