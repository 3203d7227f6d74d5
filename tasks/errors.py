"""The one tree of errors, and what each means for retries and for the exit code.

    SlipwayError
    ├── TransientError        may pass by itself: retried, bounded by count and time
    │   └── Unreachable       a Hub, store, target or server did not answer
    └── TerminalError         never retried
        ├── BadInput          a spec, flag, name or setting is wrong
        ├── NotFound          a service, repository, ref, commit or object does not exist
        ├── AccessDenied      a token is missing, wrong, or lacks rights
        ├── Refused           a rule of ours forbids it (an unsafe file, a failed check)
        ├── IntegrityError    bytes are not what they were declared to be
        ├── Conflict          somebody else wrote the record first
        ├── CandidateFailed   the candidate never became healthy
        └── MachineError      this machine cannot do it (disk, memory, processor, port, environment)

Foreign exceptions are translated once, at the client that meets them, with ``raise ... from``; nothing is
told apart by message text.  Where the foreign text quotes an answer it is ``from None``, because a careless
server repeats the credentials that it was shown, and every log prints causes.  A message is one sentence that
says what happened and why; ``remedy`` is one sentence that says what to do.  Neither ever holds a secret.
"""

from typing import ClassVar


class SlipwayError(Exception):
    """Anything Slipway itself reports; ``exit_code`` is what the command line ends with."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.remedy = remedy

    def __str__(self) -> str:
        message = str(self.args[0])
        return f"{message} {self.remedy}" if self.remedy else message


class TransientError(SlipwayError):
    """May pass by itself; ``retry_after`` is the wait, in seconds, that the other side asked for."""

    exit_code = 75

    def __init__(self, message: str, *, remedy: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after = retry_after


class Unreachable(TransientError):
    """A server did not answer, or answered that it cannot now."""


class TerminalError(SlipwayError):
    """Trying again cannot help."""


class BadInput(TerminalError):
    """What was asked for makes no sense as written."""

    exit_code = 2


class NotFound(TerminalError):
    """The named thing does not exist."""

    exit_code = 3


class AccessDenied(TerminalError):
    """The other side knows the thing but does not let us at it."""

    exit_code = 4


class Refused(TerminalError):
    """A rule of Slipway's forbids it."""

    exit_code = 5


class IntegrityError(TerminalError):
    """Bytes differ from their declared hash or size."""

    exit_code = 6


class Conflict(TerminalError):
    """A compare-and-swap lost: another writer came first."""

    exit_code = 7


class CandidateFailed(TerminalError):
    """A candidate did not become healthy, or stopped being so."""

    exit_code = 8


class MachineError(TerminalError):
    """This machine lacks what the step needs."""

    exit_code = 9
