"""NVIDIA's tritonclient, as it is on PyPI, against model-serving.

    triton_client.py GRPC_ADDRESS HTTP_ADDRESS PHOTO

Asks for everything that the client can ask for, and prints what came back as one JSON document. What must not work
is asked for, too: its errors are printed.
"""

import asyncio
import json
import queue
import sys

import numpy as np
import tritonclient.grpc as grpc_client
import tritonclient.grpc.aio as grpc_aio
import tritonclient.http as http_client
import tritonclient.http.aio as http_aio
from PIL import Image
from tritonclient.utils import InferenceServerException

MODEL = "vehicle-detector"
PATIENCE_SECONDS = 100


def pixels_of(photo, rows):
    with Image.open(photo) as image:
        row = np.asarray(image.convert("RGB").resize((300, 300), Image.Resampling.BILINEAR), dtype=np.uint8)
    return np.stack([row] * rows)


def detections(result):
    """Class names by row."""
    rows = result.as_numpy("detections")
    return [[found["class_name"] for found in json.loads(row)] for row in rows.reshape(-1)]


def refusal(call):
    """What the server says to a call that must fail."""
    try:
        call()
    except InferenceServerException as error:
        return {"status": str(error.status()), "message": error.message()}
    return {"status": "OK", "message": ""}


def tensor(module, pixels, **options):
    given = module.InferInput("images", list(pixels.shape), "UINT8")
    given.set_data_from_numpy(pixels, **options)
    return given


def encoded(module, images):
    given = module.InferInput("images", [len(images), 1], "BYTES")
    given.set_data_from_numpy(np.array(images, dtype=np.object_).reshape(-1, 1))
    return given


def about(client, as_json):
    """What both faces say of server and model; `as_json` asks the gRPC client for dictionaries."""
    options = {"as_json": True} if as_json else {}
    metadata = client.get_model_metadata(MODEL, **options)
    config = client.get_model_config(MODEL, **options)
    statistics = client.get_inference_statistics(MODEL, **options)["model_stats"][0]
    index = client.get_model_repository_index(**options)
    return {
        "live": client.is_server_live(),
        "ready": client.is_server_ready(),
        "model_ready": client.is_model_ready(MODEL),
        "no_model_ready": client.is_model_ready("no-such"),
        "server": client.get_server_metadata(**options)["name"],
        "inputs": [name_and_type(given) for given in metadata["inputs"]],
        "outputs": [name_and_type(given) for given in metadata["outputs"]],
        "max_batch_size": config.get("config", config)["max_batch_size"],
        "inferences": int(statistics["inference_count"]),
        "successes": int(statistics["inference_stats"]["success"]["count"]),
        "index": (index["models"] if as_json else index)[0]["name"],
    }


def name_and_type(given):
    return [given["name"], given["datatype"], [int(size) for size in given["shape"]]]


def infer_both(module, client, pixels, photo, result):
    """What both clients ask in the same words."""
    wanted = [module.InferRequestedOutput("detections")]
    answer = client.infer(MODEL, [tensor(module, pixels)], outputs=wanted, request_id="one")
    response = answer.get_response(as_json=True) if module is grpc_client else answer.get_response()
    result["id"] = response["id"]
    result["version"] = response["model_version"]
    result["rows"] = detections(answer)

    everything = client.infer(MODEL, [tensor(module, pixels[:1])])
    result["shapes"] = {name: list(everything.as_numpy(name).shape) for name in ("boxes", "scores")}

    top = [module.InferRequestedOutput("scores", class_count=3)]
    ranked = client.infer(MODEL, [tensor(module, pixels[:1])], outputs=top).as_numpy("scores")
    result["classes"] = [text.decode() for text in ranked.reshape(-1)]
    scores = everything.as_numpy("scores").reshape(-1)
    best = int(np.argmax(scores))
    result["best"] = f"{scores[best]:.6f}:{best}"

    images = client.infer(MODEL, [encoded(module, [photo, photo])], outputs=wanted)
    result["images"] = detections(images)
    result["parameters"] = client.infer(
        MODEL, [tensor(module, pixels[:1])], outputs=wanted, priority=1, timeout=90_000_000, parameters={"colour": "red"}
    ).get_response()
    if module is grpc_client:
        result["parameters"] = result["parameters"].parameters["colour"].string_param
    else:
        result["parameters"] = result["parameters"]["parameters"]["colour"]

    result["refusals"] = {
        "bad_image": refusal(lambda: client.infer(MODEL, [encoded(module, [photo, b"no image"])])),
        "no_model": refusal(lambda: client.infer("no-such", [tensor(module, pixels[:1])])),
        "no_output": refusal(
            lambda: client.infer(
                MODEL, [tensor(module, pixels[:1])], outputs=[module.InferRequestedOutput("no-such")]
            )
        ),
        "shape": refusal(lambda: client.infer(MODEL, [tensor(module, pixels[:, :100])])),
        "timeout": refusal(lambda: client.infer(MODEL, [tensor(module, pixels[:1])], timeout=1)),
        "sequence": refusal(
            lambda: client.infer(MODEL, [tensor(module, pixels[:1])], sequence_id=7, sequence_start=True)
        ),
        "shared_memory": refusal(lambda: client.register_system_shared_memory("region", "/region", 64)),
        "shared_memory_status": refusal(client.get_system_shared_memory_status),
        "cuda_shared_memory": refusal(client.get_cuda_shared_memory_status),
    }


