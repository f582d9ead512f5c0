from __future__ import annotations

import io
import random
import struct
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from images.image_formats import ImageInfo, NotAnImage, inspect_image

WIDTH, HEIGHT = 37, 23


def picture(kind: str, *, mode: str = "RGB", size: tuple[int, int] = (WIDTH, HEIGHT), **options: object) -> bytes:
    """A picture as Pillow writes it."""
    image = Image.effect_noise(size, 80).convert(mode)
    target = io.BytesIO()
    image.save(target, kind, **options)
    return target.getvalue()


def inspect(data: bytes, *, max_bytes: int = 1_000_000, max_pixels: int = 1_000_000) -> ImageInfo:
    return inspect_image(data, max_bytes=max_bytes, max_pixels=max_pixels)


EXIF = b"Exif\0\0a thumbnail with an end of its own \xff\xd8\xff\xd9"
WHOLE = {
    "png": picture("PNG"),
    "png-palette": picture("PNG", mode="P"),
    "png-transparent": picture("PNG", mode="RGBA"),
    "png-one-bit": picture("PNG", mode="1"),
    "jpeg": picture("JPEG"),
    "jpeg-progressive": picture("JPEG", progressive=True),
    "jpeg-grey": picture("JPEG", mode="L"),
    "jpeg-cmyk": picture("JPEG", mode="CMYK"),
    "jpeg-restarts": picture("JPEG", restart_marker_blocks=1),
    "jpeg-exif": picture("JPEG", exif=EXIF),
    "webp": picture("WEBP"),
    "webp-lossless": picture("WEBP", lossless=True),
    "webp-transparent": picture("WEBP", mode="RGBA"),
    "webp-exif": picture("WEBP", exif=EXIF),
}
TYPES = {"png": ("image/png", "png"), "jpeg": ("image/jpeg", "jpg"), "webp": ("image/webp", "webp")}


@pytest.mark.parametrize("name", WHOLE)
def test_a_whole_picture_is_recognised_with_its_size(name: str) -> None:
    mime_type, extension = TYPES[name.partition("-")[0]]
    expected = ImageInfo(mime_type=mime_type, extension=extension, width=WIDTH, height=HEIGHT)

    assert inspect(WHOLE[name]) == expected


@pytest.mark.parametrize("name", WHOLE)
def test_bytes_after_the_end_are_tolerated(name: str) -> None:
    assert inspect(WHOLE[name] + b"a gain map, for example").width == WIDTH


@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_any_truncation_is_refused(name: str, data: st.DataObject) -> None:
    whole = WHOLE[name]
    length = data.draw(st.integers(0, len(whole) - 1))

    with pytest.raises(NotAnImage):
        inspect(whole[:length])


@pytest.mark.parametrize("name", WHOLE)
def test_the_last_bytes_count(name: str) -> None:
    for missing in range(1, 20):
        with pytest.raises(NotAnImage):
            inspect(WHOLE[name][:-missing])


@given(st.sampled_from([name for name in WHOLE if name.startswith("png")]), st.data())
def test_a_flipped_byte_in_a_png_is_refused(name: str, data: st.DataObject) -> None:
    broken = bytearray(WHOLE[name])
    position = data.draw(st.integers(0, len(broken) - 1))
    broken[position] ^= data.draw(st.integers(1, 255))

    with pytest.raises(NotAnImage):
        inspect(bytes(broken))


@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"RIFF\x20\0\0\0WEBP"]), st.binary(max_size=400))
def test_random_bytes_raise_nothing_but_not_an_image(start: bytes, rest: bytes) -> None:
    with pytest.raises(NotAnImage):
        inspect(start + rest)


@given(st.sampled_from(sorted(WHOLE)), st.data())
def test_damage_anywhere_raises_nothing_but_not_an_image(name: str, data: st.DataObject) -> None:
    broken = bytearray(WHOLE[name])
    for position in data.draw(st.lists(st.integers(0, len(broken) - 1), min_size=1, max_size=5)):
        broken[position] = data.draw(st.integers(0, 255))
    try:
        info = inspect(bytes(broken))
    except NotAnImage:
        return
    assert info.width > 0
    assert info.height > 0


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"", "empty"),
        (b" \n", "empty"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG"),
        (b'<?xml version="1.0"?>\n<!-- by hand -->\n<svg width="1">', "an SVG"),
        (b"<!DOCTYPE html><p>error</p><svg>", "an HTML page"),
        (b"\xef\xbb\xbf\n<html><head>", "an HTML page"),
        (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>", "HTML or XML"),
        (b'{"error": "no"}', "JSON"),
        (b"[1]", "JSON"),
        (b"just text", "plain text"),
        (b"just text " * 1000, "plain text"),
        (b"just text " * 10 + b"\0", "neither PNG, JPEG nor WebP"),
        (b"iVBORw0KGgoAAAANSUhEUg", "text in base64"),
        (b"\x1f\x8b\x08\0", "compressed with gzip"),
        (b"\0\0\0\x20ftypavif\0\0\0\0", "an AVIF"),
        (b"%PDF-1.7", "a PDF"),
        (picture("GIF"), "a GIF"),
        (picture("BMP"), "a BMP"),
        (picture("TIFF"), "a TIFF"),
        (b"RIFF\x04\0\0\0WAVE", "neither PNG, JPEG nor WebP"),
    ],
)
def test_other_formats_are_not_images_and_are_called_by_name(data: bytes, kind: str) -> None:
    with pytest.raises(NotAnImage, match=f"^it is {kind}$"):
        inspect(data)


