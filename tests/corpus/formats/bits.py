"""Bits into bytes, runs into deflate, and a pseudo-random walk."""

import binascii
import struct


class LsbWriter:
    """Packs bits from the least significant on, as deflate, GIF and WebP do."""

    def __init__(self):
        self.bytes = bytearray()
        self.pending = 0
        self.count = 0

    def write(self, value, count):
        self.pending |= value << self.count
        self.count += count
        while self.count >= 8:
            self.bytes.append(self.pending & 0xFF)
            self.pending >>= 8
            self.count -= 8

    def code(self, value, count):
        """A prefix code, whose first bit is its most significant one."""
        self.write(int(format(value, f"0{count}b")[::-1], 2) if count else 0, count)

    def finish(self):
        if self.count:
            self.bytes.append(self.pending & 0xFF)
            self.pending = self.count = 0
        return bytes(self.bytes)


class MsbWriter:
    """Packs bits from the most significant on, with JPEG's zero byte after each 0xFF."""

    def __init__(self):
        self.bytes = bytearray()
        self.pending = 0
        self.count = 0

    def write(self, value, count):
        self.pending = self.pending << count | value
        self.count += count
        while self.count >= 8:
            self.count -= 8
            byte = self.pending >> self.count & 0xFF
            self.bytes.append(byte)
            if byte == 0xFF:
                self.bytes.append(0)
        self.pending &= (1 << self.count) - 1

    def finish(self):
        if self.count:
            self.write((1 << 8 - self.count) - 1, 8 - self.count)
        return bytes(self.bytes)


def adler32_of_zeros(count):
    """Of `count` zero bytes: their sum stays 1, and the sum of sums counts them."""
    return (count % 65521) << 16 | 1


def zlib_stored(data):
    """A zlib stream that compresses nothing."""
    out = bytearray(b"\x78\x01")
    for at in range(0, max(len(data), 1), 65535):
        part = data[at : at + 65535]
        out.append(at + 65535 >= len(data))
        out += struct.pack("<HH", len(part), len(part) ^ 0xFFFF) + part
    return bytes(out) + struct.pack(">I", _adler32(data))


def zlib_zeros(count):
    """A zlib stream of `count` zero bytes: 258 of them in two bits, as small as deflate gets (RFC 1951, 3.2.7)."""
    bits = LsbWriter()
    bits.write(1, 1)  # The last block,
    bits.write(2, 2)  # with codes of its own:
    bits.write(286 - 257, 5)  # literals and lengths 0 to 285,
    bits.write(0, 5)  # one distance,
    order = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1]
    lengths = {18: 1, 1: 2, 0: 3, 2: 3}
    bits.write(len(order) - 4, 4)
    for symbol in order:
        bits.write(lengths.get(symbol, 0), 3)
    codes = {18: (0b0, 1), 1: (0b10, 2), 0: (0b110, 3), 2: (0b111, 3)}

    def zeros(run):
        while run >= 11:
            part = min(run, 138)
            bits.code(*codes[18])
            bits.write(part - 11, 7)
            run -= part
        for _ in range(run):
            bits.code(*codes[0])

    # A zero byte has two bits, the end two, a match of 258 bytes one; the distance of 1 has one.
    bits.code(*codes[2])
    zeros(255)
    bits.code(*codes[2])
    zeros(285 - 257)
    bits.code(*codes[1])
    bits.code(*codes[1])
    zero, end, match, distance = (0b10, 2), (0b11, 2), (0b0, 1), (0b0, 1)
    runs, rest = divmod(count - 1, 258)
    for _ in range(1 + rest):
        bits.code(*zero)
    # All matches at once: each is two zero bits.
    assert match == distance == (0, 1)
    bits.write(0, 2 * runs % 8)
    whole = bytes(2 * runs // 8)
    if bits.count:
        for byte in whole:
            bits.write(byte, 8)
    else:
        bits.bytes += whole
    bits.code(*end)
    return b"\x78\xda" + bits.finish() + struct.pack(">I", adler32_of_zeros(count))


def _adler32(data):
    low, high = 1, 0
    for byte in data:
        low = (low + byte) % 65521
        high = (high + low) % 65521
    return high << 16 | low


def crc32(data):
    return binascii.crc32(data) & 0xFFFFFFFF


class Walk:
    """Knuth's linear congruential generator (MMIX): the same walk everywhere."""

    def __init__(self, seed):
        self.state = seed

    def below(self, limit):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % (1 << 64)
        return (self.state >> 33) % limit


def exif(orientation):
    """An EXIF block that says nothing but the orientation."""
    return b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(">HH", orientation, 0) + bytes(4)


def icc_profile(size):
    """A colour profile of `size` bytes, by its header (ICC.1, 7.2): RGB, to XYZ, of a display. It has no tags."""
    header = struct.pack(">I4xI4s4s4s", size, 0x04300000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    return (header + bytes(size))[:size]


def pixel(x, y):
    """The picture that most files show: slopes in three directions with a little noise."""
    noise = ((x * 7919 + y * 104729) * 2654435761 >> 16) % 16
    return ((x * 5 + noise) % 256, (y * 6 + noise) % 256, ((x + y) * 2 + noise) % 256)
