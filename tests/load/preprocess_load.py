"""A closed loop on POST /preprocess of several services in turn.

    preprocess_load.py SECONDS ROUNDS NAME=URL... -- PHOTO...

Eight callers each send their next request when they have their answer. In every round each service is asked for
SECONDS with each photo, so that a machine that runs faster and slower by the minute is the same for all. Prints images
per second (the median over the rounds), and ratios to the last service within each round.
"""

import base64
import http.client
import json
import statistics
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

CALLERS = 8


def ask_until(url, body, end, answered, failed):
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=60)
    while time.monotonic() < end:
        connection.request("POST", "/preprocess", body, {"Content-Type": "application/json"})
        response = connection.getresponse()
        text = response.read()
        if response.status == 200:
            answered.append(time.monotonic())
        else:
            failed.append(text)
    connection.close()


def rate(url, body, seconds):
    answered, failed = [], []
    start = time.monotonic()
    callers = [
        threading.Thread(target=ask_until, args=(url, body, start + seconds, answered, failed)) for _ in range(CALLERS)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    if failed:
        sys.exit(f"{url} refused {len(failed)} images, first with {failed[0][:200]!r}")
    if not answered:
        sys.exit(f"{url} answered nothing within {seconds} s")
    # Those under way at the end were answered after it.
    return len(answered) / (max(answered) - start)


def main():
    middle = sys.argv.index("--")
    seconds, rounds = float(sys.argv[1]), int(sys.argv[2])
    services = dict(argument.split("=", 1) for argument in sys.argv[3:middle])
    last = list(services)[-1]
    for photo in map(Path, sys.argv[middle + 1 :]):
        image = base64.b64encode(photo.read_bytes()).decode("ascii")
        body = json.dumps({"image": image, "width": 300, "height": 300})
        for url in services.values():
            rate(url, body, min(seconds, 2.0))
        rates = {name: [] for name in services}
        for _ in range(rounds):
            for name, url in services.items():
                rates[name].append(rate(url, body, seconds))
        print(f"{photo.name}, {photo.stat().st_size} bytes:")
        for name, values in rates.items():
            ratios = [ours / theirs for ours, theirs in zip(values, rates[last])]
            print(f"  {name:8} {statistics.median(values):8.1f} images/s   {statistics.median(ratios):.2f} times {last}")


if __name__ == "__main__":
    main()
