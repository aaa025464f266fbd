"""JPEG (ITU T.81), written in coefficients: without a transform there is nothing to round.

The quantisation is 1 throughout, and the Huffman tables are the Annex's.
"""

import struct

from .bits import MsbWriter, exif

SOF_BASELINE, SOF_PROGRESSIVE, SOF_LOSSLESS, SOF_ARITHMETIC = 0xC0, 0xC2, 0xC3, 0xC9

DC_COUNTS = [0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0]
DC_SYMBOLS = list(range(12))
AC_COUNTS = [0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125]
AC_SYMBOLS = bytes.fromhex(
    "0102030004110512213141061351610722711432"
    "8191a1082342b1c11552d1f02433627282090a16"
    "1718191a25262728292a3435363738393a434445"
    "464748494a535455565758595a63646566676869"
    "6a737475767778797a838485868788898a929394"
    "95969798999aa2a3a4a5a6a7a8a9aab2b3b4b5b6"
    "b7b8b9bac2c3c4c5c6c7c8c9cad2d3d4d5d6d7d8"
    "d9dae1e2e3e4e5e6e7e8e9eaf1f2f3f4f5f6f7f8f9fa"
)


def _codes(counts, symbols):
    codes, code, at = {}, 0, 0
    for length, count in enumerate(counts, 1):
        for _ in range(count):
            codes[symbols[at]] = (code, length)
            code, at = code + 1, at + 1
        code <<= 1
    return codes


DC, AC = _codes(DC_COUNTS, DC_SYMBOLS), _codes(AC_COUNTS, AC_SYMBOLS)


def segment(marker, data):
    return struct.pack(">BBH", 0xFF, marker, len(data) + 2) + data


def frame(marker, width, height, components, precision=8):
    body = struct.pack(">BHHB", precision, height, width, components)
    return segment(marker, body + b"".join(bytes([c + 1, 0x11, 0]) for c in range(components)))


def tables():
    huffman = bytes([0x00] + DC_COUNTS + DC_SYMBOLS) + bytes([0x10] + AC_COUNTS) + AC_SYMBOLS
    return segment(0xDB, b"\0" + b"\1" * 64) + segment(0xC4, huffman)


def scan(components, first=0, last=63, bits=0):
    body = bytes([len(components)]) + b"".join(bytes([c + 1, 0x00]) for c in components)
    return segment(0xDA, body + bytes([first, last, bits]))


def app_exif(orientation):
    return segment(0xE1, b"Exif\0\0" + exif(orientation))


def app_adobe(transform):
    return segment(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, transform))


def app_icc(profile, part=60000):
    parts = [profile[at : at + part] for at in range(0, len(profile), part)]
    return b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes([n, len(parts)]) + each) for n, each in enumerate(parts, 1)
    )


def jpeg(width, height, components=3, progressive=False, extra=b"", marker=None, precision=8, declare=None):
    """An image of slopes, one component after the other a little steeper. `declare` is what its header says instead."""
    marker = marker or (SOF_PROGRESSIVE if progressive else SOF_BASELINE)
    columns, rows = (width + 7) // 8, (height + 7) // 8
    blocks = [
        [_block(x, y, component) for y in range(rows) for x in range(columns)] for component in range(components)
    ]
    body = _progressive(blocks) if progressive else _baseline(blocks)
    head = tables() + frame(marker, *(declare or (width, height)), components, precision)
    return b"\xff\xd8" + extra + head + body + b"\xff\xd9"


def bomb(width, height, scans):
    """A grey image whose progressive scans say nothing, each in some twenty bytes, and each about every block."""
    # A code of one bit for "the next 16,384 and more blocks end here", whose number follows in 14; and one of two bits.
    huffman = segment(0xC4, bytes([0x10, 1, 1] + [0] * 14 + [0xE0, 0x00]))
    bits = MsbWriter()
    blocks = ((width + 7) // 8) * ((height + 7) // 8)
    parts = -(-blocks // 32767)
    for part in range(parts):
        run = blocks * (part + 1) // parts - blocks * part // parts
        bits.write(0, 1)
        bits.write(run - (1 << 14), 14)
    empty = scan([0], 1, 63) + bits.finish()
    head = segment(0xDB, b"\0" + b"\1" * 64) + huffman + frame(SOF_PROGRESSIVE, width, height, 1)
    return b"\xff\xd8" + head + empty * scans + b"\xff\xd9"


def _block(x, y, component):
    """The slope's mean, and a few coefficients that differ from block to block."""
    mean = ((x * (3 + component) + y * 5) * 8) % 1600 - 800
    detail = [0] * 63
    for at in range(5):
        detail[at * at] = (x * 7 + y * 3 + at * 5 + component) % 15 - 7
    return mean, detail


def _magnitude(bits, value):
    size = abs(value).bit_length()
    bits.write(value if value >= 0 else value + (1 << size) - 1, size)


def _dc(bits, mean, before):
    difference = mean - before
    bits.write(*DC[abs(difference).bit_length()])
    _magnitude(bits, difference)


def _ac(bits, detail):
    zeros = 0
    for value in detail:
        if value == 0:
            zeros += 1
            continue
        while zeros > 15:
            bits.write(*AC[0xF0])
            zeros -= 16
        bits.write(*AC[zeros << 4 | abs(value).bit_length()])
        _magnitude(bits, value)
        zeros = 0
    if zeros:
        bits.write(*AC[0x00])


def _baseline(blocks):
    bits, before = MsbWriter(), [0] * len(blocks)
    for at in range(len(blocks[0])):
        for component, own in enumerate(blocks):
            mean, detail = own[at]
            _dc(bits, mean, before[component])
            _ac(bits, detail)
            before[component] = mean
    return scan(range(len(blocks))) + bits.finish()


def _progressive(blocks):
    bits, before = MsbWriter(), [0] * len(blocks)
    for at in range(len(blocks[0])):
        for component, own in enumerate(blocks):
            _dc(bits, own[at][0], before[component])
            before[component] = own[at][0]
    out = scan(range(len(blocks)), 0, 0) + bits.finish()
    for component, own in enumerate(blocks):
        for first, last in [(1, 5), (6, 63)]:
            bits = MsbWriter()
            for _, detail in own:
                _ac(bits, detail[first - 1 : last])
            out += scan([component], first, last) + bits.finish()
    return out
