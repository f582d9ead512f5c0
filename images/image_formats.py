"""Judging bytes: is this a whole PNG, JPEG or WebP, and how large is it?

"Whole" is verified, not decoded pixel by pixel: PNG by its chunks' checksums and order and the beginning of its
compressed pixels, JPEG by its segments, its tables, its scans and the end marker, WebP by its RIFF sizes and its
frame header. The work is done by `zlib` and `re` at C speed on the bytes where they lie, without copies.

Bytes after the picture's own end are tolerated in all three: Google's JPEGs carry a gain map there, browsers ignore
them, and a picture that was paid for is not thrown away because of them. They are harmless where they are served
(`images.media`: fixed type, `nosniff`, a policy that runs nothing) and count towards the limit in bytes.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

#: More chunks or segments than this are an attack on the loop that walks them: 30 MB in 4 KB chunks are 7,500.
MAX_PARTS = 50_000

#: Width and height in pixels.
Size = tuple[int, int]
#: The size, and whether there is a C2PA manifest.
Found = tuple[Size, bool]


class NotAnImage(ValueError):
    """The bytes are not a whole PNG, JPEG or WebP within the limits. The message says why and holds none of them."""


@dataclass(frozen=True, kw_only=True)
class ImageInfo:
    """What bytes turned out to be.

    Attributes:
        mime_type: `image/png`, `image/jpeg` or `image/webp`.
        extension: `png`, `jpg` or `webp`, without a dot.
        width: In pixels.
        height: In pixels.
        content_credentials: Whether the bytes hold a C2PA manifest. Nobody has verified its signature.
    """

    mime_type: str
    extension: str
    width: int
    height: int
    content_credentials: bool = False


def inspect_image(data: bytes, *, max_bytes: int, max_pixels: int) -> ImageInfo:
    """Say what `data` is by looking at nothing but its bytes.

    Args:
        data: The whole file.
        max_bytes: The most bytes the file may have.
        max_pixels: The most pixels (width times height) the picture may have.

    Raises:
        NotAnImage: `data` is something else, is damaged or cut off, or exceeds a limit.
    """
    if len(data) > max_bytes:
        raise NotAnImage(f"it has {len(data)} bytes, more than the {max_bytes} allowed")
    if data.startswith(_PNG_SIGNATURE):
        mime_type, extension, (size, has_manifest) = "image/png", "png", _look_into_png(data)
    elif data.startswith(b"\xff\xd8"):
        mime_type, extension, (size, has_manifest) = "image/jpeg", "jpg", _look_into_jpeg(data)
    elif data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        mime_type, extension, (size, has_manifest) = "image/webp", "webp", _look_into_webp(data)
    else:
        raise NotAnImage(f"it is {other_kind(data)}")
    width, height = size
    if not width or not height:
        raise NotAnImage("it has no width or no height")
    if width * height > max_pixels:
        raise NotAnImage(f"it has {width} x {height} pixels, more than the {max_pixels} allowed")
    return ImageInfo(
        mime_type=mime_type, extension=extension, width=width, height=height, content_credentials=has_manifest
    )


#: How a C2PA manifest store begins, after its length: a JUMBF superbox whose description box has C2PA's UUID (ISO
#: 19566-5; C2PA 2.2, 11.1). Other data in the same places, such as 360° metadata in APP11, begin differently.
_MANIFEST = re.compile(
    rb".{4}jumb.{4}jumd\x63\x32\x70\x61\x00\x11\x00\x10\x80\x00\x00\xaa\x00\x38\x9b\x71", re.DOTALL
)


# --- What providers and gateways send in an image's place ----------------------------------------------------------

#: How it begins, and what it is called. The first that fits counts.
_OTHER_KINDS = [
    (re.compile(beginning, re.IGNORECASE | re.DOTALL), kind)
    for beginning, kind in [
        (rb"\s*\Z", "empty"),
        (rb"\x89PNG\r\n\x1a\n", "a PNG"),
        (rb"\xff\xd8\xff", "a JPEG"),
        (rb"RIFF.{4}WEBP", "a WebP"),
        (rb"GIF8[79]a", "a GIF"),
        (rb"BM.{4}\0\0\0\0", "a BMP"),
        (rb"II\*\0|MM\0\*", "a TIFF"),
        (rb".{4}ftypavi[fs]", "an AVIF"),
        (rb".{4}ftyp(?:hei|hev|mif1)", "a HEIC"),
        (rb".{4}ftyp", "a video"),
        (rb"\xff\x0a|\0\0\0\x0cJXL ", "a JPEG XL"),
        (rb"%PDF-", "a PDF"),
        (rb"PK\x03\x04", "a ZIP archive"),
        (rb"\x1f\x8b", "compressed with gzip"),
        (rb"data:image/|(?:iVBORw0KGgo|/9j/|UklGR)[\w+/]", "text in base64"),
        (rb"\s*<(?:!doctype html|html|head|body)", "an HTML page"),
        (rb"\s*<(?:[?!].{0,1000}?<)?svg[\s>]", "an SVG"),
        (rb"\s*<", "HTML or XML"),
        (rb"\s*[{\[]", "JSON"),
        (rb"[\t\n\r\x20-\x7e]{1,200}(?:\Z|(?<=.{200}))", "plain text"),
    ]
]


def other_kind(data: bytes) -> str:
    """What bytes are, in a few words that continue "it is", if they are not what they should be."""
    start = data[:2000].removeprefix(b"\xef\xbb\xbf")
    return next((kind for beginning, kind in _OTHER_KINDS if beginning.match(start)), "neither PNG, JPEG nor WebP")


# --- PNG (the PNG specification, third edition): chunks, their checksums and their order ----------------------------

_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
#: Colour type -> bit depths allowed with it.
_DEPTHS = {0: {1, 2, 4, 8, 16}, 2: {8, 16}, 3: {1, 2, 4, 8}, 4: {8, 16}, 6: {8, 16}}
#: How many bytes of pixels are inflated, and the last of the five filters that each line names first.
_INFLATED, _LAST_FILTER = 16_384, 4
_CHUNK_TYPE = re.compile(rb"[A-Za-z]{4}")


def _look_into_png(data: bytes) -> Found:
    """The size of a PNG whose chunks are whole and in an order that decoders accept, and whether it has a manifest.

    Args:
        data: The whole file; its signature has been looked at.

    Raises:
        NotAnImage: It is not a whole PNG.
    """
    chunks = _png_chunks(data)
    kind, start, length = next(chunks)
    if kind != b"IHDR":
        raise NotAnImage("the PNG does not begin with its header")
    width, height, colour = _png_header(data, start, length)
    before, has_pixels, has_palette, has_manifest = kind, False, False, False
    pixels = _PngPixels()
    for kind, start, length in chunks:
        if kind == b"IEND":
            break
        if kind == b"IDAT":
            if has_pixels and before != b"IDAT":
                raise NotAnImage("the PNG's picture data is torn apart")
            has_pixels = has_pixels or length > 0
            pixels.feed(data, start, length)
        elif kind == b"PLTE":
            if has_pixels or has_palette or colour in {0, 4} or not length or length % 3 or length > 768:
                raise NotAnImage("the PNG's palette is out of place")
            has_palette = True
        elif kind == b"caBX":
            has_manifest = has_manifest or bool(_MANIFEST.match(data, start, start + length))
        elif kind[0] < ord("a"):  # an upper-case first letter: decoders must understand it
            raise NotAnImage("the PNG has a critical chunk that is unknown or out of place")
        before = kind
    if not has_pixels or (colour == 3 and not has_palette):
        raise NotAnImage("the PNG has no picture data or lacks its palette")
    pixels.check()
    return (width, height), has_manifest


class _PngPixels:
    """The beginning of the compressed pixels: enough to tell that they are a zlib stream of filtered lines.

    Inflating all of them would cost 10 ms a picture; their checksums tell already that no byte has been changed.
    """

    def __init__(self) -> None:
        self._stream = zlib.decompressobj()
        self._wanted = _INFLATED

    def feed(self, data: bytes, start: int, length: int) -> None:
        """Inflate a part of the stream.

        Raises:
            NotAnImage: It is not what a PNG's pixels are compressed with, or does not begin with a line.
        """
        view = memoryview(data)[start : start + length]
        for offset in range(0, length, _INFLATED):
            if self._wanted <= 0 or self._stream.eof:
                return
            try:
                inflated = self._stream.decompress(view[offset : offset + _INFLATED], self._wanted)
            except zlib.error as err:
                raise NotAnImage("the PNG's picture data is not compressed as a PNG's is") from err
            if self._wanted == _INFLATED and inflated and inflated[0] > _LAST_FILTER:
                raise NotAnImage("the PNG's picture data does not begin with a line of pixels")
            self._wanted -= len(inflated)

    def check(self) -> None:
        """Say whether there was at least one line's beginning.

        Raises:
            NotAnImage: Nothing came out.
        """
        if self._wanted == _INFLATED:
            raise NotAnImage("the PNG has no picture data")


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and length of each chunk's data up to and including IEND, each with its checksum verified."""
    view, position = memoryview(data), len(_PNG_SIGNATURE)
    for _count in range(MAX_PARTS):
        if position + 12 > len(data):
            raise NotAnImage("the PNG is cut off")
        length, kind = struct.unpack_from(">I4s", data, position)
        checksum_at = position + 8 + length
        if checksum_at + 4 > len(data):
            raise NotAnImage("the PNG is cut off")
        if not _CHUNK_TYPE.fullmatch(kind):
            raise NotAnImage("the PNG is damaged")
        if zlib.crc32(view[position + 4 : checksum_at]) != struct.unpack_from(">I", data, checksum_at)[0]:
            raise NotAnImage("the PNG is damaged: a checksum does not fit")
        yield kind, position + 8, length
        if kind == b"IEND":
            return
        position = checksum_at + 4
    raise NotAnImage("the PNG has too many chunks")


