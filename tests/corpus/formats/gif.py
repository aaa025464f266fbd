"""GIF89a."""

import struct

from .bits import LsbWriter, pixel


def gif(width, height, frames=1, screen=None):
    """An image of the picture's green, each frame one row lower; nothing is compressed."""

    def frame(n):
        indices = [pixel(x, y + n)[1] >> 1 for y in range(height) for x in range(width)]
        return _frame(width, height, _plain(indices), delay=10 * (frames > 1))

    data = [frame(n) for n in range(frames)]
    return _begin(*(screen or (width, height))) + b"".join(data) + b";"


def black(width, height, screen=None):
    """A large image in few bytes: codes for ever longer runs."""
    return _begin(*(screen or (width, height))) + _frame(width, height, _run(width * height)) + b";"


def _begin(width, height):
    palette = bytes(value for index in range(128) for value in (index * 2, 255 - index * 2, index))
    return b"GIF89a" + struct.pack("<HHBBB", width, height, 0x80 | 6, 0, 0) + palette


def _frame(width, height, data, delay=0):
    blocks = b"".join(
        bytes([len(data[at : at + 255])]) + data[at : at + 255] for at in range(0, len(data), 255)
    )
    control = struct.pack("<BBBBHBB", 0x21, 0xF9, 4, 0, delay, 0, 0)
    return control + b"," + struct.pack("<HHHHB", 0, 0, width, height, 0) + b"\x07" + blocks + b"\0"


CLEAR, END, FIRST = 128, 129, 130


def _plain(indices):
    """A clear code before the codes would get longer."""
    bits = LsbWriter()
    for at in range(0, len(indices), 100):
        bits.write(CLEAR, 8)
        for index in indices[at : at + 100]:
            bits.write(index, 8)
    bits.write(END, 8)
    return bits.finish()


def _run(count):
    """`count` times index 0."""
    bits = LsbWriter()
    bits.write(CLEAR, 8)
    bits.write(0, 8)
    count -= 1
    # Each code stands for one pixel more than the one before, and is used as soon as it is there; 4095 is the last.
    code = FIRST
    while count:
        length = min(count, min(code, 4095) - FIRST + 2)
        bits.write(FIRST + length - 2 if length > 1 else 0, _width(code))
        count -= length
        code = min(code + 1, 4096)
    bits.write(END, _width(code))
    return bits.finish()


def _width(code):
    """Bits of the codes that are written when `code` is the next to be defined."""
    return min(12, max(8, code.bit_length()))
