"""Writes the messages that ghz sends, as JSON, into a folder: data.py PHOTO MODEL FOLDER. Standard library only."""

import base64
import json
import pathlib
import random
import sys

photo, model, folder = pathlib.Path(sys.argv[1]).read_bytes(), sys.argv[2], pathlib.Path(sys.argv[3])
folder.mkdir(parents=True, exist_ok=True)
text = base64.b64encode(photo).decode()
# What a tensor holds makes no difference to how long a network runs: noise, the same each time.
pixels = random.Random(1).randbytes(300 * 300 * 3)
infer = {
    "model_name": model,
    "inputs": [{"name": "images", "datatype": "UINT8", "shape": [1, 300, 300, 3]}],
    "outputs": [{"name": "detections"}],
    "raw_input_contents": [base64.b64encode(pixels).decode()],
}
for name, message in {
    # In ghz's JSON a field of bytes is base64; the server gets the bytes.
    "predict-bytes": {"image": text, "user_id": "load", "model_name": model},
    "predict-base64": {"image_data": text, "user_id": "load", "model_name": model},
    "model-infer": infer,
}.items():
    (folder / f"{name}.json").write_text(json.dumps(message))
