"""PNG (W3C, third edition)."""

import struct

from .bits import crc32, pixel, zlib_stored, zlib_zeros

SIGNATURE = b"\x89PNG\r\n\x1a\n"
GREY, RGB, PALETTE, GREY_ALPHA, RGBA = 0, 2, 3, 4, 6
CHANNELS = {GREY: 1, RGB: 3, PALETTE: 1, GREY_ALPHA: 2, RGBA: 4}
# Start and step of Adam7's seven passes, in x and y.
ADAM7 = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]


def chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", crc32(name + data))


def header(width, height, depth, color, interlaced=False):
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced))


def png(width, height, depth=8, color=RGB, interlaced=False, chunks=(), lines=None):
    """An image of the picture, or of the filtered scan lines that are given."""
    if lines is None:
        if interlaced:
            lines = b"".join(
                _lines(range(x, width, dx), range(y, height, dy), depth, color) for x, y, dx, dy in ADAM7
            )
        else:
            lines = _lines(range(width), range(height), depth, color)
    palette = bytes(value for index in range(1 << min(depth, 8)) for value in (index * 9 % 256, 255 - index, index))
    extra = [chunk(b"PLTE", palette)] if color == PALETTE else []
    return b"".join(
        [SIGNATURE, header(width, height, depth, color, interlaced)]
        + [chunk(name, data) for name, data in chunks]
        + extra
        + [chunk(b"IDAT", zlib_stored(lines)), chunk(b"IEND", b"")]
    )


def black(width, height, depth=8, color=RGB, chunks=()):
    """A large image in few bytes: all of its samples and filter types are zero."""
    line = 1 + (width * depth * CHANNELS[color] + 7) // 8
    return b"".join(
        [SIGNATURE, header(width, height, depth, color)]
        + [chunk(name, data) for name, data in chunks]
        + [chunk(b"IDAT", zlib_zeros(line * height)), chunk(b"IEND", b"")]
    )


def _lines(xs, ys, depth, color):
    if not xs:
        return b""
    return b"".join(b"\0" + _line([_samples(pixel(x, y), color) for x in xs], depth) for y in ys)


def _samples(rgb, color):
    red, green, blue = rgb
    return {
        GREY: [green],
        RGB: [red, green, blue],
        PALETTE: [green],
        GREY_ALPHA: [green, red],
        RGBA: [red, green, blue, 255 - red],
    }[color]


def _line(pixels, depth):
    samples = [sample for each in pixels for sample in each]
    if depth == 16:
        return b"".join(struct.pack(">H", sample * 257) for sample in samples)
    if depth == 8:
        return bytes(samples)
    out, per_byte = bytearray(), 8 // depth
    for at in range(0, len(samples), per_byte):
        byte = 0
        for sample in samples[at : at + per_byte]:
            byte = byte << depth | sample >> 8 - depth
        byte <<= depth * (per_byte - len(samples[at : at + per_byte]))
        out.append(byte)
    return bytes(out)
