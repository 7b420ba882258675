"""The table of output formats: codec, container, pixel format, size on disk, and a description for each.

A format is found by its name and bit depth; the first depth listed is the default. Sizes on disk were measured at
640x352 and 16 frames per second, in bytes per pixel, on two clips: `usual` on shapes that move over gradients with film
grain (normal, 2 % of full scale), `worst` on uniform noise, which cannot be compressed. Smooth frames need less than
`usual`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

THREADS = 4
"""Threads of an encoder; fixed, because some encoders write other bytes with another number of threads."""

MOST_FPS = 1000

NTSC = Fraction(1000, 1001)
"""Rates of television and film are whole numbers of frames in 1.001 seconds."""


@dataclass(frozen=True)
class Format:
    """One way to store the frames of a video."""

    name: str
    depth: int
    """Bits per channel; 16 means half float for EXR."""
    suffix: str
    codec: str
    """FFmpeg's name of the encoder; "png" or "exr" for a folder of pictures."""
    pixels: str
    """Pixel format in the file."""
    intra: bool
    """Every frame is a key frame, so that an editor can cut anywhere."""
    usual: float
    """Bytes per pixel for a grainy clip."""
    worst: float
    """Bytes per pixel for noise."""
    about: str
    """Description for tooltips and `--help`."""
    options: tuple[tuple[str, str], ...] = ()
    muxer: str = ""
    """FFmpeg's name of the container; empty for a folder of pictures."""
    smallest: tuple[int, int] = (16, 16)
    even: tuple[int, int] = (1, 1)
    """Width and height are multiples of these."""
    linear: bool = False
    """Stored as linear light instead of display values (sRGB)."""
    most_fps: int = MOST_FPS
    """The encoder refuses more frames per second."""

    @property
    def is_sequence(self) -> bool:
        """Whether it is a folder of pictures, not one file."""
        return not self.muxer

    @property
    def is_rgb(self) -> bool:
        """Whether pixels are stored as RGB in full range, not as YUV."""
        return self.pixels.startswith(("gbr", "bgr", "rgb"))

    def num_bytes(self, size: tuple[int, int], num_frames: int) -> int:
        """Estimated size on disk of `num_frames` frames of `size` (width, height), for a grainy clip."""
        return round(self.usual * size[0] * size[1] * num_frames)

    def check_size(self, size: tuple[int, int]) -> None:
        """Check that frames of `size` (width, height) can be stored. Raises ValueError with sizes that can."""
        for axis, value, least, step in zip(("width", "height"), size, self.smallest, self.even, strict=True):
            if value < least:
                raise ValueError(f"{axis} {value} is too small for {self.name}: use {least} or more")
            if value % step:
                raise ValueError(
                    f"{axis} {value} is not a multiple of {step}, as {self.name} needs: "
                    f"use {value - value % step} or {value + step - value % step}"
                )


_H264 = {
    "codec": "libx264",
    "suffix": ".mp4",
    "muxer": "mp4",
    "intra": False,
    "even": (2, 2),
    # zerolatency: no look-ahead and no B-frames, so each frame is written at once and frames are stored in order.
    "options": (("crf", "17"), ("preset", "medium"), ("tune", "zerolatency")),
}
_H265 = {
    "codec": "libx265",
    "suffix": ".mkv",
    "muxer": "matroska",
    "intra": False,
    "smallest": (32, 32),
    "even": (2, 2),
    "options": (
        ("crf", "18"),
        ("preset", "fast"),
        ("tune", "zerolatency"),
        ("x265-params", f"open-gop=0:pools={THREADS}:info=0:log-level=none"),
    ),
}
_AV1 = {
    "codec": "libsvtav1",
    "most_fps": 240,
    "suffix": ".mkv",
    "muxer": "matroska",
    "intra": False,
    "smallest": (64, 64),
    "even": (2, 2),
    "options": (("crf", "12"), ("preset", "8"), ("svtav1-params", f"lp={THREADS}")),
}
_PRORES = {"codec": "prores_ks", "suffix": ".mov", "muxer": "mov", "intra": True}
_FFV1 = {
    "codec": "ffv1",
    "suffix": ".mkv",
    "muxer": "matroska",
    "intra": True,
    "options": (("level", "3"), ("slices", "4"), ("slicecrc", "1")),
}
_PNG = {"codec": "png", "suffix": ".png", "intra": True, "smallest": (1, 1)}
_EXR = {"codec": "exr", "suffix": ".exr", "intra": True, "smallest": (1, 1)}

