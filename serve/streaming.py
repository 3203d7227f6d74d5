"""Weights that go from the store into the engine without touching the disk: ``load_format: runai_streamer``.

A start is then as fast as the store, and a node needs no room for the model.  The price, said plainly: nobody hashes
what is streamed.  Neither the streamer nor vLLM compares a byte with anything.  What remains is a look before each
start: every file of weights is asked for by HEAD, and must have the size of the manifest and the store's CRC64NVME
or, where it keeps none, the ETag under which the mirror verified it.  That finds objects that were lost, replaced or
cut off.  It does not find bytes that change in the store without its notice, or on the way, or between the look and
the reading.  Who needs that leaves the format out, and every byte is hashed.

Everything but the weights (configuration, tokenizer, templates) is fetched and hashed as always, into a folder of its
own, because the commit's own folder means a whole copy.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

from serve.download import DOWNLOADS
from serve.manifest import File, WeightsError
from serve.sources import Looked, S3Source, open_source
from serve.weights import Progress, commit_of, list_files, make_local

WEIGHTS = ".safetensors"


def prepare(url: str, cache: Path) -> Path:
    """Fetch all but the weights of the commit at ``url`` and return their folder; the weights are asked for by HEAD.

    Raises ``WeightsError`` as ``serve.weights.fetch`` does, and when the store does not vouch for the weights.
    """
    with closing(open_source(url, DOWNLOADS)) as source:
        if not isinstance(source, S3Source):
            raise WeightsError(f"Weights are streamed from s3:// alone, not from {url}: leave load_format out.")
        files = list_files(source, url)
        weights = [file for file in files if file.path.endswith(WEIGHTS)]
        _look_at(source, url, weights)
        others = [file for file in files if file not in weights]
        return make_local(source, others, cache / f"{commit_of(url)}-streamed", Progress())


def stream_environment(given: Mapping[str, str]) -> dict[str, str]:
    """Return the variables by which the streamer finds the S3 server that boto3 finds by ``given``."""
    endpoint = given.get("AWS_ENDPOINT_URL_S3") or given.get("AWS_ENDPOINT_URL")
    return {"AWS_ENDPOINT_URL": endpoint, "RUNAI_STREAMER_S3_USE_VIRTUAL_ADDRESSING": "0"} if endpoint else {}


def objection(file: File, found: Looked) -> str | None:
    """Return what speaks against an object being the one that was mirrored, as the end of a sentence."""
    if found.size != file.size:
        return f"has {found.size:,} bytes instead of {file.size:,}"
    if found.crc64nvme and file.crc64nvme:
        return None if found.crc64nvme == file.crc64nvme else "has another CRC64NVME than the manifest"
    if file.etag is None:
        return "has no checksum in its manifest, so it cannot be streamed: mirror the commit again"
    return None if found.etag == file.etag else "is not the object that was mirrored, and has no CRC64NVME to tell"


def _look_at(source: S3Source, url: str, weights: Sequence[File]) -> None:
    """Raise ``WeightsError`` unless the store holds exactly these weights, as far as it knows."""

    def look(file: File) -> str | None:
        try:
            return objection(file, source.look(file.path))
        except FileNotFoundError:
            return "is missing"

    try:
        # The streamer goes by what it finds in the folder, not by an index.
        unlisted = {name for name in source.names() if name.endswith(WEIGHTS)} - {file.path for file in weights}
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            objections = list(pool.map(look, weights))
    except OSError as error:
        raise WeightsError(f"The weights at {url} cannot be looked at: {error}.") from error
    if unlisted:
        raise WeightsError(f"{min(unlisted)} at {url} is not in the manifest, and would be loaded with the weights.")
    for file, said in zip(weights, objections, strict=True):
        if said:
            raise WeightsError(f"{file.path} at {url} {said}.")
