"""The road from a Hub to a store with faults along it, and what must hold at its end whatever happened.

What must hold is read past our own code: the store's objects and open uploads by boto3, the bytes by hashlib.
"""

import hashlib
import json
import traceback
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from tasks._stores.store import open_store
from tasks._weights.collect import collect
from tasks._weights.hub import Hub
from tasks._weights.layout import claim_key, manifest_key, weights_key
from tasks._weights.mirror import Mirrored, mirror
from tasks.errors import SlipwayError
from tasks.settings import StoreSettings
from tasks.spec import Limits
from tests.fakes.hubs import MODEL, TOKEN, RunningHub
from tests.fakes.s3 import s3_client
from tests.fakes.s3_faults import S3Faults

SHARD, SMALLER = "model-1-of-2.safetensors", "model-2-of-2.safetensors"
SIZES = (5_900_000, 300_000)
"""Bytes of the shards: one of two parts, and one that takes a single request."""

PART = 5 * 2**20
"""Bytes of a part; S3's least, so that little has to move."""

FILES = frozenset({"README.md", "config.json", "tokenizer.json", SHARD, SMALLER})
"""What of the model is mirrored."""

OWN = frozenset({"hash", ".manifest.json"})


@dataclass
class Road:
    """A Hub, a model in ``folder`` to publish there, and a store that is reached through ``s3``'s faults.

    ``sources`` holds the sha256 of each file by commit; ``told`` is what errors said and what small objects held.
    """

    hub: RunningHub
    folder: Path
    settings: StoreSettings
    direct: StoreSettings
    s3: S3Faults
    sources: dict[str, dict[str, str]] = field(default_factory=dict)
    told: list[str] = field(default_factory=list)

    def publish(self, **options: bool | str | None) -> str:
        """Publish the folder and return the commit."""
        commit = self.hub.publish(self.folder, **options)
        paths = [path for path in self.folder.rglob("*") if path.is_file()]
        self.sources[commit] = {str(path.relative_to(self.folder)): sha256(path.read_bytes()) for path in paths}
        return commit

    def mirror(self, commit: str, **options: Any) -> Mirrored:
        """Mirror a commit as one process would, and note what its error says."""
        with self.connected() as hub, closing(open_store(self.settings)) as store:
            try:
                return mirror(hub, store, MODEL, commit, Limits(), **options)
            except SlipwayError as error:
                self.told.append("".join(traceback.format_exception(error)) + error.remedy)
                raise

    @contextmanager
    def connected(self) -> Iterator[Hub]:
        """Give a client of the Hub that may read everything."""
        with Hub(self.hub.endpoint, SecretStr(TOKEN)) as hub:
            yield hub

    def fetched(self, file: str) -> list[str]:
        """Return the ranges in which a file's bytes were asked for, but for the look at its header."""
        spans = self.hub.faults.asked(f"/{file}")
        return [span for span in spans if not is_header(span)]

    def link(self, file: str) -> str:
        """Return the path at which the Hub's second host serves a large file."""
        return f"/lfs/{sha256((self.folder / file).read_bytes())}"

    def objects(self) -> dict[str, bytes]:
        """Return all that the store holds, by key."""
        bucket, _, prefix = self.direct.url.removeprefix("s3://").partition("/")
        with s3_client(self.direct) as client:
            pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=f"{prefix}/")
            keys = [item["Key"] for page in pages for item in page.get("Contents", [])]
            read = {key: client.get_object(Bucket=bucket, Key=key)["Body"].read() for key in keys}
        return {key.removeprefix(f"{prefix}/"): data for key, data in read.items()}

    def claim(self, commit: str) -> bytes:
        """Return the claim on a commit as it is stored; nothing where there is none."""
        bucket, _, prefix = self.direct.url.removeprefix("s3://").partition("/")
        with s3_client(self.direct) as client:
            try:
                return client.get_object(Bucket=bucket, Key=f"{prefix}/{claim_key(MODEL, commit)}")["Body"].read()
            except client.exceptions.NoSuchKey:
                return b""

    def uploads(self) -> list[tuple[str, str]]:
        """Return key and id of each upload that is neither completed nor aborted."""
        bucket, _, prefix = self.direct.url.removeprefix("s3://").partition("/")
        with s3_client(self.direct) as client:
            found = client.list_multipart_uploads(Bucket=bucket, Prefix=f"{prefix}/").get("Uploads", [])
        return [(upload["Key"].removeprefix(f"{prefix}/"), upload["UploadId"]) for upload in found]


