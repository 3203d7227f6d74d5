"""What a Hub's refusals mean in the tree of ``tasks.errors``; the only place that knows.

Told apart by status and by the Hub's ``X-Error-Code`` header.  The error of an answer is no cause of ours: it quotes
the answer and its address, and with them whatever a gateway or a link holds.  Without a token a Hub answers 401 for a
repository that does not exist and for a private one alike, so both get one sentence.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from tasks.errors import AccessDenied, BadInput, NotFound, SlipwayError, TerminalError, Unreachable

_TOKEN = "SLIPWAY_HUB__TOKEN, or a file that SLIPWAY_HUB__TOKEN_FILE names (before `slipway up`)"  # noqa: S105 - its name


@dataclass(frozen=True)
class Asker:
    """The Hub at ``endpoint`` as messages name it, and whether it is asked with a token."""

    endpoint: str
    has_token: bool

    @contextmanager
    def translated(self, what: str) -> Iterator[None]:
        """Raise the errors of ``tasks.errors`` for those of huggingface_hub and of urllib3."""
        import httpx2  # noqa: PLC0415 - a third of a second that commands without a Hub do not pay
        import urllib3  # noqa: PLC0415
        from huggingface_hub import errors  # noqa: PLC0415

        try:
            yield
        except errors.HfHubHTTPError as error:
            raise self.refusal(error.response.status_code, error.response.headers, what) from None
        except errors.HFValidationError as error:
            raise BadInput(f"{what} is not a model's name.", remedy="Write it as org/name.") from error
        except errors.OfflineModeIsEnabled as error:
            raise BadInput(
                f"{what} cannot be asked for offline.",
                remedy="Unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE.",
            ) from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol, urllib3.exceptions.LocationValueError) as error:
            raise BadInput(f"{self.endpoint!r} is not a Hub's URL.", remedy="Write it as https://host.") from error
        except httpx2.TooManyRedirects as error:
            raise TerminalError(f"The Hub redirects {what} without end.", remedy="Report it to the Hub.") from error
        except (httpx2.HTTPError, urllib3.exceptions.HTTPError) as error:
            raise Unreachable(
                f"The Hub at {self.endpoint} does not answer.", remedy="Check that it runs and the network."
            ) from error

    def refusal(self, status: int, headers: Mapping[str, str], what: str) -> SlipwayError:
        """Turn an answer of ``status`` to a request for ``what`` into the error it stands for."""
        code = headers.get("x-error-code", "")
        if status == 429 or status == 408 or status >= 500:  # noqa: PLR2004, PLR1714
            return Unreachable(
                f"The Hub at {self.endpoint} answers {status} for {what}.",
                remedy="Try again later.",
                retry_after=_retry_after(headers),
            )
        named: dict[str, SlipwayError] = {
            "GatedRepo": AccessDenied(f"{what} is gated.", remedy=self._gated_remedy()),
            "RevisionNotFound": NotFound(
                f"{what} does not exist.", remedy="Look at the repository's branches and tags."
            ),
            "EntryNotFound": NotFound(f"{what} does not exist at that commit.", remedy="Resolve the ref again."),
        }
        if code in named:
            return named[code]
        if status == 401 and self.has_token and code != "RepoNotFound":  # noqa: PLR2004
            return AccessDenied(
                f"The Hub at {self.endpoint} does not accept the token.",
                remedy=f"Put a valid token into {_TOKEN}.",
            )
        if status in (401, 404):
            return NotFound(
                f"{what} does not exist at {self.endpoint}, or is private.",
                remedy=f"Check the name, or put a token that may read it into {_TOKEN}.",
            )
        if status == 403:  # noqa: PLR2004
            return AccessDenied(f"The Hub forbids reading {what}.", remedy=self._gated_remedy())
        return TerminalError(f"The Hub at {self.endpoint} answers {status} for {what}.")

    def _gated_remedy(self) -> str:
        if not self.has_token:
            return f"Accept its terms on its page and put a token into {_TOKEN}."
        return "Accept its terms on its page as the token's owner, or give the token the right to read it."


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait from ``Retry-After`` or the Hub's ``RateLimit: "api";r=0;t=55``, if given."""
    if match := re.fullmatch(r"\s*(\d+)\s*", headers.get("retry-after", "")):
        return float(match[1])
    if match := re.search(r"\br=0\s*;\s*t=(\d+)", headers.get("ratelimit", "")):
        return float(match[1])
    return None
