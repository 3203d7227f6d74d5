"""One bucket as the S3 store and its uploads see it: clients, keys, conditions, and errors of ours.

Two clients, because botocore hashes every body that it signs over plain HTTP with sha256, a second per gigabyte
that would be spent twice: parts of large objects go unsigned with their CRC64NVME in a signed header, and their
sha256 is compared by whoever reads them with a manifest, which goes signed.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, cached_property
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import boto3
from botocore import exceptions
from botocore.config import Config
from pydantic import SecretStr

from tasks._retry import retried
from tasks._stores.s3_errors import Place
from tasks.errors import BadInput
from tasks.settings import StoreSettings

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

T = TypeVar("T")

CONNECT_S = 10.0
SILENCE_S = 60.0
"""The longest wait for an answer, and for a part to be taken."""

PARTS_AT_ONCE = 4
"""Parts in flight together, over all uploads of one store."""

_connecting = Lock()
"""Sessions do not stand threads that make clients at once."""


class Bucket:
    """The bucket and prefix of ``settings.url``, with the threads that send parts; ``requests`` counts what it asked.

    Nothing is asked for on creation.  Raises ``BadInput`` for settings that cannot be.
    """

    def __init__(self, settings: StoreSettings) -> None:
        url = urlsplit(settings.url)
        self.name = url.netloc
        self.prefix = f"{url.path.strip('/')}/".lstrip("/")
        self.requests = 0
        where = f"{settings.url.rstrip('/')} on {settings.endpoint}" if settings.endpoint else settings.url
        self.place = Place(where, self.name)
        self.senders = ThreadPoolExecutor(PARTS_AT_ONCE, thread_name_prefix="s3-part")
        self.encryption: dict[str, Any] = (
            {"ServerSideEncryption": "aws:kms", "SSEKMSKeyId": settings.kms_key} if settings.kms_key else {}
        )
        self._settings = settings
        try:
            self.client = self._connect(sign_bodies=True)
        except (exceptions.PartialCredentialsError, ValueError) as error:
            raise BadInput(
                f"The store {where} cannot be set up.",
                remedy="Check SLIPWAY_STORE__ENDPOINT, and set both keys or none.",
            ) from error

    @cached_property
    def part_client(self) -> "S3Client":
        """Return the client for parts, whose bodies are not signed."""
        return self._connect(sign_bodies=False)

    def at(self, key: str) -> dict[str, Any]:
        """Return the arguments that name the object."""
        return {"Bucket": self.name, "Key": self.prefix + key}

    def once(self, ask: Callable[[], T]) -> T:
        """Return what ``ask`` returns, its exceptions translated."""
        with self.place.translated():
            return ask()

    def asked(self, ask: Callable[[], T]) -> T:
        """Do the same with retries."""
        return retried(lambda: self.once(ask))

    def close(self) -> None:
        """Let go of connections and threads."""
        self.senders.shutdown()
        self.client.close()
        if "part_client" in self.__dict__:
            self.part_client.close()

    def _connect(self, *, sign_bodies: bool) -> "S3Client":
        settings = self._settings
        path_style = settings.endpoint is not None if settings.path_style is None else settings.path_style
        options: Any = {"addressing_style": "path" if path_style else "auto"}
        with _connecting:
            client = _session().client(
                "s3",
                endpoint_url=settings.endpoint,
                region_name=settings.region,
                aws_access_key_id=_revealed(settings.access_key),
                aws_secret_access_key=_revealed(settings.secret_key),
                config=Config(
                    retries={"total_max_attempts": 1},
                    connect_timeout=CONNECT_S,
                    read_timeout=SILENCE_S,
                    max_pool_connections=16,
                    response_checksum_validation="when_required",
                    s3=options if sign_bodies else options | {"payload_signing_enabled": False},
                ),
            )
        client.meta.events.register("before-send.s3", self._count)
        return client

    def _count(self, **_: object) -> None:
        self.requests += 1


@cache
def _session() -> boto3.session.Session:
    """Return the one session of this process: each reads 400 ms worth of descriptions of AWS anew."""
    return boto3.session.Session()


def create_only() -> dict[str, Any]:
    """Return the argument that makes a write fail when there is an object already."""
    return {"IfNoneMatch": "*"}


def _revealed(secret: SecretStr | None) -> str | None:
    return secret.get_secret_value() if secret else None
