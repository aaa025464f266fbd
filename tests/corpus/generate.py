#!/usr/bin/env python3
"""Writes the corpus of hostile and unusual images that lies beside it in `files/`, and `expected.tsv`: what the sandbox
says of each.

usage: python3 tests/corpus/generate.py            write it anew
       python3 tests/corpus/generate.py --check    fail if what lies there is something else

The verdicts are those of `sandbox::Verdict`, one for each file: a decoder gives the same answer everywhere. Two have a second one,
`out_of_time`, since only the machine's speed decides. The standard library is all that it takes, and every machine writes the same bytes.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from formats import bmp, gif, jpeg, png, tiff, webp  # noqa: E402
from formats.bits import Walk, crc32, exif, icc_profile, pixel, zlib_zeros  # noqa: E402

HERE = Path(__file__).parent
# Sides of an image with nearly as many pixels as are allowed.
LARGE = (7000, 7000)


def whole():
    """One image of each kind, as everybody sends them. The damaged ones are made of these."""
    yield "jpeg_baseline.jpg", jpeg.jpeg(48, 40)
    yield "jpeg_progressive.jpg", jpeg.jpeg(48, 40, progressive=True)
    yield "png.png", png.png(48, 40)
    yield "webp_lossless.webp", webp.lossless(48, 40)
    yield "webp_lossy.webp", webp.LOSSY
    yield "gif.gif", gif.gif(48, 40)
    yield "bmp.bmp", bmp.bmp(48, 40)
    yield "tiff.tif", tiff.tiff(48, 40)


def unusual():
    """Images that are decoded, though not every decoder does."""
    yield "jpeg_grey.jpg", jpeg.jpeg(48, 40, components=1)
    yield "jpeg_cmyk.jpg", jpeg.jpeg(48, 40, components=4, extra=jpeg.app_adobe(0))
    yield "jpeg_ycck.jpg", jpeg.jpeg(48, 40, components=4, extra=jpeg.app_adobe(2))
    yield "jpeg_cmyk_progressive.jpg", jpeg.jpeg(48, 40, 4, True, jpeg.app_adobe(0))
    yield "jpeg_icc.jpg", jpeg.jpeg(48, 40, extra=jpeg.app_icc(icc_profile(2048)))
    yield "jpeg_icc_in_parts.jpg", jpeg.jpeg(48, 40, extra=jpeg.app_icc(icc_profile(2048), part=100))
    yield "jpeg_exif_broken.jpg", jpeg.jpeg(48, 40, extra=jpeg.segment(0xE1, b"Exif\0\0" + exif(9)[:20]))
    for color, name in [(png.GREY, "grey"), (png.PALETTE, "palette")]:
        for depth in (1, 2, 4, 8):
            yield f"png_{name}_{depth}.png", png.png(48, 40, depth, color)
    for color, name in [(png.GREY, "grey"), (png.RGB, "rgb"), (png.GREY_ALPHA, "grey_alpha"), (png.RGBA, "rgba")]:
        yield f"png_{name}_16.png", png.png(24, 20, 16, color)
    for color, name in [(png.GREY_ALPHA, "grey_alpha"), (png.RGBA, "rgba")]:
        yield f"png_{name}_8.png", png.png(48, 40, 8, color)
    for color, depth, name in [(png.RGB, 8, "rgb"), (png.GREY, 1, "grey_1"), (png.PALETTE, 4, "palette_4")]:
        yield f"png_interlaced_{name}.png", png.png(47, 39, depth, color, interlaced=True)
    profile = b"profile\0\0" + b"\x78\x01\x01" + b"\x80\x00\x7f\xff" + icc_profile(128) + b"\0\0\0\0"
    yield "png_icc_bad_checksum.png", png.png(48, 40, chunks=[(b"iCCP", profile)])
    yield "gif_animated.gif", gif.gif(48, 40, frames=3)
    yield "gif_smaller_than_its_screen.gif", gif.gif(20, 10, screen=(48, 40))
    yield "webp_animated.webp", webp.animation(48, 40, frames=3)
    still = webp.chunk(b"VP8L", webp.vp8l(48, 40, [pixel(x, y) for y in range(40) for x in range(48)]))
    yield "webp_icc.webp", webp.extended(0x20, 48, 40, webp.chunk(b"ICCP", icc_profile(256)), still)
    yield "tiff_grey_16.tif", tiff.tiff(48, 40, 16, tiff.GREY)
    yield "tiff_rgb_16.tif", tiff.tiff(48, 40, 16)
    yield "tiff_deflate.tif", tiff.black(48, 40)
    yield "bmp_palette.bmp", bmp.bmp(48, 40, 8)
    yield "bmp_rle8.bmp", bmp.runs(48, 40)
    yield "bmp_32.bmp", bmp.bmp(48, 40, 32)
    yield "bmp_top_down.bmp", bmp.bmp(48, 40, declare=(48, -40))
    for orientation in range(1, 9):
        yield f"jpeg_orientation_{orientation}.jpg", jpeg.jpeg(48, 40, extra=jpeg.app_exif(orientation))
        yield f"png_orientation_{orientation}.png", png.png(24, 20, chunks=[(b"eXIf", exif(orientation))])
    tags = [(274, tiff.SHORT, 6)]
    yield "tiff_orientation_6.tif", tiff.tiff(48, 40, tags=tags)
    yield "webp_orientation_6.webp", webp.extended(8, 48, 40, still, webp.chunk(b"EXIF", exif(6)))
    for name, write in [("jpeg", jpeg.jpeg), ("png", png.png), ("webp", webp.lossless), ("gif", gif.gif),
                        ("bmp", bmp.bmp), ("tiff", tiff.tiff)]:
        ending = {"jpeg": "jpg", "tiff": "tif"}.get(name, name)
        yield f"{name}_1x1.{ending}", write(1, 1)
    yield "png_1x20000.png", png.png(1, 20000, 8, png.GREY)
    yield "png_20000x1.png", png.png(20000, 1, 8, png.GREY)
    yield "jpeg_8x20000.jpg", jpeg.jpeg(8, 20000, components=1)
    # A name says nothing: what counts is how the bytes begin.
    yield "png_named_jpeg.jpg", png.png(48, 40)
    yield "jpeg_named_png.png", jpeg.jpeg(48, 40)
    yield "gif_named_bmp.bmp", gif.gif(48, 40)
    yield "webp_without_ending", webp.lossless(48, 40)


def bombs():
    """Few bytes that want much, with what becomes of them."""
    yield "bomb_png_60000x60000.png", png.black(60000, 60000, 1, png.GREY), "too_many_pixels"
    yield "bomb_png_header_only.png", png.SIGNATURE + png.header(2**31 - 1, 2**31 - 1, 16, 6), "too_many_pixels"
    yield "bomb_png_rgb.png", png.black(*LARGE), "accepted"
    yield "bomb_png_rgba_16.png", png.black(8300, 6000, 16, png.RGBA), "out_of_memory"
    zeros = zlib_zeros(300 << 20)
    small = png.header(8, 8, 8, png.RGB)
    end = png.chunk(b"IDAT", zlib_zeros(8 * 25)) + png.chunk(b"IEND", b"")
    for name, data in [(b"iCCP", b"bomb\0\0" + zeros), (b"zTXt", b"bomb\0\0" + zeros),
                       (b"iTXt", b"bomb\0\1\0\0\0" + zeros)]:
        file = png.SIGNATURE + small + png.chunk(name, data) + end
        # Texts are not inflated, a profile is: until its memory is used up, or, where that is slow, its time.
        verdict = "out_of_memory,out_of_time" if name == b"iCCP" else "accepted"
        yield f"bomb_png_{name.decode().lower()}.png", file, verdict
    yield "bomb_png_too_much_data.png", png.SIGNATURE + small + png.chunk(b"IDAT", zeros) + png.chunk(b"IEND", b""), "accepted"
    yield "bomb_webp_16383x16383.webp", webp.one_color(16383, 16383), "too_many_pixels"
    yield "bomb_webp_16384x16384.webp", webp.one_color(16384, 16384), "corrupt"
    yield "bomb_webp.webp", webp.one_color(*LARGE), "accepted"
    canvas = webp.extended(2, 1 << 24, 1 << 24, webp.chunk(b"ANIM", bytes(6)))
    yield "bomb_webp_canvas.webp", canvas, "corrupt"
    yield "bomb_gif_65535x65535.gif", gif.black(40, 40, screen=(65535, 65535)), "too_many_pixels"
    yield "bomb_gif.gif", gif.black(*LARGE), "accepted"
    yield "bomb_jpeg_65500x65500.jpg", jpeg.jpeg(16, 16, declare=(65500, 65500)), "too_many_pixels"
    yield "bomb_jpeg_cmyk_declared.jpg", jpeg.jpeg(16, 16, 4, True, declare=LARGE), "accepted,out_of_time"
    yield "bomb_jpeg_scans.jpg", jpeg.bomb(6000, 6000, scans=4000), "out_of_time"
    # It is an image, for a machine that is fast enough.
    yield "bomb_jpeg_scans_small.jpg", jpeg.bomb(1900, 2000, scans=400), "accepted,out_of_time"
    yield "bomb_tiff_deflate.tif", tiff.black(*LARGE), "accepted"
    yield "bomb_tiff_rgb_16.tif", tiff.black(*LARGE, depth=16), "out_of_memory"
    yield "bomb_tiff_declared.tif", tiff.tiff(8, 8, declare=(2**31, 2**31)), "too_many_pixels"
    yield "bomb_bmp_rle8.bmp", bmp.runs(*LARGE), "accepted"
    yield "bomb_bmp_declared.bmp", bmp.bmp(8, 8, declare=(2**31 - 1, 2**31 - 1)), "corrupt"


def contradictory():
    """Files whose parts contradict each other, or are of kinds that are not decoded."""
    yield "jpeg_zero_height.jpg", jpeg.jpeg(48, 40, declare=(48, 0)), "unsupported_format"
    yield "jpeg_zero_width.jpg", jpeg.jpeg(48, 40, declare=(0, 40)), "corrupt"
    yield "jpeg_lossless.jpg", jpeg.jpeg(48, 40, marker=jpeg.SOF_LOSSLESS), "unsupported_format"
    yield "jpeg_arithmetic.jpg", jpeg.jpeg(48, 40, marker=jpeg.SOF_ARITHMETIC), "unsupported_format"
    yield "jpeg_12_bits.jpg", jpeg.jpeg(48, 40, precision=12), "corrupt"
    yield "jpeg_two_components.jpg", jpeg.jpeg(48, 40, components=2), "unsupported_format"
    yield "jpeg_without_frame.jpg", b"\xff\xd8" + jpeg.tables() + jpeg.scan([0]) + b"\0\xff\xd9", "corrupt"
    yield "jpeg_without_tables.jpg", b"\xff\xd8" + jpeg.frame(0xC0, 8, 8, 1) + jpeg.scan([0]) + b"\0\xff\xd9", "corrupt"
    yield "jpeg_segment_of_no_length.jpg", b"\xff\xd8\xff\xe1\0\0" + jpeg.jpeg(8, 8)[2:], "corrupt"
    yield "jpeg_only_fill.jpg", b"\xff\xd8" + b"\xff" * 100_000, "truncated"
    yield "png_zero_width.png", png.png(0, 5), "corrupt"
    yield "png_zero_height.png", png.png(5, 0), "corrupt"
    yield "png_bad_checksum.png", png.png(48, 40)[:20] + b"\1" + png.png(48, 40)[21:], "too_many_pixels"
    yield "png_depth_3.png", png.SIGNATURE + png.header(8, 8, 3, png.GREY) + png.png(8, 8)[33:], "corrupt"
    yield "png_palette_missing.png", png.SIGNATURE + png.header(8, 8, 8, png.PALETTE) + png.png(8, 8)[33:], "corrupt"
    yield "png_chunk_of_4_gib.png", png.SIGNATURE + png.header(8, 8, 8, 2) + b"\xff\xff\xff\xffIDAT", "truncated"
    yield "png_without_data.png", png.SIGNATURE + png.header(8, 8, 8, 2) + png.chunk(b"IEND", b""), "corrupt"
    yield "png_filter_9.png", png.png(8, 8, lines=(b"\x09" + bytes(24)) * 8), "corrupt"
    yield "gif_zero_screen.gif", gif.gif(48, 40, screen=(0, 0)), "corrupt"
    yield "gif_no_frame.gif", gif.gif(4, 4)[: 13 + 384] + b";", "truncated"
    yield "gif_frame_outside_its_screen.gif", gif.gif(48, 40, screen=(8, 8)), "accepted"
    yield "webp_zero_size.webp", webp.riff(), "truncated"
    yield "webp_size_too_long.webp", webp.lossless(8, 8)[:4] + b"\xff\xff\xff\x7f" + webp.lossless(8, 8)[8:], "truncated"
    yield "webp_chunk_of_4_gib.webp", webp.riff(b"VP8L\xfe\xff\xff\xff" + bytes(20)), "corrupt"
    yield "webp_version_5.webp", webp.riff(webp.chunk(b"VP8L", b"\x2f\0\0\0\xa0" + bytes(20))), "corrupt"
    yield "bmp_zero.bmp", bmp.bmp(8, 8, declare=(0, 0)), "unsupported_format"
    yield "bmp_lowest_height.bmp", bmp.bmp(8, 8, declare=(8, -(2**31))), "corrupt"
    yield "bmp_negative_width.bmp", bmp.bmp(8, 8, declare=(-8, 8)), "corrupt"
    yield "tiff_next_page_is_the_first.tif", tiff.tiff(48, 40, next_page=8), "corrupt"
    yield "tiff_zero.tif", tiff.tiff(8, 8, declare=(0, 0)), "corrupt"
    yield "tiff_strip_outside.tif", tiff.tiff(8, 8, tags=[(273, tiff.LONG, 2**32 - 16)]), "truncated"
    yield "tiff_strip_of_4_gib.tif", tiff.tiff(8, 8, tags=[(279, tiff.LONG, 2**32 - 1)]), "out_of_memory"
    yield "tiff_directory_outside.tif", b"II*\0\xf0\xff\xff\xff", "truncated"
    yield "tiff_no_tags.tif", b"II*\0\x08\0\0\0" + bytes(6), "corrupt"
    yield "tiff_compression_unknown.tif", tiff.tiff(8, 8, compression=34712), "unsupported_format"


def no_images():
    """Other things that are sent as images."""
    yield "empty.jpg", b"", "empty"
    yield "text.jpg", b"This is not an image.\n", "not_an_image"
    yield "page.png", b"<!DOCTYPE html><script>alert(1)</script>", "not_an_image"
    yield "drawing.svg", b'<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported_format"
    yield "document.jpg", b"%PDF-1.7\n1 0 obj <<>> endobj\n", "not_an_image"
    yield "archive.png", b"PK\x03\x04" + bytes(26), "not_an_image"
    yield "program.gif", b"\x7fELF\x02\x01\x01" + bytes(57), "not_an_image"
    yield "zeros.jpg", bytes(4096), "not_an_image"
    walk = Walk(1)
    yield "noise.jpg", b"\1" + bytes(walk.below(256) for _ in range(4096)), "not_an_image"
    yield "sound.webp", b"RIFF\x24\0\0\0WAVEfmt " + bytes(24), "not_an_image"
    yield "image.avif", b"\0\0\0\x1cftypavif\0\0\0\0avifmif1" + bytes(64), "unsupported_format"
    yield "image.heic", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported_format"
    yield "image.jxl", b"\xff\x0a" + bytes(30), "unsupported_format"
    yield "image.ico", b"\0\0\1\0\1\0" + bytes(16), "unsupported_format"
    yield "gif_and_script.gif", b"GIF89a=1;alert(1)//", "too_many_pixels"
    yield "signature_only.png", png.SIGNATURE, "truncated"
    yield "signature_only.jpg", b"\xff\xd8\xff", "truncated"


# What flipped bits lead to, in the order of the files: decoders notice what their formats let them notice.
FLIPPED = {
    "jpeg_baseline.jpg": "accepted accepted corrupt corrupt corrupt corrupt",
    "jpeg_progressive.jpg": "accepted accepted corrupt corrupt accepted accepted",
    "png.png": "corrupt corrupt corrupt not_an_image not_an_image corrupt",
    "webp_lossless.webp": "accepted corrupt accepted corrupt accepted not_an_image",
    "webp_lossy.webp": "accepted corrupt corrupt not_an_image accepted truncated",
    "gif.gif": "accepted accepted accepted accepted accepted accepted",
    "bmp.bmp": "accepted corrupt accepted corrupt accepted corrupt",
    "tiff.tif": "accepted corrupt accepted truncated corrupt not_an_image",
}


def damaged(name, data):
    """Cut off early and late, and with bits flipped here and there."""
    stem, ending = name.rsplit(".", 1)
    for percent in (3, 25, 60, 97):
        yield f"{stem}_cut_at_{percent}.{ending}", data[: max(2, len(data) * percent // 100)], "truncated"
    walk = Walk(crc32(name.encode()))
    for n, verdict in enumerate(FLIPPED[name].split()):
        flipped = bytearray(data)
        # Half of them in the header, where they do most.
        reach = min(len(data), 64) if n % 2 else len(data)
        for _ in range(1 + n):
            flipped[walk.below(reach)] ^= 1 << walk.below(8)
        yield f"{stem}_flipped_{n}.{ending}", bytes(flipped), verdict


def corpus():
    """Name, bytes and verdicts of every file."""
    for name, data in list(whole()) + list(unusual()):
        yield name, data, "accepted"
    for part in (bombs, contradictory, no_images):
        yield from part()
    for name, data in whole():
        yield from damaged(name, data)


def main():
    files = {name: (data, verdicts) for name, data, verdicts in corpus()}
    expected = "".join(f"{name}\t{verdicts}\n" for name, (_, verdicts) in sorted(files.items()))
    folder, table = HERE / "files", HERE / "expected.tsv"
    if "--check" in sys.argv[1:]:
        there = {path.name: path.read_bytes() for path in folder.iterdir()}
        wrong = sorted(name for name in there.keys() | files.keys() if there.get(name) != files.get(name, (None,))[0])
        if wrong or table.read_text() != expected:
            sys.exit(f"The corpus is not what this script writes: {', '.join(wrong) or table.name}. Run it again.")
    else:
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for name, (data, _) in files.items():
            (folder / name).write_bytes(data)
        table.write_text(expected)
    total = sum(len(data) for data, _ in files.values())
    print(f"{len(files)} files, {total} bytes")


if __name__ == "__main__":
    main()
