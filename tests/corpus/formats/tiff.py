"""TIFF 6.0, little-endian, of one strip."""

import struct

from .bits import pixel, zlib_zeros

SHORT, LONG = 3, 4
NONE, DEFLATE = 1, 8
BILEVEL, GREY, RGB, CMYK = 0, 1, 2, 5
CHANNELS = {GREY: 1, RGB: 3, CMYK: 4}


def tiff(width, height, depth=8, photometric=RGB, tags=(), next_page=0, data=None, compression=NONE, declare=None):
    """An image of the picture. `tags` are more, or replace those that it has: number, type, value."""
    channels = CHANNELS[photometric]
    if data is None:
        data = b"".join(_sample(pixel(x, y), channels, depth) for y in range(height) for x in range(width))
    declared = declare or (width, height)
    entries = {
        256: (LONG, declared[0]),
        257: (LONG, declared[1]),
        258: (SHORT, depth),
        259: (SHORT, compression),
        262: (SHORT, photometric),
        273: (LONG, 0),
        277: (SHORT, channels),
        278: (LONG, declared[1]),
        279: (LONG, len(data)),
    }
    entries.update({number: (kind, value) for number, kind, value in tags})
    end = 8 + 2 + 12 * len(entries) + 4
    depths = struct.pack("<H", depth) * channels
    if entries[273] == (LONG, 0):
        entries[273] = (LONG, end + len(depths))
    directory = struct.pack("<H", len(entries))
    for number, (kind, value) in sorted(entries.items()):
        if number == 258 and channels > 1:
            directory += struct.pack("<HHII", number, SHORT, channels, end)
        else:
            directory += struct.pack("<HHI", number, kind, 1)
            directory += struct.pack("<HH" if kind == SHORT else "<I", *([value, 0] if kind == SHORT else [value]))
    directory += struct.pack("<I", next_page)
    return b"II*\0" + struct.pack("<I", 8) + directory + depths + data


def black(width, height, depth=8, photometric=RGB):
    """A large image in few bytes."""
    size = width * height * CHANNELS[photometric] * depth // 8
    return tiff(width, height, depth, photometric, data=zlib_zeros(size), compression=DEFLATE)


def _sample(rgb, channels, depth):
    values = {1: [rgb[1]], 3: list(rgb), 4: [*rgb, rgb[0] // 2]}[channels]
    if depth == 16:
        return b"".join(struct.pack("<H", value * 257) for value in values)
    return bytes(values)
