"""A Hugging Face Hub, or whatever speaks its protocol: what a ref means now, what a commit holds, its bytes.

Refs and listings come from ``huggingface_hub``; bytes are streamed by ``tasks._weights.download``.  Nothing here
writes to the disk, and the token is sent to the Hub's own origin alone.

Requests retry themselves, but for ``stream``: only its reader knows from which byte to go on.
"""

import logging
import re
from collections.abc import Generator
from typing import TYPE_CHECKING, Self

from pydantic import SecretStr

from tasks._retry import retried
from tasks._weights.download import Downloads
from tasks._weights.hub_errors import Asker
from tasks.errors import IntegrityError, NotFound, Refused
from tasks.records import Commit, Sha256, Value

if TYPE_CHECKING:
    from huggingface_hub.hf_api import ModelInfo, RepoSibling

API_TIMEOUT_S = 30.0
"""The longest wait for a listing; huggingface_hub has none of its own there."""

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


class RepositoryFacts(Value):
    """What a Hub says of a repository beside its files; ``license`` as its model card writes it.

    ``model`` is what the repository is called now: a Hub leads from an old name to the new one.
    """

    model: str
    commit: Commit
    license: str | None = None
    gated: bool = False
    tags: tuple[str, ...] = ()


class Listing(Value):
    """The files of a commit, and what the Hub says of their repository."""

    facts: RepositoryFacts
    files: tuple[HubFile, ...]


class Hub:
    """One Hub at ``endpoint``, asked with ``token`` or anonymously; a context manager that closes its connections.

    With ``xet``, files that the Hub keeps in Xet storage come from there, where hf-xet is installed.

    Every method raises ``NotFound``, ``AccessDenied`` (their remedies differ with and without a token) or, when
    retries did not help, ``Unreachable``.
    """

    def __init__(self, endpoint: str, token: SecretStr | None = None, *, xet: bool = True) -> None:
        from huggingface_hub import HfApi, constants  # noqa: PLC0415 - slow, and most commands need no Hub

        # At INFO it writes every URL, and the signature of a signed link opens its file to whoever reads that.
        logging.getLogger("httpx2").setLevel(logging.WARNING)
        self.endpoint = endpoint.rstrip("/")
        constants.HF_HUB_DISABLE_TELEMETRY = True
        # False, not None: None would send the token that happens to be saved on this machine.
        secret = token.get_secret_value() if token else False
        self._api = HfApi(endpoint=self.endpoint, token=secret, library_name="slipway")
        self._asker = Asker(self.endpoint, has_token=token is not None)
        self._downloads = Downloads(self.endpoint, token, self._asker, xet=xet)
        self._asked = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def requests(self) -> int:
        """Return how many requests were sent so far, repeated ones included."""
        return self._asked + self._downloads.requests

    @property
    def received(self) -> int:
        """Return how many bytes of files came so far."""
        return self._downloads.received

    def interrupt(self) -> None:
        """End waits for bytes in other threads; their streams raise ``Unreachable``."""
        self._downloads.interrupt()

    def close(self) -> None:
        """Close the connections; the Hub cannot be asked afterwards."""
        self._downloads.close()

    def resolve(self, model: str, ref: str) -> ResolvedModel:
        """Return the commit that branch, tag or 40-hex ``ref`` of ``model`` names now."""
        facts = self.facts(model, ref)
        _refuse_renamed(model, facts)
        return ResolvedModel(model=model, ref=ref, commit=facts.commit)

    def facts(self, model: str, ref: str) -> RepositoryFacts:
        """Return what the Hub says of ``model`` at branch, tag or 40-hex ``ref``, in one request."""
        return _facts(model, ref, retried(lambda: self._info(model, ref)))

    def listing(self, model: str, commit: str) -> Listing:
        """List the files of ``commit`` in one request; raises ``Refused`` for 50,000 files or more."""
        info = retried(lambda: self._info(model, commit, listing=True))
        siblings = info.siblings or []
        if len(siblings) >= MOST_FILES:
            raise Refused(
                f"{model} has {len(siblings):,} files, which a Hub does not list reliably.",
                remedy=f"Use a repository with fewer than {MOST_FILES:,}.",
            )
        facts = _facts(model, commit, info)
        _refuse_renamed(model, facts)
        return Listing(facts=facts, files=tuple(_hub_file(model, sibling) for sibling in siblings))

    def has_ancestor(self, model: str, ref: str, commit: str) -> bool:
        """Say whether ``commit`` is the head of ``ref`` or came before it."""

        def ask() -> bool:
            self._asked += 1
            with self._asker.translated(f"{model}@{ref}"):
                return any(one.commit_id == commit for one in self._api.list_repo_commits(model, revision=ref))

        return retried(ask)

    def stream(
        self, model: str, commit: str, path: str, *, start: int = 0, stop: int | None = None
    ) -> Generator[bytes]:
        """Yield the bytes of a file from ``start`` up to ``stop`` (None: to its end), without retries.

        A connection that ends early may look like the end of the file: whoever reads compares the size.  More than
        was asked for may come.  Raises ``IntegrityError`` when the file has no byte ``start`` or belongs to another
        commit, and ``Unreachable`` also when hardly any bytes arrive.
        """
        return self._downloads.stream(model, commit, path, start=start, stop=stop)

    def _info(self, model: str, revision: str, *, listing: bool = False) -> "ModelInfo":
        self._asked += 1
        with self._asker.translated(f"{model}@{revision}"):
            return self._api.model_info(model, revision=revision, files_metadata=listing, timeout=API_TIMEOUT_S)


def _facts(model: str, ref: str, info: "ModelInfo") -> RepositoryFacts:
    is_commit = re.fullmatch(r"[0-9a-f]{40}", ref) is not None
    if info.sha is None or (is_commit and info.sha != ref):
        raise NotFound(f"{model} has no commit for {ref!r}.", remedy="Look at the repository's branches and tags.")
    tags = tuple(info.tags or ())
    return RepositoryFacts(
        model=info.id, commit=info.sha, license=_license(info, tags), gated=bool(info.gated), tags=tags
    )


def _refuse_renamed(model: str, facts: RepositoryFacts) -> None:
    if facts.model.lower() != model.lower():
        raise NotFound(f"{model} is now called {facts.model}.", remedy="Use the new name in the spec.")


def _license(info: "ModelInfo", tags: tuple[str, ...]) -> str | None:
    """Return the licence of the model card, or of the tag that the Hub makes of it."""
    card = info.card_data.get("license") if info.card_data else None
    named = card or next((tag for tag in tags if tag.startswith("license:")), None)
    return str(named).removeprefix("license:") if named else None


def _hub_file(model: str, sibling: "RepoSibling") -> HubFile:
    if sibling.size is None:
        raise IntegrityError(f"The Hub declares no size for {sibling.rfilename} of {model}.")
    if sibling.lfs is not None:
        # The blob id of such a file is that of its pointer.
        return HubFile(path=sibling.rfilename, size=sibling.lfs.size, sha256=sibling.lfs.sha256)
    return HubFile(path=sibling.rfilename, size=sibling.size, git_sha1=sibling.blob_id)