def _png_header(data: bytes, start: int, length: int) -> tuple[int, int, int]:
    """Width, height and colour type from IHDR."""
    if length != 13:
        raise NotAnImage("the PNG's header is broken")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack_from(">IIBBBBB", data, start)
    if depth not in _DEPTHS.get(colour, set()) or compression or filtering or interlace > 1:
        raise NotAnImage("the PNG's header is broken")
    if width > 0x7FFFFFFF or height > 0x7FFFFFFF:
        raise NotAnImage("the PNG's header is broken")
    return width, height, colour


# --- JPEG (ITU-T T.81): segments, the frame's size, scans and the end marker ----------------------------------------

_MARKER = re.compile(rb"\xff++([\x01-\xfe])")
#: The first marker that is neither a stuffed zero, a restart nor a fill byte: there a scan ends.
_SCAN_END = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_SOI, _EOI, _SOS, _DQT, _APP11, _TEM = 0xD8, 0xD9, 0xDA, 0xDB, 0xEB, 0x01
_RESTARTS = range(0xD0, 0xD8)
#: Baseline, extended and progressive, which browsers show; the other frames (lossless, arithmetic) they do not.
_SHOWN_FRAMES = range(0xC0, 0xC3)
#: Every start of frame: C0 to CF without the tables (C4, CC) and the reserved C8.
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


