"""The store as a node reads it: the objects of one commit, whole or in ranges.

S3 is read with the standard ``AWS_*`` variables (``AWS_ENDPOINT_URL_S3`` for a server that is not AWS, whose bucket
is then named in the path), shared files or the machine's role.  boto3 repeats a request until its first byte; from
there on it is the reader that knows where to go on.

boto3's body costs 0.35 CPU seconds per gigabyte in pieces of a megabyte, next to which neither a signed link read
through ``http.client`` nor reading into a buffer of our own made a difference that could be told from noise.
"""

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from serve.manifest import File, WeightsError

PIECE_BYTES = 2**20
"""Bytes of one read: few calls, and small enough for the processor's cache."""

SILENCE_S = 30.0
"""The longest silence within an answer."""

ASKED = 5
"""Times that boto3 sends one request in all, with growing pauses."""

_S3_ERRORS = {401: PermissionError, 403: PermissionError, 404: FileNotFoundError}
_TRANSIENT = {408, 429}


@dataclass(frozen=True)
class Looked:
    """What the store says of an object without sending it: ``size`` in bytes, and its checksum if it keeps one."""

    size: int
    etag: str
    crc64nvme: str | None


class Source(Protocol):
    """The folder of one commit in a store; paths are relative to it.

    Every method raises ``FileNotFoundError``, ``ConnectionError`` for what may pass, or another ``OSError``, whatever
    the store is.
    """

    def get(self, path: str) -> bytes:
        """Return the bytes of a small object."""

    def read(self, file: File, first: int, last: int) -> Iterator[bytes]:
        """Yield the bytes of ``file`` from byte ``first`` up to ``last``, fewer when it ends early.

        Raises ``WeightsError`` when the object has another size than ``file``.
        """

    def close(self) -> None:
        """Let go of connections."""


def open_source(url: str, connections: int) -> Source:
    """Return the commit's folder at ``url``: ``s3://bucket/prefix``, or ``file:///folder``, percent-encoded.

    Raises ``WeightsError`` for anything else.
    """
    scheme, _, rest = url.rstrip("/").partition("://")
    bucket, _, prefix = rest.partition("/")
    if scheme == "s3" and bucket and prefix:
        return S3Source(bucket, prefix, connections)
    if scheme == "file" and bucket in {"", "localhost"} and prefix:
        return FolderSource(Path(unquote(urlsplit(url).path)))
    raise WeightsError(f"Weights are read from s3://bucket/prefix or file:///folder, not from {url!r}.")


class FolderSource:
    """A commit in a folder that this machine has mounted."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def get(self, path: str) -> bytes:
        """See ``Source``."""
        return (self._root / path).read_bytes()

    def read(self, file: File, first: int, last: int) -> Iterator[bytes]:
        """See ``Source``."""
        with (self._root / file.path).open("rb", buffering=0) as stream:
            _check_size(file, stream.seek(0, 2))
            at = stream.seek(first)
            while at < last and (piece := stream.read(min(PIECE_BYTES, last - at))):
                at += len(piece)
                yield piece

    def close(self) -> None:
        """See ``Source``."""


class S3Source:
    """A commit in a bucket."""

    def __init__(self, bucket: str, prefix: str, connections: int) -> None:
        import boto3  # noqa: PLC0415 - half a second that a folder does not need
        from botocore.config import Config  # noqa: PLC0415 - as above

        self._bucket, self._prefix = bucket, prefix
        # Ours is the sha256 of the manifest: boto3's own checksums would only be computed besides.
        config = Config(
            retries={"mode": "standard", "total_max_attempts": ASKED},
            max_pool_connections=connections,
            connect_timeout=10,
            read_timeout=SILENCE_S,
            response_checksum_validation="when_required",
        )
        self._client: Any = boto3.session.Session().client("s3", config=config)

    def get(self, path: str) -> bytes:
        """See ``Source``."""
        with self._translated(path), closing(self._client.get_object(**self._at(path))["Body"]) as body:
            return bytes(body.read())

    def read(self, file: File, first: int, last: int) -> Iterator[bytes]:
        """See ``Source``."""
        with self._translated(file.path):
            answer = self._client.get_object(**self._at(file.path), Range=f"bytes={first}-{last - 1}")
            with closing(answer["Body"]) as body:
                _check_size(file, int(answer.get("ContentRange", "").rpartition("/")[2] or -1))
                while piece := body.read(PIECE_BYTES):
                    yield piece

    def look(self, path: str) -> Looked:
        """Return what the store says of an object; raises as ``Source`` does."""
        with self._translated(path):
            answer = self._client.head_object(**self._at(path), ChecksumMode="ENABLED")
        return Looked(answer["ContentLength"], answer["ETag"], answer.get("ChecksumCRC64NVME"))

    def names(self) -> set[str]:
        """Return the names of the objects directly in the folder; raises as ``Source`` does."""
        with self._translated(""):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=f"{self._prefix}/", Delimiter="/"
            )
            return {item["Key"].rpartition("/")[2] for page in pages for item in page.get("Contents", ())}

    def close(self) -> None:
        """See ``Source``."""
        self._client.close()

    def _at(self, path: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": f"{self._prefix}/{path}"}

    @contextmanager
    def _translated(self, path: str) -> Iterator[None]:
        from botocore import exceptions  # noqa: PLC0415 - as boto3
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - as boto3, whose streams let some of these through

        where = f"s3://{self._bucket}/{self._prefix}/{path}"
        try:
            yield
        except exceptions.ClientError as error:
            raise _refusal(where, error.response) from error
        except (exceptions.NoCredentialsError, exceptions.CredentialRetrievalError) as error:
            raise PermissionError(f"{where} cannot be asked for without AWS credentials") from error
        except (
            exceptions.ConnectionError,
            exceptions.HTTPClientError,
            exceptions.IncompleteReadError,
            HTTPError,
        ) as error:
            raise ConnectionError(f"{where}: {error}") from error
        except exceptions.BotoCoreError as error:
            raise OSError(f"{where}: {error}") from error


def _refusal(where: str, response: Mapping[str, Any]) -> OSError:
    status, code = response["ResponseMetadata"]["HTTPStatusCode"], response.get("Error", {}).get("Code", "")
    said = f"{where} answered {status}" if code in {"", str(status)} else f"{where} answered {status} ({code})"
    if status == 416:  # noqa: PLR2004 - Range Not Satisfiable
        said += ": it is shorter than the manifest declares"
    transient = status >= 500 or status in _TRANSIENT  # noqa: PLR2004 - a server's own fault
    return (ConnectionError if transient else _S3_ERRORS.get(status, OSError))(said)


def _check_size(file: File, found: int) -> None:
    if found != file.size:
        raise WeightsError(
            f"{file.path} is not what the manifest declares: {found:,} bytes in the store instead of {file.size:,}."
        )
