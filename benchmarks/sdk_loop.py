"""The floor for generations: the plain SDK in a loop of threads, without a server, a database or a check.

`python -m benchmarks.sdk_loop --threads 10 --count 300` prints one line of JSON: the wall time and each call's time,
both in seconds. Where to ask is in OPENAI_BASE_URL, where to write in STORAGE_ROOT.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import openai


def main() -> None:
    """Warm up, make the images when a line comes on standard input, and wait for another before it ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--count", type=int, default=10)
    options = parser.parse_args()
    client, folder = openai.OpenAI(), Path(os.environ["STORAGE_ROOT"])

    def make(number: int) -> float:
        started = time.perf_counter()
        answer = client.images.generate(model="gpt-image-2.6-flare", prompt="A harbour", size="1536x1024")
        assert answer.data
        (folder / f"{number}.png").write_bytes(base64.b64decode(answer.data[0].b64_json or ""))
        return time.perf_counter() - started

    make(-1)  # imports and the first connection are not what is measured
    print("ready", flush=True)
    input()
    started = time.perf_counter()
    with ThreadPoolExecutor(options.threads) as pool:
        taken = list(pool.map(make, range(options.count)))
    print(json.dumps({"seconds": time.perf_counter() - started, "taken": taken}), flush=True)
    input()  # until its CPU time and memory have been read


if __name__ == "__main__":
    main()