def over_grpc(address, pixels, photo):
    result = {}
    with grpc_client.InferenceServerClient(address) as client:
        infer_both(grpc_client, client, pixels, photo, result)
        wanted = [grpc_client.InferRequestedOutput("detections")]
        for algorithm in ("gzip", "deflate"):
            answer = client.infer(
                MODEL, [tensor(grpc_client, pixels)], outputs=wanted, compression_algorithm=algorithm
            )
            result[algorithm] = detections(answer)

        answers = queue.Queue()
        for number in range(8):
            client.async_infer(
                MODEL,
                [tensor(grpc_client, pixels[:1])],
                lambda result, error: answers.put((result, error)),
                outputs=wanted,
                request_id=str(number),
            )
        async_answers = [answers.get(timeout=PATIENCE_SECONDS) for _ in range(8)]
        result["async"] = sorted(answer.get_response().id for answer, error in async_answers if error is None)

        client.start_stream(callback=lambda result, error: answers.put((result, error)))
        for number in range(6):
            # The third asks for an output that is not there; the stream goes on.
            names = ["no-such"] if number == 2 else ["detections"]
            outputs = [grpc_client.InferRequestedOutput(name) for name in names]
            client.async_stream_infer(
                MODEL, [tensor(grpc_client, pixels[:1])], outputs=outputs, request_id=str(number)
            )
        stream = [answers.get(timeout=PATIENCE_SECONDS) for _ in range(6)]
        client.stop_stream()
        result["stream"] = [
            answer.get_response().id if error is None else error.message() for answer, error in stream
        ]
        result["about"] = about(client, as_json=True)
    result["aio"] = asyncio.run(aio(lambda: grpc_aio.InferenceServerClient(address), grpc_client, pixels))
    return result


def over_http(address, pixels, photo):
    result = {}
    with http_client.InferenceServerClient(address, concurrency=4, network_timeout=PATIENCE_SECONDS) as client:
        infer_both(http_client, client, pixels, photo, result)
        for given in (True, False):
            for returned in (True, False):
                wanted = [http_client.InferRequestedOutput("detections", binary_data=returned)]
                inputs = [tensor(http_client, pixels, binary_data=given)]
                result[f"binary {given} {returned}"] = detections(client.infer(MODEL, inputs, outputs=wanted))
        wanted = [http_client.InferRequestedOutput("boxes", binary_data=False)]
        floats = client.infer(MODEL, [tensor(http_client, pixels[:1])], outputs=wanted).as_numpy("boxes")
        exact = client.infer(MODEL, [tensor(http_client, pixels[:1])]).as_numpy("boxes")
        result["floats_are_exact"] = bool(np.array_equal(floats, exact))

        wanted = [http_client.InferRequestedOutput("detections")]
        for algorithm in ("gzip", "deflate"):
            answer = client.infer(
                MODEL,
                [tensor(http_client, pixels)],
                outputs=wanted,
                request_compression_algorithm=algorithm,
                response_compression_algorithm=algorithm,
            )
            result[algorithm] = detections(answer)

        pending = [
            client.async_infer(
                MODEL, [tensor(http_client, pixels[:1])], outputs=wanted, request_id=str(number)
            )
            for number in range(8)
        ]
        result["async"] = sorted(one.get_result().get_response()["id"] for one in pending)
        result["about"] = about(client, as_json=False)
    result["aio"] = asyncio.run(aio(lambda: http_aio.InferenceServerClient(address), http_client, pixels))
    return result


async def aio(connect, module, pixels):
    """Eight inferences at once through the client's asyncio face."""
    async with connect() as client:
        wanted = [module.InferRequestedOutput("detections")]
        calls = (client.infer(MODEL, [tensor(module, pixels[:1])], outputs=wanted) for _ in range(8))
        return [detections(answer) for answer in await asyncio.gather(*calls)]


def main():
    grpc_address, http_address, path = sys.argv[1:]
    with open(path, "rb") as file:
        photo = file.read()
    pixels = pixels_of(path, 2)
    json.dump(
        {"grpc": over_grpc(grpc_address, pixels, photo), "http": over_http(http_address, pixels, photo)}, sys.stdout
    )


if __name__ == "__main__":
    main()
