"""Asks several model-servings at once, as gRPC's own round_robin balances them, until its input ends.

    balanced_client.py PHOTO ADDRESS ADDRESS...

Prints a number for each answered call, one a line, so that whoever started it sees that it goes on; at the end one JSON
document with the failures.
"""

import json
import sys
import threading

import grpc
import model_serving_pb2
import model_serving_pb2_grpc

photo, addresses = sys.argv[1], sys.argv[2:]
with open(photo, "rb") as file:
    image = file.read()
# gRPC's own health checks (grpc.health.v1, Watch): an address that is starting or about to stop is passed over.
service = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": "model_serving.ModelServing"},
}
options = [
    ("grpc.service_config", json.dumps(service)),
    # Of a list of addresses gRPC makes an authority with `%2C` in it, which is none, and HTTP/2 servers in Rust refuse.
    ("grpc.default_authority", "model-serving"),
    # As most clients are set up in production: soon back at an address that was gone.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
]
lock, done, answered, failures = threading.Lock(), threading.Event(), 0, []


def ask(stub):
    global answered
    while not done.is_set():
        try:
            request = model_serving_pb2.PredictionRequest(image=image, user_id="balanced")
            # While no address is connected (one has just gone, and the other one's turn to be tried again has not come), a call waits
            # for one, within its deadline. An answer of UNAVAILABLE is still a failure.
            stub.Predict(request, timeout=60, wait_for_ready=True)
        except grpc.RpcError as error:
            with lock:
                failures.append(f"{error.code().name}: {error.details()}")
            continue
        with lock:
            answered += 1
            print(answered, flush=True)


with grpc.insecure_channel("ipv4:" + ",".join(addresses), options=options) as channel:
    threads = [threading.Thread(target=ask, args=(model_serving_pb2_grpc.ModelServingStub(channel),)) for _ in range(3)]
    for thread in threads:
        thread.start()
    sys.stdin.read()
    done.set()
    for thread in threads:
        thread.join()
print(json.dumps({"answered": answered, "failures": failures}))
