"""Single pictures: read upright, fitted to the size of a video, written as PNG."""

import io
import os
import struct
import sys
import zlib

import av
import heic
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from PIL.PngImagePlugin import PngInfo

from histream_core.video.exif import ORIENTATIONS, orientation_in
from histream_core.video.pictures import (
    FITS,
    describe_fit,
    encode_png,
    fit_picture,
    read_cutout,
    read_picture,
    write_png,
)

UPRIGHT = np.random.default_rng(0).integers(0, 256, (6, 4, 3), np.uint8)

FIELDS = np.full((48, 32, 3), (0, 0, 160), np.uint8)
"""An upright picture of four fields, that lossy stills keep."""
FIELDS[:24, :16], FIELDS[:24, 16:], FIELDS[24:, :16] = (200, 40, 40), (40, 180, 40), (240, 240, 240)

TURNED = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
"""How a camera stores a picture, by the number of the orientation in EXIF."""


def other_png(path, values, pixels="rgb24"):
    """Write an array as PNG with FFmpeg's own muxer, and return the path."""
    with av.open(str(path), "w", format="image2") as container:
        stream = container.add_stream("png")
        stream.height, stream.width, stream.pix_fmt = *values.shape[:2], pixels
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(values), format=pixels)))
        container.mux(stream.encode())
    return path


def tag_orientation(path, orientation, order):
    """Put the EXIF of a camera into a PNG; `order` is that of the bytes, < or >."""
    block = exif(orientation, order)
    chunk = b"eXIf" + block
    data, header = path.read_bytes(), 33  # the signature and the first chunk
    framed = struct.pack(">I", len(block)) + chunk + struct.pack(">I", zlib.crc32(chunk))
    path.write_bytes(data[:header] + framed + data[header:])


def ramp(rows, columns):
    """A picture whose red grows from left to right and whose green grows from top to bottom."""
    red = ((torch.arange(columns) + 0.5) / columns).expand(rows, -1)
    green = ((torch.arange(rows) + 0.5) / rows)[:, None].expand(-1, columns)
    return torch.stack([red, green, torch.zeros(rows, columns)], dim=-1)


@pytest.mark.parametrize("order", "<>")
@pytest.mark.parametrize("orientation", TURNED)
def test_a_picture_is_read_upright_however_the_camera_was_held(tmp_path, orientation, order):
    """Seen to fail without the turn, and without the mirror."""
    path = other_png(tmp_path / "a.png", TURNED[orientation](UPRIGHT))
    tag_orientation(path, orientation, order)
    assert np.array_equal((read_picture(path) * 255).numpy(), UPRIGHT)


def test_an_orientation_of_four_bytes_counts_too(tmp_path):
    """Some programs write it so. Seen to fail where the type must be SHORT."""
    block = exif(6).replace(struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0), struct.pack(">HHII", 0x0112, 4, 1, 6))
    assert orientation_in(block) == ORIENTATIONS[6] == orientation_in(exif(6))


@pytest.mark.parametrize("compression, read", [(None, True), ("tiff_lzw", True), ("jpeg", False)])
def test_a_tiff_whose_strips_are_not_decoded_is_refused(tmp_path, compression, read):
    """Seen to fail as a black picture."""
    Image.new("RGB", (48, 32), (200, 30, 30)).save(tmp_path / "a.tif", compression=compression)
    if read:
        assert read_picture(tmp_path / "a.tif").mean((0, 1)).tolist() == pytest.approx([200 / 255, 30 / 255, 30 / 255])
    else:
        with pytest.raises(ValueError, match=r"a\.tif is a TIFF with JPEG in it"):
            read_picture(tmp_path / "a.tif")


def exif(orientation, order=">", *, more=b""):
    """A block of EXIF, behind whose directory there is `more`."""
    mark = b"II" if order == "<" else b"MM"
    return mark + struct.pack(f"{order}HIHHHIHHI", 42, 8, 1, 0x0112, 3, 1, orientation, 0, 0) + more


