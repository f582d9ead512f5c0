"""Small whole pictures in every format a provider may send, and files that only look like pictures."""

from __future__ import annotations

import io
import struct
import zlib
from functools import lru_cache

from PIL import Image

SVG = b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>'
HTML = b"<!DOCTYPE html><html><body><script>alert(1)</script>This is no picture at all.</body></html>"


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@lru_cache(maxsize=32)
def png(width: int, height: int, size: int = 0) -> bytes:
    """A valid PNG of one colour.

    Args:
        width: In pixels.
        height: In pixels.
        size: Bytes the file is to have; reached with a private chunk that every reader skips.
    """
    row = b"\x00" + b"\x2f\x6f\x9f" * width
    packed = zlib.compress(row * height, 1)
    head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    tail = _chunk(b"IDAT", packed) + _chunk(b"IEND", b"")
    missing = size - len(head) - len(tail) - 12
    padding = _chunk(b"fiLl", b"\xa5\x3c\x0f" * (missing // 3) + b"\0" * (missing % 3)) if missing > 0 else b""
    return head + padding + tail


@lru_cache(maxsize=32)
def picture(kind: str, width: int, height: int, size: int = 0) -> bytes:
    """A valid `png`, `jpeg` or `webp` of one colour; only a PNG is filled up to `size` bytes."""
    if kind == "png":
        return png(width, height, size)
    file = io.BytesIO()
    Image.new("RGB", (width, height), (47, 111, 159)).save(file, kind.upper())
    return file.getvalue()


# --- C2PA: a manifest store as vendors embed it (C2PA 2.2, 11.1 and appendix A) -----------------------------------


def _box(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", 8 + len(data)) + kind + data


def _superbox(kind: str, label: str, *contents: bytes) -> bytes:
    """A JUMBF superbox (ISO 19566-5): a description box with the type's UUID and a label, and what it holds."""
    uuid = kind.encode() + bytes.fromhex("00110010800000AA00389B71")
    return _box(b"jumb", _box(b"jumd", uuid + b"\x03" + label.encode() + b"\0") + b"".join(contents))


def manifest_store(kind: str = "c2pa", label: str = "c2pa", signature_size: int = 9_000) -> bytes:
    """What a vendor signs: actions with the source type, a claim, and a COSE signature with its certificates.

    Args:
        kind: The first four bytes of the outermost box's UUID; other kinds of JUMBF begin differently.
        label: The outermost box's.
        signature_size: In bytes. The certificates make up most of a manifest.
    """
    source = b"http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia"
    # In CBOR: one action, `c2pa.created`, with its source type.
    created = b"\xa2\x66action\x6cc2pa.created\x71digitalSourceType\x78" + bytes([len(source)]) + source
    actions = _superbox("cbor", "c2pa.actions.v2", _box(b"cbor", b"\xa1\x67actions\x81" + created))
    claim = _superbox("c2cl", "c2pa.claim.v2", _box(b"cbor", b"\xa1\x69signature\x78\x19self#jumbf=c2pa.signature"))
    # A COSE_Sign1 begins with tag 18 and an array of four.
    cose = b"\xd2\x84" + b"\x30\x82" * (signature_size // 2)
    signature = _superbox("c2cs", "c2pa.signature", _box(b"cbor", cose))
    assertions = _superbox("c2as", "c2pa.assertions", actions)
    manifest = _superbox("c2ma", "urn:c2pa:2b0c5f9e-8d5a-4f0e-9f60-0a4b9d6f3c11", assertions, claim, signature)
    return _superbox(kind, label, manifest)


def signed(data: bytes, store: bytes | None = None) -> bytes:
    """A picture with a manifest where its format has it."""
    store = manifest_store() if store is None else store
    if data.startswith(b"\x89PNG"):
        return data[:33] + _chunk(b"caBX", store) + data[33:]
    if data.startswith(b"\xff\xd8"):
        return data[:2] + _app11(store) + data[2:]
    body = data[12:] + b"C2PA" + struct.pack("<I", len(store)) + store + b"\0" * (len(store) % 2)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _app11(store: bytes) -> bytes:
    """As many numbered APP11 segments as it takes; each repeats the box's length and type (ISO 19566-5, D.2)."""
    head, rest, room = store[:8], store[8:], 60_000
    parts = [rest[at : at + room] for at in range(0, len(rest), room)]
    segments = (b"JP" + struct.pack(">HI", 1, number) + head + part for number, part in enumerate(parts, start=1))
    return b"".join(b"\xff\xeb" + struct.pack(">H", 2 + len(segment)) + segment for segment in segments)