def _look_into_jpeg(data: bytes) -> Found:
    """The size of a JPEG that has one frame, at least one scan, and its end, and whether it has a manifest.

    Args:
        data: The whole file; its signature has been looked at.

    Raises:
        NotAnImage: It is not a whole JPEG.
    """
    size: Size | None = None
    has_table, has_scan, has_manifest, position = False, False, False, 2
    for _count in range(MAX_PARTS):
        found = _MARKER.match(data, position)
        if not found:
            raise NotAnImage("the JPEG is cut off or damaged")
        marker, position = found[1][0], found.end()
        if marker == _EOI:
            if size is None or not has_scan:
                raise NotAnImage("the JPEG has no picture data")
            return size, has_manifest
        if marker in {_SOI, _TEM} or marker in _RESTARTS:
            raise NotAnImage("the JPEG is damaged: a marker is out of place")
        end = _segment_end(data, position)
        if marker in _FRAMES:
            if size is not None:
                raise NotAnImage("the JPEG has more than one frame")
            size = _frame_size(data, marker, position, end)
        elif marker == _DQT:
            has_table = True
        elif marker == _APP11:
            has_manifest = has_manifest or _is_manifest_segment(data, position, end)
        elif marker == _SOS:
            if size is None or not has_table:
                raise NotAnImage("the JPEG has a scan before its frame or without a quantization table")
            if end - position != 6 + 2 * data[position + 2]:
                raise NotAnImage("the JPEG's scan has a broken header")
            end = _scan_end(data, end)
            has_scan = True
        position = end
    raise NotAnImage("the JPEG has too many segments")


def _segment_end(data: bytes, position: int) -> int:
    """Where the segment ends whose two bytes of length are at `position`."""
    length = int.from_bytes(data[position : position + 2], "big")
    if length < 2 or position + length > len(data):
        raise NotAnImage("the JPEG is cut off or damaged")
    return position + length


