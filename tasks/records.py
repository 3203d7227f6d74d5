"""The values that cross boundaries: frozen, versioned, and equal after a round trip through JSON.

Everything durable or sent between processes is one of these, so that what was decided can be read back and
judged again by another process.  Times are UTC and ISO 8601; sizes are bytes; durations are seconds.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

Commit = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{40}$")]
Sha256 = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
Crc64 = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9+/]{11}=$")]


class Value(BaseModel):
    """A frozen value with no unknown fields; ``to_json`` is stable and ends in a newline."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    def to_json(self) -> bytes:
        """Return the canonical UTF-8 bytes of this value."""
        return (self.model_dump_json(indent=1) + "\n").encode()

    @classmethod
    def from_json(cls, data: bytes | str) -> Self:
        """Read back what ``to_json`` wrote; raises ``pydantic.ValidationError``."""
        return cls.model_validate_json(data)


class Verdict(StrEnum):
    """What a check says: could not measure is neither pass nor fail."""

    PASS = "pass"  # noqa: S105 - a verdict, not a password
    FAIL = "fail"
    INCONCLUSIVE = "inconclusive"


class Example(Value):
    """Two answers to one prompt, to be read side by side; ``live`` is empty where there was none to compare with."""

    prompt: str
    candidate: str
    live: str = ""
    why: str = ""


class CheckResult(Value):
    """One check's verdict with the evidence a person needs to agree or disagree.

    ``evidence`` are lines to read, ``examples`` answers to compare, ``measured`` numbers by name.
    """

    name: str
    verdict: Verdict
    summary: str
    evidence: tuple[str, ...] = ()
    examples: tuple[Example, ...] = ()
    measured: dict[str, float] = {}


class FileEntry(Value):
    """One file of a commit.  ``git_sha1`` is the Hub's blob id where it declares no sha256.

    ``crc64nvme`` is S3's checksum of the whole object (base64 of its eight bytes), ``etag`` what the store called
    the object when it was written: both tell without reading it whether an object is still the one that was hashed.
    """

    path: str
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256
    git_sha1: Commit | None = None
    crc64nvme: Crc64 | None = None
    etag: str | None = None


class Manifest(Value):
    """The files of one commit in the store; written last, so that no manifest means not there.

    Version 2 added what follows ``files``, and the checksums of each file; version 1 is read as one that lacks them.
    A node refuses a version that it does not know.
    """

    version: Annotated[int, Field(ge=1, le=2)] = 2
    model: str
    commit: Commit
    source: str
    created_at: datetime
    files: tuple[FileEntry, ...]
    license: str | None = None
    """What the model card says, as the Hub writes it, e.g. ``apache-2.0``."""
    gated: bool = False
    """Whether the Hub gave the bytes only to those who had accepted its terms."""
    tags: tuple[str, ...] = ()
    parameters: Annotated[int, Field(ge=0)] | None = None
    """Elements of all tensors together."""
    dtypes: dict[str, int] = {}
    """Elements by dtype, as the safetensors headers name them (``BF16``)."""
    seconds: Annotated[float, Field(ge=0)] | None = None
    """How long the mirror took that wrote this; with ``from_hub``, the rate to expect of the next."""
    from_hub: Annotated[int, Field(ge=0)] | None = None
    """Bytes that came from the Hub; the others were copied within the store."""

    @property
    def total_bytes(self) -> int:
        """Return the size of all files together, in bytes."""
        return sum(file.size for file in self.files)


class Release(Value):
    """An immutable numbered pair of a service spec and a commit; ``name`` is ``chat-r7``."""

    service: str
    number: Annotated[int, Field(ge=1)]
    model: str
    commit: Commit
    hub: str
    spec: dict[str, Any]

    @property
    def name(self) -> str:
        """Return the release's name, unique in its service for ever."""
        return f"{self.service}-r{self.number}"


class StepName(StrEnum):
    """The steps of a release in their order, then the steps that undo one."""

    ROOM = "room"
    MIRROR = "mirror"
    START = "start"
    READY = "ready"
    SMOKE = "smoke"
    QUALITY = "quality"
    PAIRED = "paired"
    PERFORMANCE = "performance"
    OWN = "own"
    APPROVE = "approve"
    SHIFT = "shift"
    BAKE = "bake"
    TIDY = "tidy"
    RECEIPT = "receipt"
    MOVE_BACK = "move_back"
    REMOVE = "remove"


