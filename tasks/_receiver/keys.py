"""Whether a caller knows a secret of the receiver: compared in constant time, and with all of them.

Several are good at once, so that one can replace another without a call being lost.  Their digests are compared
rather than themselves: those have one length, so that the time tells nothing of the secrets' own.
"""

import hashlib
import hmac
import logging
from collections.abc import Callable, Iterable

from pydantic import SecretStr

from tasks.errors import BadInput

HEADER, BEARER = b"x-webhook-secret", b"authorization"
"""Hugging Face sends the secret itself in the first; others may use the second, as ``Bearer`` and the secret."""
SCHEME = b"bearer "

log = logging.getLogger(__name__)


class Keys:
    """The secrets that ``read`` returns; raises what it raises at first, and keeps the last good ones later."""

    def __init__(self, read: Callable[[], tuple[SecretStr, ...]]) -> None:
        self._read = read
        self._digests = _digests(read())
        self.trouble = ""

    def fit(self, headers: Iterable[tuple[bytes, bytes]]) -> bool:
        """Return whether one of the secrets is shown; no secret is like a wrong one."""
        given = hashlib.sha256(shown(headers)).digest()
        fits = False
        for known in self._digests:
            fits |= hmac.compare_digest(known, given)
        return fits

    def look(self) -> None:
        """Read the secrets again; what cannot be read leaves the ones before, and is told once."""
        try:
            self._digests, trouble = _digests(self._read()), ""
        except BadInput as error:
            trouble = str(error)
        if trouble and trouble != self.trouble:
            log.error("keeps the secrets that it has: %s", trouble)
        self.trouble = trouble


def shown(headers: Iterable[tuple[bytes, bytes]]) -> bytes:
    """Return the secret that a caller shows, empty where there is none; names of headers are in lower case."""
    bearer = b""
    for name, value in headers:
        if name == HEADER:
            return value
        if name == BEARER and value[: len(SCHEME)].lower() == SCHEME:
            bearer = value[len(SCHEME) :].strip()
    return bearer


def _digests(secrets: tuple[SecretStr, ...]) -> tuple[bytes, ...]:
    return tuple(hashlib.sha256(secret.get_secret_value().encode()).digest() for secret in secrets)
