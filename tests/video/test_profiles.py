"""Colour profiles of stills: the values are those that LittleCMS (in Pillow) gives for the same file.

The next profile or kind of file is a line more in PROFILES or STILLS.
"""

import io
import struct

import heic
import numpy as np
import pytest
from PIL import Image, ImageCms

from histream_core.video.pictures import read_cutout, read_picture
from histream_core.video.profiles import P3_TO_D50, SRGB_TO_D50

ADOBE_TO_D50 = ((0.60974, 0.20528, 0.14919), (0.31111, 0.62567, 0.06322), (0.01947, 0.06087, 0.74457))
COLOURS = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8).repeat(8, axis=0).repeat(8, axis=1)
"""Squares of colours, that lossy stills keep inside."""

INSIDE = np.s_[3::8, 3::8]


def fixed(*numbers):
    return struct.pack(f">{len(numbers)}i", *(round(number * 65536) for number in numbers))


def para(kind, *numbers):
    return b"para" + bytes(4) + struct.pack(">HH", kind, 0) + fixed(*numbers)


def curv(*values):
    return b"curv" + bytes(4) + struct.pack(f">I{len(values)}H", len(values), *values)


def profile(curve, matrix=None, *, space=b"RGB ", tables=False):
    """The bytes of a profile of a display; `matrix`: XYZ (D50) of red, green and blue in columns."""
    tags = {b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1, 0.8249)}
    if space == b"GRAY":
        tags[b"kTRC"] = curve
    elif tables:
        tags[b"A2B0"] = b"mft2" + bytes(44)
    else:
        for at, name in enumerate((b"r", b"g", b"b")):
            tags[name + b"TRC"] = curve
            tags[name + b"XYZ"] = b"XYZ " + bytes(4) + fixed(*(row[at] for row in matrix))
    tags[b"desc"] = b"desc" + bytes(4) + struct.pack(">I", 2) + b"x\0" + bytes(79)
    tags[b"cprt"] = b"text" + bytes(4) + b"none\0"
    place, table, body = 132 + 12 * len(tags), b"", b""
    for name, tag in tags.items():
        tag += bytes(-len(tag) % 4)
        table += struct.pack(">4sII", name, place + len(body), len(tag))
        body += tag
    head = struct.pack(">I4sI4s4s4s", place + len(body), b"none", 0x02400000, b"mntr", space, b"XYZ ")
    head += struct.pack(">6H", 2026, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(0.9642, 1, 0.8249)
    return head.ljust(128, b"\0") + struct.pack(">I", len(tags)) + table + body


SRGB = (2.4, 1 / 1.055, 0.055 / 1.055, 1 / 12.92, 0.04045)
PROFILES = {
    "Display P3": profile(para(3, *SRGB), P3_TO_D50),
    "Adobe RGB": profile(curv(563), ADOBE_TO_D50),
    "a curve of points": profile(curv(*(round(65535 * (at / 255) ** 1.8) for at in range(256))), P3_TO_D50),
    "a gamma": profile(para(0, 1.8), SRGB_TO_D50),
    "a curve with an end": profile(para(1, 2.2, 0.95, 0.05), SRGB_TO_D50),
    "a curve that is raised": profile(para(2, 2.2, 0.95, 0.05, 0.01), SRGB_TO_D50),
    "a curve of seven numbers": profile(para(4, *SRGB, 0, 0), ADOBE_TO_D50),
    "linear light": profile(curv(), SRGB_TO_D50),
}
STILLS = {
    "a.png": {},
    "a.jpg": {"quality": 100, "subsampling": 0},
    "a.webp": {"lossless": True},
    "a.tif": {"compression": "tiff_lzw"},
}
CASES = [("a.png", kind) for kind in PROFILES] + [(name, "Display P3") for name in STILLS if name != "a.png"]


def wanted(data):
    """The picture that LittleCMS makes of a file."""
    picture = Image.open(io.BytesIO(data))
    own = ImageCms.ImageCmsProfile(io.BytesIO(picture.info["icc_profile"]))
    relative = ImageCms.Intent.RELATIVE_COLORIMETRIC
    srgb = ImageCms.createProfile("sRGB")
    made = ImageCms.profileToProfile(picture, own, srgb, relative, outputMode="RGB")
    return np.asarray(made) / 255


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_colours_of_a_profile_are_those_of_another_reader(tmp_path, name, kind):
    """Seen to fail without profiles: reds of Display P3 come out paler."""
    Image.fromarray(COLOURS).save(tmp_path / name, icc_profile=PROFILES[kind], **STILLS[name])
    found = read_picture(tmp_path / name).numpy()
    known = wanted((tmp_path / name).read_bytes())
    assert np.abs(found - known)[INSIDE].max() < 2.5 / 255
    assert np.abs(known - COLOURS / 255)[INSIDE].max() > 7 / 255


def test_a_large_profile_lies_in_more_than_one_part_of_a_jpeg(tmp_path):
    """Seen to fail with the first part alone."""
    long = PROFILES["Display P3"] + bytes(70_000)
    for name, icc in (("a.jpg", PROFILES["Display P3"]), ("b.jpg", struct.pack(">I", len(long)) + long[4:])):
        Image.fromarray(COLOURS).save(tmp_path / name, icc_profile=icc, **STILLS["a.jpg"])
    assert (read_picture(tmp_path / "a.jpg") == read_picture(tmp_path / "b.jpg")).all()


def test_grey_has_a_curve(tmp_path):
    Image.fromarray(COLOURS[..., 0]).save(tmp_path / "a.png", icc_profile=profile(curv(256), space=b"GRAY"))
    light = COLOURS[..., :1] / 255
    display = np.where(light <= 0.0031308, light * 12.92, 1.055 * light ** (1 / 2.4) - 0.055)
    assert np.abs(read_picture(tmp_path / "a.png").numpy() - display).max() < 1e-3


UNCHANGED = {
    "of Pillow": ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(),
    "of ours": profile(para(3, *SRGB), SRGB_TO_D50),
    "of a printer": profile(b"", space=b"CMYK", tables=True),
    "cut off": PROFILES["Display P3"][:200],
    "words": b"no profile",
    "a power beyond numbers": profile(para(0, -9), SRGB_TO_D50),
    "a slope beyond numbers": profile(para(1, 30000, 30000, 0), SRGB_TO_D50),
}


@pytest.mark.parametrize("name", UNCHANGED)
def test_a_picture_of_srgb_or_with_what_is_no_profile_keeps_its_bits(tmp_path, name):
    Image.fromarray(COLOURS).save(tmp_path / "a.png", icc_profile=UNCHANGED[name])
    assert np.array_equal((read_picture(tmp_path / "a.png") * 255).round().numpy(), COLOURS)


def test_a_profile_of_tables_is_refused(tmp_path):
    Image.fromarray(COLOURS).save(tmp_path / "a.png", icc_profile=profile(b"", tables=True))
    with pytest.raises(ValueError, match=r"a\.png cannot be read, its colour profile is made of tables.*: convert it"):
        read_picture(tmp_path / "a.png")


def test_opacity_has_no_profile(tmp_path):
    values = np.concatenate([COLOURS, COLOURS[..., :1]], axis=-1)
    Image.fromarray(values).save(tmp_path / "a.png", icc_profile=PROFILES["Display P3"])
    assert np.array_equal((read_cutout(tmp_path / "a.png")[..., 3] * 255).round(), COLOURS[..., 0])


HEIF = {
    "a profile": (b"colr", b"prof" + PROFILES["Display P3"]),
    "a number": (b"colr", b"nclx" + struct.pack(">HHHB", 12, 13, 6, 0x80)),
}


@pytest.mark.parametrize("told", HEIF)
def test_a_picture_of_a_telephone_is_of_display_p3(tmp_path, told):
    """Seen to fail without the profile, and without the number."""
    smooth = np.stack([*np.mgrid[40:232:3, 40:232:3], np.full((64, 64), 60)], axis=-1).astype(np.uint8)
    Image.fromarray(smooth).save(tmp_path / "a.png", icc_profile=PROFILES["Display P3"])
    (tmp_path / "a.heic").write_bytes(heic.heic(smooth, 64, (HEIF[told],)))
    found, known = (read_picture(tmp_path / name).numpy() for name in ("a.heic", "a.png"))
    assert np.abs(known - smooth / 255).mean() > 0.03
    assert np.abs(found - known).mean() < 0.012
