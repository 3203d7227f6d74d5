"""Who may read what: access tokens for repositories, and signed links for bytes.

Tokens are held as digests only, so that neither a dump nor a log of this process can show one.  A link to a
large file carries its own permission, a signature that expires, as a CDN's does; the key is made at start and
never leaves the process, so links end with it and a client has to resolve again.
"""

import hashlib
import hmac
import secrets
import stat
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, Self
from urllib.parse import urlencode

from pydantic import TypeAdapter, ValidationError

from tasks.errors import BadInput

EVERY_REPOSITORY = "*"

_GRANTS = TypeAdapter(dict[str, Literal["*"] | list[str]])


class AccessTokens:
    """Which token opens which gated and private repositories."""

    def __init__(self, grants: Mapping[str, Sequence[str]] | None = None) -> None:
        self._repositories = {_digest(token): frozenset(repos) for token, repos in (grants or {}).items()}

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Read ``{token: ["org/name", ...] or "*"}``; raises ``BadInput`` if others than its owner can."""
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
            if mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise BadInput(
                    f"The token file {path} can be read by others (mode {mode:04o}).",
                    remedy=f"Run chmod 600 {path}.",
                )
            return cls(_GRANTS.validate_json(path.read_bytes()))
        except OSError as error:
            raise BadInput(
                f"The token file {path} cannot be read: {error.strerror}.", remedy="Name a JSON file."
            ) from error
        except ValidationError:
            # The cause is dropped on purpose: pydantic quotes its input, and that is the tokens.
            raise BadInput(
                f"The token file {path} is not a JSON object of tokens.",
                remedy='Write {"token": ["org/name"]} or {"token": "*"}.',
            ) from None

    def allow(self, token: str | None, repo: str) -> bool:
        """Say whether the token opens the repository."""
        repos = self._repositories.get(_digest(token), frozenset()) if token else frozenset()
        return repo in repos or EVERY_REPOSITORY in repos


class SignedLinks:
    """Links to large files that hold for ``lifetime_s`` seconds (an hour on the real Hub)."""

    def __init__(self, base: str, *, lifetime_s: float) -> None:
        self._base = base
        self._lifetime_s = lifetime_s
        self._key = secrets.token_bytes(32)

    def sign(self, sha256: str) -> str:
        """Return a URL that serves these bytes until it expires."""
        expires = str(int(time.time() + self._lifetime_s))
        query = urlencode({"expires": expires, "signature": self._signature(sha256, expires)})
        return f"{self._base}/lfs/{sha256}?{query}"

    def hold(self, sha256: str, expires: str, signature: str) -> bool:
        """Say whether a link was signed here for these bytes and has not expired."""
        genuine = hmac.compare_digest(self._signature(sha256, expires).encode(), signature.encode())
        return genuine and time.time() < int(expires)

    def _signature(self, sha256: str, expires: str) -> str:
        return hmac.new(self._key, f"{sha256}\n{expires}".encode(), "sha256").hexdigest()


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
