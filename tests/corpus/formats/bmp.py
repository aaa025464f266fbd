"""BMP with a BITMAPINFOHEADER."""

import struct

from .bits import pixel

PLAIN, RLE8, BITFIELDS = 0, 1, 3


def bmp(width, height, depth=24, compression=PLAIN, data=None, declare=None, colors=256):
    """An image of the picture."""
    palette = bytes(value for index in range(colors) for value in (index, 255 - index, index * 3 % 256, 0))
    palette = palette if depth <= 8 else b""
    if data is None:
        data = b"".join(_line(width, y, depth) for y in reversed(range(height)))
    start = 14 + 40 + len(palette)
    info = struct.pack("<IiiHHIIiiII", 40, *(declare or (width, height)), 1, depth, compression, len(data), 0, 0, 0, 0)
    file = b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start)
    return file + info[:40] + palette + data


def runs(width, height):
    """A large image in few bytes: runs of 255 pixels of one colour."""
    whole, rest = divmod(width, 255)
    line = b"\xff\x07" * whole + (bytes([rest, 7]) if rest else b"") + b"\0\0"
    return bmp(width, height, 8, RLE8, line * height + b"\0\1")


def _line(width, y, depth):
    pixels = [pixel(x, y) for x in range(width)]
    if depth == 8:
        line = bytes(green for _, green, _ in pixels)
    else:
        line = b"".join(bytes([blue, green, red]) + b"\0" * (depth // 8 - 3) for red, green, blue in pixels)
    return line + b"\0" * (-len(line) % 4)
