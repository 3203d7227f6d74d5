"""A Hugging Face Hub, or whatever speaks its protocol: what a ref means now, what a commit holds, its bytes.

Refs and listings come from ``huggingface_hub``; bytes are streamed here, because its download functions write a
cache, compare sizes only, and cannot hand over a stream.  Nothing here writes to the disk, and the token is sent
to the Hub's own origin alone: a redirect to another host or port is followed without it.

Requests retry themselves, but for ``stream``: only its reader knows from which byte to go on.  Errors are told
apart by status and by the Hub's ``X-Error-Code`` header.  Without a token a Hub answers 401 for a repository that
does not exist and for a private one alike, so both get one sentence.
"""

import logging
import re
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Self
from urllib.parse import quote

from pydantic import SecretStr

from tasks._retry import retried
from tasks.errors import (
    AccessDenied,
    BadInput,
    IntegrityError,
    NotFound,
    Refused,
    SlipwayError,
    TerminalError,
    Unreachable,
)
from tasks.records import Commit, Sha256, Value

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

API_TIMEOUT_S = 30.0
"""The longest wait for a listing; huggingface_hub has none of its own there."""

READ_TIMEOUT_S = 60.0
"""The longest silence within a stream of bytes."""

MOST_FILES = 50_000
"""A Hub may cut the listing of a larger repository short, and a listing cut short would pass for whole."""


class ResolvedModel(Value):
    """What a ref meant at one moment; nothing after this sees the ref again."""

    model: str
    ref: str
    commit: Commit


class HubFile(Value):
    """A file as the Hub declares it: large ones by sha256, the others by git's blob id.  ``size`` is bytes."""

    path: str
    size: int
    sha256: Sha256 | None = None
    git_sha1: Commit | None = None


