"""The files of one commit, from the store to a local folder that the engine may trust.

``fetch`` returns only when every file that the manifest lists is there with the declared size and sha256, and
nothing else is: a node checks its copy each time before an engine starts, because disks and killed downloads lie.
The folder is named after the commit, so it never means anything else.  A file appears under its name only when
its hash was right; a lock per commit lets two replicas start at once and download once.

S3 is read with the standard ``AWS_*`` variables (``AWS_ENDPOINT_URL_S3`` for a server that is not AWS).
"""

import fcntl
import hashlib
import json
import logging
import re
import shutil
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urlsplit
from uuid import uuid4

logger = logging.getLogger(__name__)

MANIFEST = ".manifest.json"
MANIFEST_VERSION = 1
CHUNK_BYTES = 8 * 2**20
DOWNLOADS = 8
# Of a whole file, when its stream breaks; boto3 repeats the request itself only until the first byte.
ATTEMPTS = 4
PAUSE_S = 0.25
PART = ".part"

# Opens one object of the commit, named relative to its folder.  Raises ``FileNotFoundError``, ``ConnectionError``
# for what may pass, or another ``OSError``, whatever the store is.
Open = Callable[[str], AbstractContextManager[IO[bytes]]]
_S3_ERRORS = {403: PermissionError, 404: FileNotFoundError}


class WeightsError(Exception):
    """The files of a commit cannot be had, or are not what the manifest declares; one sentence."""


@dataclass(frozen=True)
class File:
    """One file of the commit, as the manifest declares it."""

    path: str
    size: int
    sha256: str


def fetch(url: str, cache: Path) -> Path:
    """Make the commit at ``url`` (``s3://bucket/prefix`` or ``file:///folder``) local and return its folder.

    Raises ``WeightsError`` when the store or its manifest cannot be read, a file differs from its declaration
    after the download, or the disk has less room than the missing files need.
    """
    opener = _opener(url)
    commit = url.rstrip("/").rsplit("/", 1)[-1]
    files = read_manifest(_manifest_bytes(opener, url), commit)
    folder = cache / commit
    folder.mkdir(parents=True, exist_ok=True)
    with _locked(cache / f"{commit}.lock"):
        _tidy(folder, files)
        with ThreadPoolExecutor(DOWNLOADS) as pool:
            whole = list(pool.map(lambda file: _is_whole(folder, file), files))
            missing = [file for file, good in zip(files, whole, strict=True) if not good]
            _check_room(folder, missing)
            logger.info("%s: %d of %d files to fetch", commit, len(missing), len(files))
            list(pool.map(lambda file: _download(opener, folder, file), missing))
    return folder


def read_manifest(data: bytes, commit: str) -> list[File]:
    """Return the files listed in a manifest of ``commit``; raises ``WeightsError`` for anything unexpected."""
    try:
        manifest = json.loads(data)
        if manifest["version"] != MANIFEST_VERSION or manifest["commit"] != commit:
            raise WeightsError(
                f"The manifest is version {manifest['version']} of commit {manifest['commit']},"
                f" not version {MANIFEST_VERSION} of {commit}."
            )
        files = [File(str(f["path"]), int(f["size"]), str(f["sha256"])) for f in manifest["files"]]
    except (ValueError, KeyError, TypeError) as error:
        raise WeightsError(f"The manifest of {commit} cannot be read: {error!r}.") from error
    for file in files:
        _check_declaration(file)
    if not files or len({file.path for file in files}) != len(files):
        raise WeightsError(f"The manifest of {commit} lists no file, or one twice.")
    return files


def _check_declaration(file: File) -> None:
    path = PurePosixPath(file.path)
    plain = path.parts and str(path) == file.path and not path.is_absolute() and ".." not in path.parts
    if not plain or "\0" in file.path or file.path == MANIFEST or file.path.endswith(PART):
        raise WeightsError(f"The manifest names a path that Slipway never stores: {file.path!r}.")
    if file.size < 0 or not re.fullmatch(r"[0-9a-f]{64}", file.sha256):
        raise WeightsError(f"The manifest declares no size and sha256 for {file.path!r}.")


def _tidy(folder: Path, files: list[File]) -> None:
    """Remove what the manifest does not list: parts of killed downloads, files nobody vouches for."""
    listed = {file.path for file in files}
    for path in folder.rglob("*"):
        if path.is_symlink() or (path.is_file() and path.relative_to(folder).as_posix() not in listed):
            path.unlink()


