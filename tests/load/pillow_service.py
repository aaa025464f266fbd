"""What POST /preprocess does, as a service of Flask and Pillow: the comparison of tests/load/preprocess.sh.

Served by gunicorn: `gunicorn --workers 2 pillow_service:app`.
"""

import base64
import io
from datetime import datetime, timezone
from uuid import uuid4

from flask import Flask, jsonify, request
from PIL import Image, ImageOps, ImageStat

app = Flask(__name__)


@app.post("/preprocess")
def preprocess():
    body = request.get_json()
    size = (body.get("width", 224), body.get("height", 224))
    with Image.open(io.BytesIO(base64.b64decode(body["image"]))) as image:
        original = {"width": image.width, "height": image.height, "format": image.format, "mode": image.mode}
        resized = ImageOps.exif_transpose(image).convert("RGB").resize(size, Image.Resampling.BICUBIC)
    # Statistics over all channels together, from the histograms of each.
    levels = [sum(counts) for counts in zip(*(resized.histogram()[c * 256 : c * 256 + 256] for c in range(3)))]
    gathered = ImageStat.Stat(levels)
    jpeg = io.BytesIO()
    resized.save(jpeg, "JPEG", quality=90)
    return jsonify(
        preprocessed_image=base64.b64encode(jpeg.getvalue()).decode("ascii"),
        features={
            "width": size[0],
            "height": size[1],
            "mean_brightness": gathered.mean[0],
            "std_brightness": gathered.stddev[0],
            "min_pixel": gathered.extrema[0][0],
            "max_pixel": gathered.extrema[0][1],
        },
        original=original,
        request_id=body.get("request_id") or str(uuid4()),
        timestamp=datetime.now(timezone.utc).isoformat(),
    )


@app.get("/ready")
def ready():
    return "ready"