FORMATS: tuple[Format, ...] = (
    Format(
        "h264-mp4",
        8,
        pixels="yuv420p",
        usual=0.3,
        worst=0.62,
        about="H.264 in MP4, 8 bits: plays everywhere; visually lossless, but smooth gradients may show steps.",
        **_H264,
    ),
    Format(
        "h264-mp4",
        10,
        pixels="yuv420p10le",
        usual=0.3,
        worst=0.62,
        about="H.264 in MP4, 10 bits: clean gradients; for editors and desktop players, not for browsers and phones.",
        **_H264,
    ),
    Format(
        "h265-mkv",
        10,
        pixels="yuv420p10le",
        usual=0.13,
        worst=0.74,
        about="H.265 in Matroska, 10 bits: clean gradients in a small file; slower to write than H.264.",
        **_H265,
    ),
    Format(
        "h265-mkv",
        8,
        pixels="yuv420p",
        usual=0.13,
        worst=0.74,
        about="H.265 in Matroska, 8 bits: for players without 10 bits.",
        **_H265,
    ),
    Format(
        "av1-mkv",
        10,
        pixels="yuv420p10le",
        usual=0.16,
        worst=0.88,
        about="AV1 in Matroska, 10 bits: the smallest files for the web; needs a recent player.",
        **_AV1,
    ),
    Format(
        "av1-mkv",
        8,
        pixels="yuv420p",
        usual=0.16,
        worst=0.88,
        about="AV1 in Matroska, 8 bits: for players without 10 bits.",
        **_AV1,
    ),
    Format(
        "prores-422hq",
        10,
        pixels="yuv422p10le",
        usual=0.76,
        worst=0.77,
        about="ProRes 422 HQ in MOV, 10 bits: what editors ask for; every picture stands alone, files are large.",
        options=(("profile", "hq"), ("vendor", "apl0")),
        even=(2, 1),
        **_PRORES,
    ),
    Format(
        "prores-4444",
        10,
        pixels="yuv444p10le",
        usual=1.14,
        worst=1.15,
        about="ProRes 4444 in MOV, 10 bits with full colour resolution: for keying and grading.",
        options=(("profile", "4444"), ("vendor", "apl0")),
        **_PRORES,
    ),
    Format(
        "dnxhr",
        10,
        pixels="yuv422p10le",
        usual=0.44,
        worst=0.44,
        about="DNxHR HQX in MOV, 10 bits: what Avid asks for; a constant size whatever the picture.",
        codec="dnxhd",
        suffix=".mov",
        muxer="mov",
        intra=True,
        options=(("profile", "dnxhr_hqx"),),
        smallest=(256, 120),
        even=(2, 1),
    ),
    Format(
        "ffv1",
        10,
        pixels="gbrp10le",
        usual=2.6,
        worst=4.12,
        about="FFV1 in Matroska, RGB, 10 bits: an archive that loses nothing beyond the rounding, with checksums.",
        **_FFV1,
    ),
    Format(
        "ffv1",
        8,
        pixels="bgr0",
        usual=1.81,
        worst=3.35,
        about="FFV1 in Matroska, RGB, 8 bits: the pictures of png8 in one file.",
        **_FFV1,
    ),
    Format(
        "ffv1",
        16,
        pixels="gbrp16le",
        usual=5.19,
        worst=7.04,
        about="FFV1 in Matroska, RGB, 16 bits: the pictures of png16 in one file.",
        **_FFV1,
    ),
    Format(
        "png8",
        8,
        pixels="rgb24",
        usual=1.99,
        worst=3.0,
        about="A folder of PNG pictures, 8 bits: opens everywhere.",
        **_PNG,
    ),
    Format(
        "png16",
        16,
        pixels="rgb48be",
        usual=5.4,
        worst=6.0,
        about="A folder of PNG pictures, 16 bits: no steps in gradients, large.",
        **_PNG,
    ),
    Format(
        "exr",
        16,
        pixels="gbrpf32le",
        usual=4.04,
        worst=5.3,
        about="A folder of OpenEXR pictures, half float, linear light, ZIP: for compositing.",
        linear=True,
        **_EXR,
    ),
    Format(
        "exr-srgb",
        16,
        pixels="gbrpf32le",
        usual=3.71,
        worst=5.06,
        about="A folder of OpenEXR pictures, half float, ZIP, with the values as generated (sRGB).",
        **_EXR,
    ),
)

NAMES: tuple[str, ...] = tuple(dict.fromkeys(known.name for known in FORMATS))


def find_format(name: str, depth: int | None = None) -> Format:
    """The format called `name`, at bit depth `depth` or its default one. Raises ValueError for an unknown one."""
    depths = {known.depth: known for known in FORMATS if known.name == name}
    if not depths:
        raise ValueError(f'there is no format "{name}": use one of {", ".join(NAMES)}')
    if depth is None:
        return next(iter(depths.values()))
    if depth not in depths:
        choices = " or ".join(str(known) for known in depths)
        raise ValueError(f"{name} cannot be stored with {depth} bits: use {choices} as bit depth")
    return depths[depth]
