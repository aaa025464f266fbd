"""What Pillow computes for a photo that is resized: the reference for POST /preprocess.

    pillow_features.py PHOTO WIDTH HEIGHT [JPEG]

Prints one JSON document: the features of the resized photo, and of the JPEG where one is given its size, mode, format
and its mean absolute difference to the resized photo.
"""

import json
import sys

from PIL import Image, ImageChops, ImageOps, ImageStat


def values(image):
    return image.tobytes()


def mean(numbers):
    return sum(numbers) / len(numbers)


def main():
    photo, width, height, *jpeg = sys.argv[1:]
    size = (int(width), int(height))
    with Image.open(photo) as image:
        original = {"width": image.width, "height": image.height, "format": image.format, "mode": image.mode}
        resized = ImageOps.exif_transpose(image).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    pixels = values(resized)
    average = mean(pixels)
    variance = sum(value * value for value in pixels) / len(pixels) - average * average
    result = {
        "original": original,
        "features": {
            "mean_brightness": average,
            "std_brightness": variance**0.5,
            "min_pixel": min(pixels),
            "max_pixel": max(pixels),
        },
    }
    if jpeg:
        with Image.open(jpeg[0]) as answer:
            difference = ImageStat.Stat(ImageChops.difference(answer.convert("RGB"), resized)).mean
            result["jpeg"] = {
                "width": answer.width,
                "height": answer.height,
                "format": answer.format,
                "mode": answer.mode,
                "difference": mean(difference),
            }
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