def test_limits_are_inclusive() -> None:
    data = WHOLE["png"]

    assert inspect(data, max_bytes=len(data), max_pixels=WIDTH * HEIGHT)
    with pytest.raises(NotAnImage, match="bytes"):
        inspect(data, max_bytes=len(data) - 1)
    with pytest.raises(NotAnImage, match="pixels"):
        inspect(data, max_pixels=WIDTH * HEIGHT - 1)


# --- PNG ------------------------------------------------------------------------------------------------------


def chunk(kind: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def header(width: int = 5, height: int = 5, depth: int = 8, colour: int = 2, rest: bytes = b"\0\0\0") -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBB", width, height, depth, colour) + rest)


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


RAW = bytes(5 * (1 + 3 * 5))
PIXELS, END = chunk(b"IDAT", zlib.compress(RAW)), chunk(b"IEND")


@pytest.mark.parametrize(
    "data",
    [
        png(header(width=0), PIXELS, END),
        png(header(height=0), PIXELS, END),
        png(header(width=2**31), PIXELS, END),
        png(header(depth=3), PIXELS, END),
        png(header(colour=5), PIXELS, END),
        png(header(rest=b"\0\0\2"), PIXELS, END),
        png(header(rest=b"\0\0"), PIXELS, END),
        png(PIXELS, END),
        png(header(), header(), PIXELS, END),
        png(header(), END),
        png(header(), chunk(b"IDAT"), END),
        png(header(), chunk(b"IDAT", b"no zlib stream"), END),
        png(header(), chunk(b"IDAT", zlib.compress(b"")), END),
        png(header(), chunk(b"IDAT", zlib.compress(b"\5" + RAW)), END),
        png(header(), chunk(b"IDAT", b"\x78\x9c\x07\0\0\0"), END),
        png(header(), PIXELS, chunk(b"tEXt", b"a"), PIXELS, END),
        png(header(), PIXELS, chunk(b"PLTE", b"rgb"), END),
        png(header(colour=3), PIXELS, END),
        png(header(), chunk(b"PLTE", b"rg"), PIXELS, END),
        png(header(), chunk(b"XXXX", b"critical"), PIXELS, END),
        png(header(), chunk(b"1234"), PIXELS, END),
        png(header(), PIXELS),
        png(header(), *[chunk(b"tEXt")] * 50_000, PIXELS, END),
    ],
)
def test_png_that_no_decoder_accepts_is_refused(data: bytes) -> None:
    with pytest.raises(NotAnImage):
        inspect(data)


def test_png_with_metadata_and_several_data_chunks_is_accepted() -> None:
    packed = zlib.compress(RAW)
    parts = [chunk(b"IDAT", packed[index : index + 3]) for index in range(0, len(packed), 3)]
    data = png(header(), chunk(b"caBX", b"provenance"), *parts, chunk(b"tEXt", b"after"), END)

    assert inspect(data).extension == "png"


@pytest.mark.parametrize("level", [0, 9])
@pytest.mark.parametrize("size", [7000, 16_384, 100_000, 10**6])
def test_png_data_of_any_packing_and_any_chunk_size_is_accepted(level: int, size: int) -> None:
    packed = zlib.compress(b"\1" + random.Random(size).randbytes(300_000), level)
    parts = [chunk(b"IDAT", packed[index : index + size]) for index in range(0, len(packed), size)]

    assert inspect(png(header(), *parts, END)).width == 5


def test_a_png_that_inflates_to_gigabytes_costs_nothing() -> None:
    bomb = zlib.compress(bytes(50_000_000), 9)
    tracemalloc.start()
    inspect(png(header(), chunk(b"IDAT", bomb), END))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()

    assert peak < 1_000_000


# --- JPEG -----------------------------------------------------------------------------------------------------

FRAME = b"\xff\xc0\x00\x0b\x08\x00\x05\x00\x05\x01\x01\x11\x00"
SCAN = b"\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00" + b"some\xff\x00data\xff\xd0more"
SOI, EOI = b"\xff\xd8", b"\xff\xd9"
TABLE = b"\xff\xdb\x00\x43\x00" + bytes(range(1, 65))


def test_jpeg_of_the_least_parts_is_accepted_with_fill_bytes() -> None:
    assert inspect(SOI + TABLE + FRAME + b"\xff\xff\xff" + SCAN + b"\xff\xff" + EOI).width == 5


@pytest.mark.parametrize(
    "data",
    [
        SOI + EOI,
        SOI + TABLE + FRAME + EOI,
        SOI + SCAN + EOI,
        SOI + TABLE + SCAN + FRAME + EOI,
        SOI + FRAME + SCAN + EOI,
        SOI + TABLE + FRAME + SCAN.replace(b"\x00\x08\x01", b"\x00\x08\x02") + EOI,
        SOI + TABLE + FRAME + FRAME + SCAN + EOI,
        SOI + TABLE + FRAME.replace(b"\xff\xc0", b"\xff\xc3") + SCAN + EOI,
        SOI + TABLE + FRAME.replace(b"\x08\x00\x05\x00\x05", b"\x08\x00\x00\x00\x05") + SCAN + EOI,
        SOI + TABLE + FRAME.replace(b"\x08\x00\x05", b"\x0c\x00\x05") + SCAN + EOI,
        SOI + TABLE + FRAME.replace(b"\x00\x0b", b"\x00\x0a") + SCAN + EOI,
        SOI + TABLE + FRAME + SCAN[:10] + EOI,
        SOI + TABLE + FRAME + SOI + SCAN + EOI,
        SOI + b"\xff\xd0" + TABLE + FRAME + SCAN + EOI,
        SOI + b"\xff\xe1\x00\x01" + TABLE + FRAME + SCAN + EOI,
        SOI + b"\xff\xe1\xff\xff" + TABLE + FRAME + SCAN + EOI,
        SOI + b"\xff" * 200_000,
        SOI + b"\xff\xe0\x00\x02" * 60_000 + TABLE + FRAME + SCAN + EOI,
    ],
)
def test_broken_jpeg_is_refused(data: bytes) -> None:
    with pytest.raises(NotAnImage):
        inspect(data)


# --- WebP -----------------------------------------------------------------------------------------------------


def webp(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def riff(kind: bytes, data: bytes) -> bytes:
    return kind + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def lossy(tag: int = 0x50, start: bytes = b"\x9d\x01\x2a", width: int = 5, height: int = 5) -> bytes:
    return riff(b"VP8 ", tag.to_bytes(3, "little") + start + struct.pack("<HH", width, height) + b"data")


LOSSLESS = riff(b"VP8L", b"\x2f" + (4 | 4 << 14).to_bytes(4, "little") + b"data")


@pytest.mark.parametrize("frame", [lossy(), LOSSLESS, lossy(width=5 | 1 << 14)])
def test_webp_frame_is_measured(frame: bytes) -> None:
    info = inspect(webp(frame))

    assert (info.width, info.height) == (5, 5)


@pytest.mark.parametrize(
    "data",
    [
        webp(),
        webp(riff(b"EXIF", b"only")),
        webp(lossy(width=0)),
        webp(lossy(height=0)),
        webp(lossy(tag=0x51)),
        webp(lossy(tag=0x10)),
        webp(lossy(tag=0x90)),
        webp(lossy(tag=0x7FFFF0)),
        webp(lossy(start=b"\0\0\0")),
        webp(riff(b"VP8 ", b"short")),
        webp(riff(b"VP8L", b"\x2f")),
        webp(LOSSLESS.replace(b"\x2f", b"\x2e")),
        webp(riff(b"VP8L", b"\x2f\xff\xff\xff\xff\xff")),
        webp(lossy(), lossy()),
        webp(riff(b"VP8X", bytes(4) + b"\x09\0\0\x09\0\0"), lossy()),
        webp(riff(b"VP8X", b"short"), lossy()),
        webp(lossy()[:-2]),
        webp(lossy(), b"tail"),
        webp(riff(b"EXIF", b"") * 60_000, lossy()),
        picture("WEBP", save_all=True, append_images=[Image.new("RGB", (WIDTH, HEIGHT))]),
    ],
)
def test_broken_or_moving_webp_is_refused(data: bytes) -> None:
    with pytest.raises(NotAnImage):
        inspect(data)


SMALLEST = [png(header(), PIXELS, END), SOI + TABLE + FRAME + SCAN + EOI, webp(lossy()), webp(LOSSLESS)]


@pytest.mark.parametrize("whole", SMALLEST, ids=["png", "jpeg", "webp", "webp-lossless"])
def test_every_truncation_of_the_smallest_files_is_refused(whole: bytes) -> None:
    assert inspect(whole).width == 5
    for length in range(len(whole)):
        with pytest.raises(NotAnImage):
            inspect(whole[:length])