def jpeg(values, orientation=None, **options):
    """The bytes of a JPEG, with the EXIF of a camera behind its header."""
    encoder = av.CodecContext.create("mjpeg", "w")
    encoder.height, encoder.width = values.shape[:2]
    encoder.pix_fmt, encoder.time_base, encoder.color_range = "yuvj444p", 1, 2
    encoder.options = {"qmin": "1", "qmax": "1"}
    frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(values), format="rgb24")
    data = b"".join(map(bytes, [*encoder.encode(frame), *encoder.encode(None)]))
    if orientation is None:
        return data
    block = b"Exif\0\0" + exif(orientation, **options)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:]


def mpo(values, orientation):
    """Two pictures in one file, as cameras of stereo pictures and telephones write them; the second lies otherwise."""
    return jpeg(values, orientation) + jpeg(np.zeros_like(values), 2)


def with_thumbnail(values, orientation):
    """The EXIF has a small picture too, of another orientation, and pixels that look like one."""
    return jpeg(values, orientation, more=exif(7)[8:] + exif(5, "<")[8:])


def long_jpeg(values, orientation):
    """Longer than what FFmpeg looks at to know a file. Seen to fail by its ending, for that of numbered pictures."""
    comment = b"\xff\xfe" + struct.pack(">H", 60_002) + bytes(60_000)
    data = jpeg(values, orientation)
    return data[:2] + comment + data[2:]


def webp(values, orientation):
    file = io.BytesIO()
    with av.open(file, "w", format="webp") as container:
        stream = container.add_stream("libwebp", options={"lossless": "1"})
        stream.height, stream.width, stream.pix_fmt = *values.shape[:2], "bgra"
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(values), format="rgb24")))
        container.mux(stream.encode(None))
    height, width = values.shape[:2]
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    block = exif(orientation)
    body = b"WEBPVP8X" + struct.pack("<I", 10) + b"\x08\0\0\0" + sides + file.getvalue()[12:]
    body += b"EXIF" + struct.pack("<I", len(block)) + block
    return b"RIFF" + struct.pack("<I", len(body)) + body


def tiff(values, orientation):
    """Pixels that are not packed, with the tag among those of the picture."""
    rows = np.ascontiguousarray(values).tobytes()
    short = [
        (256, values.shape[1]),
        (257, values.shape[0]),
        (259, 1),
        (262, 2),
        (274, orientation),
        (277, 3),
        (278, values.shape[0]),
    ]
    entries = [struct.pack("<HHIHH", tag, 3, 1, value, 0) for tag, value in short]
    where = 8 + 2 + 12 * 10 + 4
    longs = ((273, 1, where + 6), (279, 1, len(rows)))
    entries += [struct.pack("<HHII", tag, 4, count, value) for tag, count, value in longs]
    entries.append(struct.pack("<HHII", 258, 3, 3, where))
    directory = struct.pack("<H", len(entries)) + b"".join(sorted(entries, key=lambda e: e[1::-1])) + bytes(4)
    return b"II*\0" + struct.pack("<I", 8) + directory + struct.pack("<3H", 8, 8, 8) + rows


STILLS = {
    "a.jpg": jpeg,
    "a.JPEG": long_jpeg,
    "a.mpo": mpo,
    "thumbnail.jpg": with_thumbnail,
    "a.webp": webp,
    "a.tiff": tiff,
    "named otherwise.png": jpeg,
    "no ending": long_jpeg,
}
"""Kinds of stills that say how they are upright; PNG is below."""


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("name", STILLS)
def test_a_still_is_read_upright_whatever_its_kind(tmp_path, name, orientation):
    """Seen to fail with JPEG files, which were no pictures by their ending."""
    (tmp_path / name).write_bytes(STILLS[name](TURNED[orientation](FIELDS), orientation))
    found = read_picture(tmp_path / name).numpy()
    assert found.shape == FIELDS.shape
    assert np.abs(found - FIELDS / 255).max() < 0.03


@pytest.mark.parametrize("block", [b"", b"MM", exif(6)[:12], exif(6)[:4] + b"\xff" * 8, b"MM\0*" + bytes(40)], ids=len)
def test_a_damaged_exif_says_nothing(tmp_path, block):
    data = jpeg(FIELDS)
    block = b"Exif\0\0" + block
    (tmp_path / "a.jpg").write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(block) + 2) + block + data[2:])
    assert np.abs(read_picture(tmp_path / "a.jpg").numpy() - FIELDS / 255).max() < 0.03