class Kind(StrEnum):
    """What somebody asks for: a new release, an earlier one, the one before, or the live one in an empty target."""

    RELEASE = "release"
    PROMOTE = "promote"
    ROLL_BACK = "roll_back"
    RESTORE = "restore"


class StepState(StrEnum):
    """A step is recorded before its side effect (intent) and again after it (outcome)."""

    STARTED = "started"
    DONE = "done"
    FAILED = "failed"


class Step(Value):
    """What became of one step; repeated, it keeps its first start."""

    name: StepName
    state: StepState
    started_at: datetime
    ended_at: datetime | None = None
    detail: str = ""

    @property
    def seconds(self) -> float:
        """Return how long the step took, 0 while it runs."""
        return (self.ended_at - self.started_at).total_seconds() if self.ended_at else 0.0


class Outcome(StrEnum):
    """How a release ended."""

    PROMOTED = "promoted"
    REFUSED = "refused"
    FAILED = "failed"
    ROLLED_BACK = "rolled_back"
    SUPERSEDED = "superseded"


class Failure(Value):
    """Why a release is being undone: ``refused`` by a check, rule or person, ``failed``, or ``superseded``."""

    step: StepName | None
    outcome: Outcome
    reason: str


class Request(Value):
    """What somebody asked for; ``release`` has its number once it has begun.  ``id`` is that of the asking run."""

    id: str
    kind: Kind = Kind.RELEASE
    release: Release
    actor: str = ""
    reason: str = ""
    at: datetime

    def same(self, other: "Request") -> bool:
        """Return whether both ask for the same, whoever asks, when and why."""
        mine = other.release.model_copy(update={"number": self.release.number})
        named = self.kind is Kind.RELEASE or self.release.number == other.release.number
        return self.kind is other.kind and named and mine == self.release


class Question(Value):
    """What a person is to decide before the release goes on; without an answer by ``until`` it is refused."""

    step: StepName
    text: str
    asked_at: datetime
    until: datetime


class Approval(Value):
    """A person's answer to the question of ``step``."""

    step: StepName
    granted: bool
    who: str
    why: str = ""
    at: datetime


class Progress(Value):
    """One release on its way, or, with an outcome, at its end.  ``run`` is what carries it, or did last."""

    kind: Kind = Kind.RELEASE
    release: Release
    run: str
    request: str = ""
    """Id of the request that it fulfils."""
    actor: str = ""
    reason: str = ""
    opened_at: datetime
    closed_at: datetime | None = None
    steps: tuple[Step, ...] = ()
    checks: tuple[CheckResult, ...] = ()
    question: Question | None = None
    approvals: tuple[Approval, ...] = ()
    failure: Failure | None = None
    outcome: Outcome | None = None
    outage: bool = False
    """Whether the live release is removed to make room, by the spec's consent: clients are without one meanwhile."""
    kept_warm: Release | None = None
    """What was ``previous`` before this release shifted traffic; moving back restores it."""

    def step(self, name: StepName) -> Step | None:
        """Return what is recorded of the step, if anything."""
        return next((step for step in self.steps if step.name is name), None)

    def done(self, name: StepName) -> bool:
        """Return whether the step has ended well."""
        step = self.step(name)
        return step is not None and step.state is StepState.DONE

    def seconds(self) -> dict[str, float]:
        """Return seconds by step, in the order the steps began."""
        return {step.name.value: round(step.seconds, 1) for step in self.steps}


class LedgerHead(Value):
    """The newest entry of the ledger: how many there are, and the sha256 of the last one's bytes."""

    sequence: Annotated[int, Field(ge=0)] = 0
    sha256: Sha256 = "0" * 64


class ServiceRecord(Value):
    """The durable state of one service: what is live, kept warm, on its way, and asked for next.

    Version 2 added ``fence``, the number of the lease under which it was last written, ``waiting`` and ``ledger``.
    """

    version: Annotated[int, Field(ge=1, le=2)] = 2
    service: str
    fence: Annotated[int, Field(ge=0)] = 0
    next_number: Annotated[int, Field(ge=1)] = 1
    live: Release | None = None
    previous: Release | None = None
    current: Progress | None = None
    waiting: Request | None = None
    past: tuple[Progress, ...] = ()
    ledger: LedgerHead = LedgerHead()
