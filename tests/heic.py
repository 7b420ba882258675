"""HEIC files of tiles, as telephones write them; libheif reads them the same way, turned and mirrored."""

import io
import struct

import av
import numpy as np

TURN, MIRROR_ROWS, MIRROR_COLUMNS = ((b"irot", b"\1"), (b"imir", b"\0"), (b"imir", b"\1"))
"""Properties: a quarter turn counterclockwise, and mirrors."""


IN_ORDER = {"crf": "2", "x265-params": "log-level=none:info=0:bframes=0:frame-threads=1"}


def box(kind, *parts):
    body = b"".join(parts)
    return struct.pack(">I", len(body) + 8) + kind + body


def full(kind, version, flags, *parts):
    return box(kind, struct.pack(">I", version << 24 | flags), *parts)


def encode_tile(tile):
    """The decoder's header and the sample of a tile [H, W, 3], uint8."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"movflags": "frag_keyframe+empty_moov"}) as container:
        stream = container.add_stream("libx265", rate=1, options=IN_ORDER)
        stream.height, stream.width = tile.shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.color_range, stream.codec_context.colorspace = 2, 6
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(tile)).reformat(
            format="yuv420p", src_color_range="JPEG", dst_colorspace="ITU601", dst_color_range="JPEG"
        )
        frame.colorspace, frame.color_range, frame.pts = 6, 2, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    file.seek(0)
    with av.open(file) as container:
        stream = container.streams.video[0]
        return bytes(stream.codec_context.extradata), b"".join(bytes(p) for p in container.demux(stream) if p.size)


def heic(picture, tile, properties=(), *, drop=0):
    """A file of a picture [H, W, 3], uint8, in square tiles of `tile` pixels; the last `drop` tiles are not listed."""
    height, width = picture.shape[:2]
    rows, columns = -(-height // tile), -(-width // tile)
    whole = np.pad(picture, ((0, rows * tile - height), (0, columns * tile - width), (0, 0)), mode="edge")
    places = [
        (slice(y, y + tile), slice(x, x + tile))
        for y in range(0, rows * tile, tile)
        for x in range(0, columns * tile, tile)
    ]
    tiles = [encode_tile(whole[place]) for place in places]
    samples = [sample for _, sample in tiles] + [struct.pack(">BBBBHH", 0, 0, rows - 1, columns - 1, width, height)]
    grid, count = len(samples), len(tiles) - drop
    kinds = [(item, b"grid" if item == grid else b"hvc1") for item in range(1, grid + 1)]
    owned = [(item, [0x81, 2]) for item in range(1, grid)] + [(grid, [3, *range(0x84, 0x84 + len(properties))])]
    known = [
        box(b"hvcC", tiles[0][0]),
        *(full(b"ispe", 0, 0, struct.pack(">II", *size)) for size in ((tile, tile), (width, height))),
        *(box(*one) for one in properties),
    ]
    head = box(b"ftyp", b"heic", struct.pack(">I", 0), b"mif1heic")

    def meta(place):
        where = []
        for item, sample in enumerate(samples, start=1):
            where.append(struct.pack(">HHHII", item, 0, 1, place, len(sample)))
            place += len(sample)
        listed = [full(b"infe", 2, item != grid, struct.pack(">HH", item, 0), kind, b"\0") for item, kind in kinds]
        parts = struct.pack(f">HH{count}H", grid, count, *range(1, count + 1))
        owners = (struct.pack(">HB", item, len(numbers)) + bytes(numbers) for item, numbers in owned)
        return full(
            b"meta",
            0,
            0,
            full(b"hdlr", 0, 0, bytes(4), b"pict", bytes(13)),
            full(b"pitm", 0, 0, struct.pack(">H", grid)),
            full(b"iloc", 0, 0, struct.pack(">BBH", 0x44, 0, len(samples)), *where),
            full(b"iinf", 0, 0, struct.pack(">H", len(kinds)), *listed),
            full(b"iref", 0, 0, box(b"dimg", parts)),
            box(b"iprp", box(b"ipco", *known), full(b"ipma", 0, 0, struct.pack(">I", len(owned)), *owners)),
        )

    return head + meta(len(head) + len(meta(0)) + 8) + box(b"mdat", *samples)
