"""WebP: lossless (VP8L) written here, lossy (VP8) as libwebp wrote it once, and the extended container."""

import base64
import struct

from .bits import LsbWriter, pixel

# 48x40 pixels of the picture, by Pillow 12.3 and libwebp 1.6: `save(quality=30, method=6)`.
LOSSY = base64.b64decode(
    "UklGRqYAAABXRUJQVlA4IJoAAACwBACdASowACgAPwlqsFA/v6SisdmcA/AhCWRsZ1kILkVYKnMV5NpILe72hq7kAP7vOFv529U/"
    "1D5p3iv/Cp1f5oX1M3WvdEO5fHKnUkMPR3Ld9Vv3pNItVg3J4n+dS9hURh92wUmTyI44E/QVkwzXXkC94ajurTTqdZGrm3z7K2KA"
    "2fu3M5M50nsky371z3po9njj8NXOgAAA"
)


def chunk(name, data):
    return name + struct.pack("<I", len(data)) + data + b"\0" * (len(data) % 2)


def riff(*chunks):
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def lossless(width, height):
    """An image of the picture."""
    return riff(chunk(b"VP8L", vp8l(width, height, [pixel(x, y) for y in range(height) for x in range(width)])))


def one_color(width, height):
    """A large image in a few bytes: its prefix codes have one symbol each, which takes no bits at all."""
    return riff(chunk(b"VP8L", vp8l(width, height, None)))


def extended(flags, width, height, *chunks):
    """The extended container: a canvas, and what the flags announce (0x20 profile, 0x10 alpha, 8 EXIF, 2 animation)."""
    sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    return riff(chunk(b"VP8X", struct.pack("<I", flags) + sides), *chunks)


def animation(width, height, frames):
    def frame(n):
        still = vp8l(width, height, [pixel(x + n, y) for y in range(height) for x in range(width)])
        sides = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
        return chunk(b"ANMF", bytes(6) + sides + b"\x64\0\0" + b"\0" + chunk(b"VP8L", still))

    return extended(2, width, height, chunk(b"ANIM", bytes(6)), *[frame(n) for n in range(frames)])


def vp8l(width, height, pixels):
    """A lossless image without transforms; `None` is one colour everywhere."""
    bits = LsbWriter()
    bits.write(0x2F, 8)
    bits.write(width - 1, 14)
    bits.write(height - 1, 14)
    bits.write(0, 4)  # No alpha, version 0.
    bits.write(0, 1)  # No transform,
    bits.write(0, 1)  # no cache of colours,
    bits.write(0, 1)  # one group of prefix codes: green, red, blue, alpha, distance.
    for name in ["green", "red", "blue"]:
        if pixels is None:
            _only(bits, 0x40)
        else:
            _bytes(bits)
    _only(bits, 255)
    _only(bits, 0)
    for red, green, blue in pixels or []:
        for value in (green, red, blue):
            bits.code(value, 8)
    return bits.finish()


def _only(bits, symbol):
    """A simple code of one symbol."""
    bits.write(1, 1)
    bits.write(0, 1)
    bits.write(1, 1)
    bits.write(symbol, 8)


def _bytes(bits):
    """A code of 8 bits for each of the first 256 symbols."""
    bits.write(0, 1)
    # The lengths are coded themselves, in the order 17, 18, 0, 1, 2, 3, 4, 5, 16, 6, 7, 8: only 8 is used.
    bits.write(12 - 4, 4)
    for _ in range(11):
        bits.write(0, 3)
    bits.write(1, 3)
    # How many lengths follow: 2 + 254, in 2 + 2 * 3 bits. Each takes no bits.
    bits.write(1, 1)
    bits.write(3, 3)
    bits.write(254, 8)