def _is_whole(folder: Path, file: File) -> bool:
    path = folder / file.path
    if not path.is_file() or path.stat().st_size != file.size:
        return False
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != file.sha256:
        logger.warning("%s in the cache has sha256 %s instead of %s: fetching it again", path, found, file.sha256)
    return found == file.sha256


def _check_room(folder: Path, missing: list[File]) -> None:
    needed, free = sum(file.size for file in missing), shutil.disk_usage(folder).free
    if needed > free:
        raise WeightsError(
            f"The cache {folder.parent} has {free:,} bytes free, and {needed:,} are still to be fetched:"
            " free some, or point SLIPWAY_CACHE to a larger disk."
        )


def _download(opener: Open, folder: Path, file: File) -> None:
    path = folder / file.path
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{uuid4().hex}{PART}")
    try:
        size, sha256 = _copy_again(opener, file, part)
        if (size, sha256) != (file.size, file.sha256):
            raise WeightsError(
                f"{file.path} is not what the manifest declares: {size:,} bytes with sha256 {sha256}"
                f" instead of {file.size:,} with {file.sha256}."
            )
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _copy_again(opener: Open, file: File, part: Path) -> tuple[int, str]:
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return _copy(opener, file, part)
        except ConnectionError as error:
            if attempt == ATTEMPTS:
                raise WeightsError(f"The store broke off {ATTEMPTS} times: {error}.") from error
            logger.warning("%s: attempt %d broke off: %s", file.path, attempt, error)
            time.sleep(PAUSE_S * 2**attempt)
        except OSError as error:
            raise WeightsError(f"{file.path} cannot be copied to {part.parent}: {error}.") from error
    raise AssertionError("the last attempt returns or raises")


def _copy(opener: Open, file: File, part: Path) -> tuple[int, str]:
    """Write the object to ``part`` and return its size in bytes and its sha256; never more than one byte too many."""
    size, digest = 0, hashlib.sha256()
    with opener(file.path) as source, part.open("wb") as target:
        while chunk := source.read(CHUNK_BYTES):
            size += len(chunk)
            digest.update(chunk)
            if size > file.size:
                break
            target.write(chunk)
    return size, digest.hexdigest()


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock at ``path``; the kernel frees it when the process ends, however it ends."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _manifest_bytes(opener: Open, url: str) -> bytes:
    try:
        with opener(MANIFEST) as stream:
            return stream.read()
    except FileNotFoundError as error:
        raise WeightsError(f"The store has no manifest at {url}: the commit was never mirrored whole.") from error
    except OSError as error:
        raise WeightsError(f"The manifest at {url} cannot be read: {error}.") from error


def _opener(url: str) -> Open:
    parts = urlsplit(url)
    if parts.scheme == "file":
        root = Path(unquote(parts.path))
        return lambda path: (root / path).open("rb")
    if parts.scheme == "s3" and parts.netloc:
        return _s3_opener(parts.netloc, parts.path.strip("/"))
    raise WeightsError(f"Weights are read from s3:// or file://, not from {url!r}.")


def _s3_opener(bucket: str, prefix: str) -> Open:
    import boto3  # noqa: PLC0415 - half a second that a folder does not need
    from botocore.config import Config  # noqa: PLC0415 - as above
    from botocore.exceptions import BotoCoreError, ClientError  # noqa: PLC0415 - as above

    config = Config(retries={"mode": "standard", "total_max_attempts": 5}, max_pool_connections=DOWNLOADS)
    client: Any = boto3.client("s3", config=config)

    @contextmanager
    def opened(path: str) -> Iterator[IO[bytes]]:
        where = f"s3://{bucket}/{prefix}/{path}"
        try:
            body = client.get_object(Bucket=bucket, Key=f"{prefix}/{path}")["Body"]
            with closing(body):  # `with body` would yield the stream beneath, which does not see a short answer
                yield body
        except ClientError as error:
            status = error.response["ResponseMetadata"]["HTTPStatusCode"]
            raise _S3_ERRORS.get(status, ConnectionError)(f"{where} answered {status}") from error
        except BotoCoreError as error:
            raise ConnectionError(f"{where}: {error}") from error

    return opened
