"""What this machine and these servers can do at most, so that a rate can be judged.

``python -m tests.bench.ceilings discard|hash LINK...`` takes links from the Hub, several at once, and throws the
bytes away or hashes them; ``put URL BYTES COUNT`` sends objects from memory to the store, hashing and checking
nothing.  Each prints the seconds it took, imports left out.
"""

import hashlib
import json
import os
import sys
import time
import urllib.request
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import boto3
from botocore.config import Config

from tests.bench.contenders import STREAMS
from tests.bench.data import Published
from tests.bench.measuring import await_quiet, measure
from tests.bench.running import Bench
from tests.bench.servers import SEAWEED

PIECE_BYTES = 2**20
PART_BYTES = 8 * 2**20
WAYS = {
    "discard": f"GET from the Hub over {STREAMS} connections, thrown away",
    "hash": f"the same with sha256 of every file, a thread for each of {STREAMS}",
    "put": f"multipart PUT to SeaweedFS from memory, {STREAMS} parts of 8 MiB at once, unsigned bodies, no checksum",
}


def rates(bench: Bench, published: Published) -> dict[str, float]:
    """Return the bytes per second of each way, for the large files of ``published``."""
    large = [file for file in published.files if file.large]
    size = sum(file.size for file in large)
    with bench.target(SEAWEED) as store, bench.scratch() as folder:
        job = bench.job(published, store, folder)
        links = tuple(job.link(file.path) for file in large)
        arguments = {"discard": links, "hash": links, "put": (job.address, str(large[0].size), str(len(large)))}
        found = {}
        for way, words in arguments.items():
            command = job.own_command(sys.executable, "-m", "tests.bench.ceilings", way, *words)
            await_quiet(bench.patience_s)
            log = folder.with_name(f"log-{way}")
            measure([command], log)
            found[way] = size / json.loads(log.read_text())["seconds"]
            bench.say(f"ceiling: {way:31} {found[way] / 1e6:12.0f} MB/s")
    return found


def main() -> None:
    """Do what the command line says and print the seconds."""
    way, *words = sys.argv[1:]
    begun = time.perf_counter()
    if way == "put":
        _put(words[0], int(words[1]), int(words[2]))
    else:
        _get(words, hashed=way == "hash")
    sys.stdout.write(json.dumps({"seconds": time.perf_counter() - begun}))


def _get(links: Sequence[str], *, hashed: bool) -> None:
    def take(link: str) -> None:
        buffer, digest = memoryview(bytearray(PIECE_BYTES)), hashlib.sha256()
        with urllib.request.urlopen(link) as answer:  # noqa: S310 - http, on loopback
            while count := answer.readinto(buffer):
                if hashed:
                    digest.update(buffer[:count])

    with ThreadPoolExecutor(STREAMS) as pool:
        list(pool.map(take, links))


def _put(url: str, size: int, count: int) -> None:
    bucket, _, prefix = url.removeprefix("s3://").partition("/")
    config = Config(request_checksum_calculation="when_required", s3={"payload_signing_enabled": False})
    client = boto3.client("s3", config=config)
    part = os.urandom(PART_BYTES)

    def send(key: str, upload: str, number: int) -> Any:
        body = part[: size - (number - 1) * PART_BYTES]
        answer = client.upload_part(Bucket=bucket, Key=key, UploadId=upload, PartNumber=number, Body=body)
        return {"PartNumber": number, "ETag": answer["ETag"]}

    with ThreadPoolExecutor(STREAMS) as pool:
        for key in (f"{prefix}/{number}" for number in range(count)):
            upload = client.create_multipart_upload(Bucket=bucket, Key=key)["UploadId"]
            numbers = range(1, -(-size // PART_BYTES) + 1)
            parts = list(pool.map(lambda number: send(key, upload, number), numbers))  # noqa: B023 - used at once
            client.complete_multipart_upload(
                Bucket=bucket, Key=key, UploadId=upload, MultipartUpload={"Parts": parts}
            )


if __name__ == "__main__":
    main()