class Hub:
    """One Hub at ``endpoint``, asked with ``token`` or anonymously; a context manager that closes its connections.

    Every method raises ``NotFound``, ``AccessDenied`` (their remedies differ with and without a token) or, when
    retries did not help, ``Unreachable``.
    """

    def __init__(self, endpoint: str, token: SecretStr | None = None) -> None:
        import httpx2  # noqa: PLC0415 - a third of a second that commands without a Hub do not pay
        from huggingface_hub import HfApi, constants  # noqa: PLC0415

        # At INFO it writes every URL, and the signature of a signed link opens its file to whoever reads that.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        self.endpoint = endpoint.rstrip("/")
        self._token = token
        secret = token.get_secret_value() if token else None
        constants.HF_HUB_DISABLE_TELEMETRY = True
        # False, not None: None would send the token that happens to be saved on this machine.
        self._api = HfApi(endpoint=self.endpoint, token=secret or False, library_name="slipway")
        self._http = httpx2.Client(
            headers={"authorization": f"Bearer {secret}"} if secret else {},
            timeout=httpx2.Timeout(READ_TIMEOUT_S, connect=10.0),
            follow_redirects=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections; the Hub cannot be asked afterwards."""
        self._http.close()

    def resolve(self, model: str, ref: str) -> ResolvedModel:
        """Return the commit that branch, tag or 40-hex ``ref`` of ``model`` names now."""
        info = retried(lambda: self._info(model, ref))
        if info.id.lower() != model.lower():
            raise NotFound(f"{model} is now called {info.id}.", remedy="Use the new name in the spec.")
        is_commit = re.fullmatch(r"[0-9a-f]{40}", ref) is not None
        if info.sha is None or (is_commit and info.sha != ref):
            raise NotFound(
                f"{model} has no commit for {ref!r}.", remedy="Look at the repository's branches and tags."
            )
        return ResolvedModel(model=model, ref=ref, commit=info.sha)

    def files(self, model: str, commit: str) -> tuple[HubFile, ...]:
        """List the files of ``commit`` in one request; raises ``Refused`` for 50,000 files or more."""
        siblings = retried(lambda: self._info(model, commit, listing=True)).siblings or []
        if len(siblings) >= MOST_FILES:
            raise Refused(
                f"{model} has {len(siblings):,} files, which a Hub does not list reliably.",
                remedy=f"Use a repository with fewer than {MOST_FILES:,}.",
            )
        return tuple(_hub_file(model, sibling) for sibling in siblings)

    def stream(self, model: str, commit: str, path: str, *, start: int = 0) -> Generator[bytes, None, None]:
        """Yield the bytes of a file from byte ``start`` on, in pieces of the network's size, without retries.

        A connection that ends early may look like the end of the file: whoever reads compares the size.  Raises
        ``IntegrityError`` when the file has no byte ``start`` or belongs to another commit.
        """
        url = f"{self.endpoint}/{model}/resolve/{commit}/{quote(path)}"
        headers = {"accept-encoding": "identity"} | ({"range": f"bytes={start}-"} if start else {})
        with (
            self._translated(f"{path} of {model}"),
            self._http.stream("GET", url, headers=headers) as response,
        ):
            for answer in (*response.history, response):
                if answer.headers.get("x-repo-commit", commit) != commit:
                    raise IntegrityError(
                        f"The Hub answered for {path} with commit {answer.headers['x-repo-commit']}.",
                        remedy="Resolve the ref again.",
                    )
            if response.status_code == 416:  # noqa: PLR2004 - Range Not Satisfiable
                raise IntegrityError(f"{path} of {model} is shorter at the Hub than it declares.")
            if response.history and response.status_code in (401, 403):
                raise Unreachable(f"The link to {path} of {model} no longer holds.", remedy="Try again.")
            if response.is_error:
                raise self._refusal(response.status_code, response.headers, f"{path} of {model}")
            yield from _from(start if response.status_code == 200 else 0, response.iter_raw())  # noqa: PLR2004

    def _info(self, model: str, revision: str, *, listing: bool = False) -> "ModelInfo":
        with self._translated(f"{model}@{revision}"):
            return self._api.model_info(model, revision=revision, files_metadata=listing, timeout=API_TIMEOUT_S)

    @contextmanager
    def _translated(self, what: str) -> Iterator[None]:
        import httpx2  # noqa: PLC0415
        from huggingface_hub import errors  # noqa: PLC0415

        try:
            yield
        except errors.HfHubHTTPError as error:
            raise self._refusal(error.response.status_code, error.response.headers, what) from error
        except errors.HFValidationError as error:
            raise BadInput(f"{what} is not a model's name.", remedy="Write it as org/name.") from error
        except errors.OfflineModeIsEnabled as error:
            raise BadInput(
                f"{what} cannot be asked for offline.",
                remedy="Unset HF_HUB_OFFLINE and TRANSFORMERS_OFFLINE.",
            ) from error
        except (httpx2.InvalidURL, httpx2.UnsupportedProtocol) as error:
            raise BadInput(f"{self.endpoint!r} is not a Hub's URL.", remedy="Write it as https://host.") from error
        except httpx2.HTTPError as error:
            raise Unreachable(
                f"The Hub at {self.endpoint} does not answer.", remedy="Check that it runs and the network."
            ) from error

    def _refusal(self, status: int, headers: Mapping[str, str], what: str) -> SlipwayError:
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
        if status == 401 and self._token and code != "RepoNotFound":  # noqa: PLR2004
            return AccessDenied(
                f"The Hub at {self.endpoint} does not accept the token.",
                remedy="Set a valid SLIPWAY_HUB__TOKEN.",
            )
        if status in (401, 404):
            return NotFound(
                f"{what} does not exist at {self.endpoint}, or is private.",
                remedy="Check the name, or set SLIPWAY_HUB__TOKEN to a token that may read it.",
            )
        if status == 403:  # noqa: PLR2004
            return AccessDenied(f"The Hub forbids reading {what}.", remedy=self._gated_remedy())
        return TerminalError(f"The Hub at {self.endpoint} answers {status} for {what}.")

    def _gated_remedy(self) -> str:
        if self._token is None:
            return "Accept its terms on its page and set SLIPWAY_HUB__TOKEN."
        return "Accept its terms on its page as the token's owner, or give the token the right to read it."


def _hub_file(model: str, sibling: "RepoSibling") -> HubFile:
    if sibling.size is None:
        raise IntegrityError(f"The Hub declares no size for {sibling.rfilename} of {model}.")
    if sibling.lfs is not None:
        # The blob id of such a file is that of its pointer.
        return HubFile(path=sibling.rfilename, size=sibling.lfs.size, sha256=sibling.lfs.sha256)
    return HubFile(path=sibling.rfilename, size=sibling.size, git_sha1=sibling.blob_id)


def _from(start: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Leave out the first ``start`` bytes: a server may answer a range with the whole file."""
    for piece in pieces:
        if start < len(piece):
            yield piece[start:]
        start = max(0, start - len(piece))


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds to wait from ``Retry-After`` or the Hub's ``RateLimit: "api";r=0;t=55``, if given."""
    if match := re.fullmatch(r"\s*(\d+)\s*", headers.get("retry-after", "")):
        return float(match[1])
    if match := re.search(r"\br=0\s*;\s*t=(\d+)", headers.get("ratelimit", "")):
        return float(match[1])
    return None
