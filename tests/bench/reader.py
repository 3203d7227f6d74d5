"""Reads a mirrored commit as a node does, or without verification; run by the payload's interpreter.

``reader.py fetch|read|copy URL FOLDER`` prints the seconds it took, imports and start left out.  ``fetch`` is the
node's own code: to the disk, every sha256 compared.  ``read`` takes the same objects over as many connections and
throws the bytes away, which is the store's own rate; ``copy`` writes them to the disk and compares nothing.
"""

import json
import sys
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import boto3

from serve.download import DOWNLOADS, RANGE_BYTES
from serve.weights import fetch

PIECE_BYTES = 8 * 2**20


def main() -> None:
    """Do what the command line says and print the seconds."""
    how, url, folder = sys.argv[1], sys.argv[2], Path(sys.argv[3])
    begun = time.perf_counter()
    if how == "fetch":
        fetch(url, folder)
    else:
        _read(url, folder if how == "copy" else None)
    sys.stdout.write(json.dumps({"seconds": time.perf_counter() - begun}))


def _read(url: str, folder: Path | None) -> None:
    """Take every object in ranges, by signed links and straight into buffers: no client is faster."""
    where = urlsplit(url)
    client: Any = boto3.client("s3")
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        taken = []
        for item in client.list_objects_v2(Bucket=where.netloc, Prefix=f"{where.path.lstrip('/')}/")["Contents"]:
            link = client.generate_presigned_url("get_object", Params={"Bucket": where.netloc, "Key": item["Key"]})
            target = folder / item["Key"].rpartition("/")[2] if folder else Path("/dev/null")
            target.touch()
            firsts = range(0, item["Size"], RANGE_BYTES)
            taken += [pool.submit(_take, link, target, first, item["Size"]) for first in firsts]
        for each in taken:
            each.result()


def _take(link: str, target: Path, first: int, size: int) -> None:
    buffer = memoryview(bytearray(PIECE_BYTES))
    last = min(first + RANGE_BYTES, size) - 1
    request = urllib.request.Request(link, headers={"Range": f"bytes={first}-{last}"})  # noqa: S310 - http, on loopback
    with urllib.request.urlopen(request) as answer, target.open("r+b", buffering=0) as stream:  # noqa: S310 - as above
        stream.seek(first)
        while count := answer.readinto(buffer):
            stream.write(buffer[:count])


if __name__ == "__main__":
    main()