TILED = {
    "as it is": ((), lambda stored: stored),
    "turned": ((heic.TURN,), np.rot90),
    "upside down, mirrored": ((heic.MIRROR_ROWS,), np.flipud),
    "mirrored": ((heic.MIRROR_COLUMNS,), np.fliplr),
    "turned, then mirrored": ((heic.TURN, heic.MIRROR_ROWS), lambda stored: np.flipud(np.rot90(stored))),
}


@pytest.mark.parametrize("name", TILED)
def test_a_picture_of_tiles_is_put_together_and_upright(tmp_path, name):
    """Telephones write such files. Seen to fail with the first tile for the picture."""
    y, x = np.mgrid[0:100, 0:150]
    picture = np.stack([x * 255 // 150, y * 255 // 100, np.full_like(x, 60)], axis=-1).astype(np.uint8)
    properties, seen = TILED[name]
    (tmp_path / "a.heic").write_bytes(heic.heic(picture, 64, properties))
    found = read_picture(tmp_path / "a.heic").numpy()
    wanted = seen(picture) / 255
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).mean() < 0.01


@pytest.mark.parametrize("turned", [False, True])
def test_the_part_that_is_shown_is_cut_out_before_it_is_turned(tmp_path, turned):
    """The property `clap`. Seen to fail with all that is stored."""
    y, x = np.mgrid[0:96, 0:128]
    picture = np.stack([x * 2, y * 2, np.full_like(x, 60)], axis=-1).astype(np.uint8)
    part = (b"clap", struct.pack(">4IiIiI", 81, 1, 40, 1, -3, 2, 5, 1))
    (tmp_path / "a.heic").write_bytes(heic.heic(picture, 64, (part, heic.TURN) if turned else (part,)))
    found = read_picture(tmp_path / "a.heic").numpy()
    wanted = picture[33:73, 22:103] / 255
    wanted = np.rot90(wanted) if turned else wanted
    assert found.shape == wanted.shape
    assert np.abs(found - wanted).mean() < 0.01


SAID = {"as an attribute": b'tiff:Orientation="%d"', "as an element": b"<tiff:Orientation>%d</tiff:Orientation>"}


@pytest.mark.parametrize("said", SAID)
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp"])
def test_where_exif_says_nothing_xmp_says_how_a_still_lies(tmp_path, name, said):
    """Pillow reads it so, and with it Load Image. Seen to fail without the turn."""
    text = b"<x:xmpmeta>" + SAID[said] % 6 + b"</x:xmpmeta>"
    stored, more = Image.fromarray(np.ascontiguousarray(np.rot90(FIELDS, 1))), {"xmp": text}
    if name == "a.png":
        more = {"pnginfo": PngInfo()}
        more["pnginfo"].add_itxt("XML:com.adobe.xmp", text.decode())
    stored.save(tmp_path / name, quality=95, **more)
    assert np.asarray(ImageOps.exif_transpose(Image.open(tmp_path / name))).shape == FIELDS.shape
    assert np.abs(read_picture(tmp_path / name).numpy() - FIELDS / 255).mean() < 0.02


def test_a_jpeg_2000_of_a_printer_is_refused(tmp_path):
    """Seen to fail as its negative."""
    Image.fromarray(FIELDS).save(tmp_path / "a.jp2")
    assert np.abs(read_picture(tmp_path / "a.jp2").numpy() - FIELDS / 255).mean() < 0.02
    Image.fromarray(FIELDS).convert("CMYK").save(tmp_path / "a.jp2")
    with pytest.raises(ValueError, match=r"a\.jp2 is a JPEG 2000 in CMYK, which is not read: convert it to RGB"):
        read_picture(tmp_path / "a.jp2")


def test_a_picture_of_tiles_that_is_damaged_is_refused_in_a_sentence(tmp_path):
    data = heic.heic(FIELDS, 32)
    path = tmp_path / "a.heic"
    assert heic.heic(FIELDS, 32, drop=1) != data
    path.write_bytes(heic.heic(FIELDS, 32, drop=1))
    with pytest.raises(ValueError, match=r"a\.heic cannot be read, 1 tiles are listed for 1x2: convert it to PNG"):
        read_picture(path)
    for stop in range(20, len(data), 97):
        path.write_bytes(data[:stop])
        with pytest.raises(ValueError, match=r"a\.heic (cannot be read|is no picture|is damaged)"):
            read_picture(path)


def test_sixteen_bits_of_a_png_are_read(tmp_path):
    values = np.random.default_rng(0).integers(0, 65536, (6, 4, 3), np.uint16)
    (tmp_path / "a.png").write_bytes(encode_png(values))
    assert np.abs(read_picture(tmp_path / "a.png").numpy() * 65535 - values).max() < 0.01


def test_grey_pictures_are_read_and_alpha_is_left_out(tmp_path):
    grey = read_picture(other_png(tmp_path / "grey.png", UPRIGHT[..., 0], "gray"))
    assert np.array_equal((grey * 255).numpy(), np.repeat(UPRIGHT[..., :1], 3, axis=-1))
    alpha = np.concatenate([UPRIGHT, UPRIGHT[..., :1]], axis=-1)
    clear = read_picture(other_png(tmp_path / "alpha.png", alpha, "rgba"))
    assert np.array_equal((clear * 255).numpy(), UPRIGHT)


def test_a_cutout_has_the_opacity_of_its_file(tmp_path):
    """Seen to fail when a file is read as a picture is, without its opacity."""
    values = np.concatenate([UPRIGHT, np.arange(24, dtype=np.uint8).reshape(6, 4, 1) * 10], axis=-1)
    other_png(tmp_path / "clear.png", values, "rgba")
    assert np.array_equal((read_cutout(tmp_path / "clear.png") * 255).round(), values)
    other_png(tmp_path / "solid.png", UPRIGHT)
    assert (read_cutout(tmp_path / "solid.png")[..., 3] == 1).all()


@pytest.mark.parametrize("fit", FITS)
def test_a_picture_of_the_right_size_keeps_its_bits_and_needs_no_package(monkeypatch, fit):
    monkeypatch.setitem(sys.modules, "kornia.geometry.transform", None)
    picture = torch.rand(1080, 64, 3)
    assert torch.equal(fit_picture(picture, (64, 1080), fit), picture)
    fitted = fit_picture(picture, (64, 1088), fit)
    assert torch.equal(fitted[4:-4], picture)
    assert torch.equal(fitted[:4], picture[:1].expand(4, -1, -1))
    assert torch.equal(fitted[-4:], picture[-1:].expand(4, -1, -1))
    assert describe_fit(picture, (64, 1088), fit) == []


def test_where_nothing_is_scaled_the_middle_is_cut_out_and_edges_are_repeated(monkeypatch):
    """Seen to fail with a crop from the left."""
    monkeypatch.setitem(sys.modules, "kornia.geometry.transform", None)
    picture = torch.rand(32, 48, 3)
    assert torch.equal(fit_picture(picture, (32, 32), "crop"), picture[:, 8:-8])
    padded = fit_picture(picture, (48, 64), "pad")
    assert torch.equal(padded[16:-16], picture)
    assert torch.equal(padded[:16], picture[:1].expand(16, -1, -1))


def test_each_way_to_fit_shows_what_it_says():
    """A picture of 200x100 is fitted to 64x64. Seen to fail with rows and columns exchanged."""
    picture, side = ramp(100, 200), (torch.arange(64) + 0.5) / 64
    crop, pad, stretch = (fit_picture(picture, (64, 64), fit) for fit in ("crop", "pad", "stretch"))
    for fitted, red in ((crop, 0.25 + side / 2), (pad, side), (stretch, side)):
        torch.testing.assert_close(fitted[32, :, 0], red, atol=0.01, rtol=0)
    for fitted, green in ((crop, side), (pad, (side * 2 - 0.5).clamp(0.01, 0.99)), (stretch, side)):
        torch.testing.assert_close(fitted[:, 32, 1], green, atol=0.01, rtol=0)
    assert describe_fit(picture, (64, 64), "pad") == [
        "the first frame of 200x100 is fitted to 64x64 (pad): scaled to fit inside, and its edges drawn out"
    ]


def test_a_picture_of_the_size_that_is_shown_is_not_scaled():
    """Its edges are drawn out to the size that is generated, and cropped again."""
    picture = torch.rand(72, 128, 3)
    fitted = fit_picture(picture, (128, 96), "crop", (128, 72))
    assert torch.equal(fitted[12:-12], picture) and torch.equal(fitted[0], picture[0])
    assert describe_fit(picture, (128, 96), "crop", (128, 72)) == []


@pytest.mark.parametrize("shape", [(1, 1), (2, 3000), (3000, 5), (48, 64), (720, 1280), (33, 17)], ids=str)
@pytest.mark.parametrize("fit", FITS)
def test_any_picture_comes_out_at_the_size_of_the_video(shape, fit):
    """In [0, 1], which cubic interpolation alone would leave. Seen to fail without the clamp."""
    picture = (torch.rand(*shape, 3, generator=torch.Generator().manual_seed(0)) > 0.5).float()
    fitted = fit_picture(picture, (96, 64), fit)
    assert fitted.shape == (64, 96, 3)
    assert fitted.min() >= 0 and fitted.max() <= 1


def test_a_fine_pattern_becomes_grey_and_no_coarse_pattern():
    """Seen to fail without antialiasing."""
    stripes = (torch.arange(256) // 2 % 2).float()[:, None].expand(256, -1, 3)
    inner = fit_picture(stripes, (80, 80), "stretch")[8:-8, 8:-8]
    assert (inner - 0.5).abs().max() < 0.15


def test_what_cannot_be_fitted_is_refused_in_a_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "kornia.geometry.transform", None)
    with pytest.raises(ValueError, match="64x48 is scaled to 32x24 by kornia, which is not installed: run pip install"):
        fit_picture(torch.rand(48, 64, 3), (32, 24))
    with pytest.raises(ValueError, match='fitted by "zoom": use crop, pad, stretch'):
        fit_picture(torch.rand(48, 64, 3), (32, 24), "zoom")


@pytest.mark.parametrize(("kind", "pixels"), [(np.uint8, "rgb24"), (np.uint16, "rgb48be")], ids=["8 bits", "16 bits"])
def test_a_png_holds_the_values_it_was_given_and_the_same_bytes_each_time(tmp_path, kind, pixels):
    values = np.random.default_rng(0).integers(0, np.iinfo(kind).max + 1, (37, 21, 3), kind)
    data = encode_png(values)
    assert encode_png(values) == data
    (tmp_path / "a.png").write_bytes(data)
    with av.open(str(tmp_path / "a.png")) as container:
        frame = next(container.decode(video=0))
    assert frame.format.name == pixels
    assert np.array_equal(frame.to_ndarray(), values)


def test_a_png_says_srgb_once_and_carries_its_workflow():
    """Seen to fail with text behind the pixels, where ComfyUI does not look."""
    data, found = encode_png(np.zeros((2, 2, 3), np.uint8), {"workflow": "{}", "prompt": "雪"})[8:], []
    while data:
        (length,) = struct.unpack(">I", data[:4])
        kind, body, crc = data[4:8], data[8 : 8 + length], data[8 + length : 12 + length]
        assert struct.pack(">I", zlib.crc32(kind + body)) == crc
        found.append((kind, body))
        data = data[12 + length :]
    kinds = [kind for kind, _ in found]
    assert (b"sRGB", b"\0") in found and (b"gAMA", struct.pack(">I", 45455)) in found
    assert (b"tEXt", b"workflow\0{}") in found
    assert (b"iTXt", b"prompt\0\0\0\0\0" + "雪".encode()) in found
    assert len(set(kinds)) == len(kinds) and kinds.index(b"iTXt") < kinds.index(b"IDAT")


def test_a_picture_is_written_whole_or_not_at_all(tmp_path):
    write_png(tmp_path / "a.png", UPRIGHT)
    assert np.array_equal((read_picture(tmp_path / "a.png") * 255).numpy(), UPRIGHT)
    assert os.listdir(tmp_path) == ["a.png"]
    with pytest.raises(OSError, match="does not exist"):
        write_png(tmp_path / "missing" / "a.png", UPRIGHT)