def _is_manifest_segment(data: bytes, position: int, end: int) -> bool:
    """Whether an APP11 segment is the beginning of a manifest: `JP`, an instance and a sequence number, the box."""
    return data[position + 2 : position + 4] == b"JP" and bool(_MANIFEST.match(data, position + 10, end))


def _frame_size(data: bytes, marker: int, position: int, end: int) -> Size:
    """Width and height from a start of frame."""
    if marker not in _SHOWN_FRAMES:
        raise NotAnImage("the JPEG is of a kind that browsers do not show")
    if end - position < 8:
        raise NotAnImage("the JPEG's frame is broken")
    precision, height, width, components = struct.unpack_from(">BHHB", data, position + 2)
    if precision != 8 or components not in {1, 3, 4} or end - position != 8 + 3 * components:
        raise NotAnImage("the JPEG's frame is broken or of a kind that browsers do not show")
    return width, height


def _scan_end(data: bytes, position: int) -> int:
    """Where the compressed data that begins at `position` ends: at the next real marker."""
    found = _SCAN_END.search(data, position)
    if not found:
        raise NotAnImage("the JPEG is cut off")
    if found.start() == position:
        raise NotAnImage("the JPEG has an empty scan")
    return found.start()


# --- WebP (RFC 9649; RFC 6386 for the lossy frame): RIFF chunks and the frame's header ------------------------------


def _look_into_webp(data: bytes) -> Found:
    """The size of a WebP that holds a still picture, with every chunk whole, and whether it has a manifest.

    Args:
        data: The whole file; its signature has been looked at.

    Raises:
        NotAnImage: It is not a whole WebP.
    """
    canvas: Size | None = None
    frame: Size | None = None
    has_manifest = False
    for kind, start, length in _webp_chunks(data):
        if kind == b"VP8X" and start == 20:  # the extended format's header can only come first
            canvas = _canvas_size(data, start, length)
        elif kind in {b"VP8 ", b"VP8L"}:
            if frame is not None:
                raise NotAnImage("the WebP has more than one frame")
            frame = _vp8_size(data, start, length) if kind == b"VP8 " else _vp8l_size(data, start, length)
        elif kind == b"C2PA":
            has_manifest = has_manifest or bool(_MANIFEST.match(data, start, start + length))
    if frame is None:
        raise NotAnImage("the WebP has no still picture")
    if canvas is not None and canvas != frame:
        raise NotAnImage("the WebP's canvas and its picture differ in size")
    return frame, has_manifest


def _webp_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Type, start and length of each RIFF chunk's data, each of them whole."""
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise NotAnImage("the WebP is cut off")
    position = 12
    for _count in range(MAX_PARTS):
        if position >= end:
            return
        if position + 8 > end:
            raise NotAnImage("the WebP is damaged")
        kind, length = struct.unpack_from("<4sI", data, position)
        if position + 8 + length > end:
            raise NotAnImage("the WebP is damaged: a chunk is longer than the file")
        yield kind, position + 8, length
        position += 8 + length + length % 2
    raise NotAnImage("the WebP has too many chunks")


def _canvas_size(data: bytes, start: int, length: int) -> Size:
    """Width and height from VP8X: 24 bits each, less one."""
    if length < 10:
        raise NotAnImage("the WebP's header is broken")
    width = int.from_bytes(data[start + 4 : start + 7], "little") + 1
    return width, int.from_bytes(data[start + 7 : start + 10], "little") + 1


def _vp8_size(data: bytes, start: int, length: int) -> Size:
    """Width and height of a lossy key frame: 14 bits each, the upper two are a scale."""
    if length < 10:
        raise NotAnImage("the WebP's frame is broken")
    tag = int.from_bytes(data[start : start + 3], "little")
    is_key_frame, first_partition = not tag & 1, tag >> 5
    has_pixels = 0 < first_partition < length - 10  # at least one more partition follows
    if not is_key_frame or data[start + 3 : start + 6] != b"\x9d\x01\x2a" or not has_pixels:
        raise NotAnImage("the WebP's frame is broken")
    width, height = struct.unpack_from("<HH", data, start + 6)
    return width & 0x3FFF, height & 0x3FFF


def _vp8l_size(data: bytes, start: int, length: int) -> Size:
    """Width and height of a lossless frame: 14 bits each, less one, before the alpha hint and the version."""
    if length < 6 or data[start] != 0x2F:
        raise NotAnImage("the WebP's frame is broken")
    bits = int.from_bytes(data[start + 1 : start + 5], "little")
    if bits >> 29:
        raise NotAnImage("the WebP's frame is of an unknown version")
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
