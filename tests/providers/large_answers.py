"""Run as a process by `test_memory`: generate large images from threads of their own, and print the memory in MB."""

from __future__ import annotations

import sys
import threading

from images.providers import Deadline, ImageRequest
from images.providers.base import ImageProvider
from images.providers.gemini import GeminiProvider
from images.providers.http import bounded_memory
from images.providers.openai import OpenAIProvider


def memory() -> dict[str, int]:
    """What the process holds now and held at the most, in MB."""
    with open("/proc/self/status") as file:
        lines = dict(line.split(":", 1) for line in file)
    return {name: int(lines[name].split()[0]) // 1024 for name in ("VmRSS", "VmHWM")}


def main() -> None:
    vendor, url, count = sys.argv[1:]
    options = {"api_key": "sk-x", "model": "m", "base_url": url, "max_image_bytes": 50_000_000}
    provider: ImageProvider = OpenAIProvider(options) if vendor == "openai" else GeminiProvider(options)
    provider.warm_up()
    before = memory()["VmRSS"]
    made: list[int] = []

    def generate() -> None:
        with bounded_memory():
            made.append(len(provider.generate(ImageRequest(prompt="x", deadline=Deadline.after(120))).data))

    threads = [threading.Thread(target=generate) for _ in range(int(count))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [30_000_000] * int(count)
    after = memory()
    print(before, after["VmRSS"], after["VmHWM"])


if __name__ == "__main__":
    main()
