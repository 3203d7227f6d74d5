"""What botocore's exceptions and S3's error codes mean in the tree of ``tasks.errors``; the only place that knows."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import urllib3
from botocore import exceptions as s3

from tasks.errors import (
    AccessDenied,
    BadInput,
    Conflict,
    NotFound,
    SlipwayError,
    TerminalError,
    TransientError,
    Unreachable,
)

_DENIED = frozenset({"AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"})
_OTHER_REGION = frozenset({"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"})
_AGAIN = frozenset(
    {"ConditionalRequestConflict", "BadDigest", "InvalidDigest", "XAmzContentChecksumMismatch", "IncompleteBody"}
)
"""A conditional write met another in flight, or bytes were damaged on the way: AWS asks to repeat either."""


@dataclass(frozen=True)
class Place:
    """The store as messages name it: ``where`` for people, ``bucket`` for its remedies."""

    where: str
    bucket: str

    @contextmanager
    def translated(self) -> Iterator[None]:
        """Raise the errors of ``tasks.errors`` for those of botocore."""
        try:
            yield
        except s3.ClientError as error:
            raise self._refusal(error) from None  # it quotes the answer, which may quote what it was shown
        except (
            *(s3.ConnectionError, s3.HTTPClientError, s3.IncompleteReadError),
            urllib3.exceptions.HTTPError,  # of an error's body that breaks off, past botocore's own translation
        ) as error:
            raise Unreachable(
                f"The store at {self.where} does not answer.", remedy="Check that it runs and the network."
            ) from error
        except (s3.NoCredentialsError, s3.CredentialRetrievalError, s3.TokenRetrievalError) as error:
            raise AccessDenied(
                f"There are no keys for the store at {self.where}.",
                remedy="Set SLIPWAY_STORE__ACCESS_KEY and SLIPWAY_STORE__SECRET_KEY, or give the machine a role.",
            ) from error
        except s3.ParamValidationError as error:
            raise BadInput(
                f"The store {self.where} has no such place.", remedy="Check the bucket's name in its URL."
            ) from error

    def _refusal(self, error: s3.ClientError) -> SlipwayError:
        code, status = error.response["Error"].get("Code", ""), status_of(error)
        if code in _AGAIN:
            return TransientError(f"The store at {self.where} asks for the request again ({code}).")
        if status in (409, 412) or code in ("NoSuchUpload", "NoSuchKey"):
            return Conflict("Another writer changed the object first.", remedy="Read it again and decide anew.")
        # A code that is a status stands for a body that could not be read.
        if status in (408, 429) or status >= 500 or code in ("RequestTimeout", "404"):  # noqa: PLR2004
            after = error.response["ResponseMetadata"].get("HTTPHeaders", {}).get("retry-after", "")
            return Unreachable(
                f"The store at {self.where} answers {code or status}.",
                remedy="Try again later.",
                retry_after=float(after) if after.isdigit() else None,
            )
        return self._denial(code, status)

    def _denial(self, code: str, status: int) -> SlipwayError:
        if code == "NoSuchBucket":
            return NotFound(f"There is no bucket {self.bucket!r} at {self.where}.", remedy="Create it first.")
        if code in _OTHER_REGION:
            return BadInput(
                f"The bucket {self.bucket!r} is in another region.", remedy="Set SLIPWAY_STORE__REGION to it."
            )
        if code in _DENIED or status in (401, 403):
            return AccessDenied(
                f"The store at {self.where} denies access ({code or status}).",
                remedy="Check its keys, and that they may read, write, list and delete there.",
            )
        return TerminalError(f"The store at {self.where} refuses a request ({code or status}).")


def status_of(error: s3.ClientError) -> int:
    """Return the HTTP status of an answer; 0 when there was none."""
    return error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