def assert_sound(road: Road, *, published: str = "", unpublished: str = "") -> None:
    """Assert what must hold of the store when no mirror is at work.

    A manifest lies over exactly its files, with the bytes of the Hub's commit, and nothing is left of the work on
    it.  Without a manifest every object and every open upload is in the record of a claim that nobody holds, and a
    whole file has the right bytes.  ``published`` is there and ``unpublished`` is not.  What small objects hold is
    kept for ``assert_no_secret``.
    """
    objects, uploads = road.objects(), road.uploads()
    road.told += [data.decode(errors="replace") for data in objects.values() if len(data) < 2**16]
    folders: defaultdict[str, dict[str, bytes]] = defaultdict(dict)
    claims = {}
    for key, data in objects.items():
        match key.split("/", 4):
            case ["mirroring", *_]:
                claims[key.rpartition("/")[2].removesuffix(".json")] = json.loads(data)
            case ["gc.json"] | ["models", _, _, "refs", _]:
                continue
            case ["models", _, _, commit, path]:
                folders[commit][path] = data
            case _:
                raise AssertionError(f"{key} belongs to nothing")
    begun = {(commit, key.rpartition("/")[2], upload) for key, upload in uploads for commit in [key.split("/")[3]]}
    for commit, files in folders.items():
        if ".manifest.json" in files:
            assert_published(files, road.sources[commit], commit)
            assert commit not in claims, "a published commit has no work left"
        else:
            assert commit in claims, f"{sorted(files)} of {commit} belong to nobody"
    recorded = set()
    for commit, claim in claims.items():
        assert claim["held"] is False
        assert_kept(folders[commit], road.sources[commit], claim)
        recorded |= {(commit, f["path"], f["upload"]["id"]) for f in claim["files"] if f.get("upload")}
    assert begun == recorded, "every open upload is in a claim, and every one in a claim is open"
    there = {commit for commit, files in folders.items() if ".manifest.json" in files}
    assert published in there | {""}
    assert unpublished not in there


def assert_never_wrong(road: Road) -> None:
    """Assert what holds even at the moment of a death: a manifest is there last, over right bytes."""
    objects = road.objects()
    for commit in road.sources:
        if manifest_key(MODEL, commit) in objects:
            folder = f"{weights_key(MODEL, commit)}/"
            kept = {key.removeprefix(folder): data for key, data in objects.items() if key.startswith(folder)}
            assert_published(kept, road.sources[commit], commit)


def assert_published(files: Mapping[str, bytes], source: Mapping[str, str], commit: str) -> None:
    """Assert that a manifest lies over exactly its files, with the bytes of the Hub's commit."""
    manifest = json.loads(files[".manifest.json"])
    listed = {file["path"]: (file["size"], file["sha256"]) for file in manifest["files"]}

    assert manifest["commit"] == commit == files["hash"].decode()
    assert set(listed) == set(files) - OWN
    assert {path: (len(files[path]), sha256(files[path])) for path in listed} == listed
    assert {path: digest for path, (_, digest) in listed.items()} == {path: source[path] for path in listed}


def assert_kept(files: Mapping[str, bytes], source: Mapping[str, str], claim: dict[str, Any]) -> None:
    """Assert that a claim records all that lies there, and that it is right."""
    whole = {file["path"]: file["entry"]["sha256"] for file in claim["files"] if file.get("entry")}

    assert set(whole) == set(files) - OWN, "every object is in the claim's record"
    assert {path: sha256(files[path]) for path in whole} == whole == {path: source[path] for path in whole}


def assert_no_secret(road: Road, *texts: str) -> None:
    """Assert that neither ``texts`` nor what the road was told hold a secret or a signed link."""
    assert road.direct.secret_key
    secrets = (TOKEN, road.direct.secret_key.get_secret_value(), "signature=", "X-Amz-Signature")
    for text in (*texts, *road.told):
        assert not [secret for secret in secrets if secret in text], text


def sweep(road: Road) -> None:
    """Collect garbage once, without any grace; what is published is only marked by that."""
    with closing(open_store(road.settings)) as store:
        collect(store, delete=True, grace_s=0)


def is_header(span: str) -> bool:
    """Say whether a range is that of the look at a shard's header."""
    return span.startswith("bytes=0-") and span != "bytes=0-"


def sha256(data: bytes) -> str:
    """Return the hash as the Hub writes it."""
    return hashlib.sha256(data).hexdigest()
