"""A gRPC client of model-serving, generated from proto/proto/model_serving.proto by grpc_tools.

    model_client.py ADDRESS predict PHOTO     detections through Predict with base64
    model_client.py ADDRESS deadline PHOTO    the status of a Predict that may take a millisecond
    model_client.py ADDRESS health            HealthCheck, and Check and Watch of grpc.health.v1
    model_client.py ADDRESS services          the services that reflection lists

Prints one JSON document.
"""

import base64
import json
import sys

import grpc
import model_serving_pb2
import model_serving_pb2_grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

PATIENCE_SECONDS = 60


def request_of(photo):
    with open(photo, "rb") as file:
        text = base64.encodebytes(file.read()).decode("ascii")  # with line breaks, as MIME has them
    return model_serving_pb2.PredictionRequest(request_id="python-1", image_data=text, user_id="python")


def predict(channel, photo):
    stub = model_serving_pb2_grpc.ModelServingStub(channel)
    answer = stub.Predict(request_of(photo), timeout=PATIENCE_SECONDS)
    return {
        "request_id": answer.request_id,
        "model_name": answer.model_name,
        "model_version": answer.model_version,
        "inference_time_ms": answer.inference_time_ms,
        "detections": [
            {
                "class_name": found.class_name,
                "confidence": found.confidence,
                "bbox": {side: getattr(found.bbox, side) for side in ("x_min", "y_min", "x_max", "y_max")},
            }
            for found in answer.detections
        ],
    }


def deadline(channel, photo):
    stub = model_serving_pb2_grpc.ModelServingStub(channel)
    try:
        stub.Predict(request_of(photo), timeout=0.001)
    except grpc.RpcError as error:
        return {"code": error.code().name}
    return {"code": "OK"}


def health(channel):
    stub = health_pb2_grpc.HealthStub(channel)
    service = health_pb2.HealthCheckRequest(service="model_serving.ModelServing")
    name = health_pb2.HealthCheckResponse.ServingStatus.Name
    watch = stub.Watch(service, timeout=PATIENCE_SECONDS)
    first = name(next(watch).status)
    watch.cancel()
    own = model_serving_pb2_grpc.ModelServingStub(channel).HealthCheck(model_serving_pb2.HealthCheckRequest())
    return {
        "own": own.status,
        "check": name(stub.Check(health_pb2.HealthCheckRequest(), timeout=PATIENCE_SECONDS).status),
        "check_service": name(stub.Check(service, timeout=PATIENCE_SECONDS).status),
        "watch": first,
    }


def services(channel):
    database = ProtoReflectionDescriptorDatabase(channel)
    file = database.FindFileContainingSymbol("model_serving.ModelServing")
    return {"services": sorted(database.get_services()), "file": file.name}


def main():
    address, command, *arguments = sys.argv[1:]
    commands = {"predict": predict, "deadline": deadline, "health": health, "services": services}
    # A proxy that the environment names knows nothing of this machine's own address.
    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        grpc.channel_ready_future(channel).result(timeout=PATIENCE_SECONDS)
        json.dump(commands[command](channel, *arguments), sys.stdout)


if __name__ == "__main__":
    main()
