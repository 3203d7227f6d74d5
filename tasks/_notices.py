"""What people are told of a release: one subject and one body, the same for every receiver; a pure function.

A message leaves the house, so it holds less than the record does: a reason may quote what a model or a server said.
Of an address the query, which signs it, and a password are cut, what looks like a key or a token is masked, and
what a chat would read as markup or as a call to everybody is plain text.
"""

import re
from urllib.parse import urlsplit

from tasks._checks.rendering import one_line
from tasks._release.journal import evidence_key
from tasks._release.report import NAME
from tasks._spec_notify import Event
from tasks.records import Kind, Outcome, Progress, Value

LONGEST = 600
"""Characters of a reason that are told; the page of the release has the rest."""

EVENTS = {
    Outcome.PROMOTED: Event.PROMOTED,
    Outcome.REFUSED: Event.REFUSED,
    Outcome.FAILED: Event.FAILED,
    Outcome.ROLLED_BACK: Event.ROLLED_BACK,
}
SUBJECTS = {
    Event.WAITING: "{} waits for a person",
    Event.PROMOTED: "{} is live",
    Event.REFUSED: "{} was refused",
    Event.FAILED: "{} failed",
    Event.ROLLED_BACK: "{} was rolled back",
}

_URL = re.compile(r"\b[a-z][a-z0-9+.-]*://[^\s\"'<>`]+", re.IGNORECASE)
_NAMES = "password|passwd|secret|token|key|credential|signature"
_SECRETS = (
    re.compile(r"()\b(?:hf_|sk-|xox[a-z]-|gh[a-z]_|glpat-|pn[a-z]_|AKIA|ASIA)[\w-]{8,}"),
    re.compile(r"()\beyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?"),
    re.compile(r"\b(bearer\s+|authorization\W+(?:bearer|basic)?\s*)[^\s\"']{8,}", re.IGNORECASE),
    re.compile(rf"((?:{_NAMES})[\"']?\s*[=:]\s*[\"']?)[^\s\"',;]{{8,}}", re.IGNORECASE),
    re.compile(r"()-----BEGIN [A-Z ]*PRIVATE KEY-----.*", re.DOTALL),
)
"""What looks like a secret, after what may stay."""
_CALLS = re.compile(r"@(?=everyone|here|channel|all\b)")
_MARKUP = str.maketrans("<>`", "[]'")


class Notice(Value):
    """One message."""

    event: Event
    subject: str
    body: str


def notice_of(progress: Progress, *, run_page: str, store: str) -> Notice | None:
    """Return what to tell of a release that asks a person or has ended; None where there is nothing to tell.

    ``run_page`` is the address of its run in the Prefect UI, empty for none; ``store`` is the store's, where the page
    of an ended release lies.
    """
    event = _event(progress)
    if event is None:
        return None
    release = progress.release
    again = " again" if progress.kind is not Kind.RELEASE and progress.outcome is Outcome.PROMOTED else ""
    subject = f"{release.name} is live again" if again else SUBJECTS[event].format(release.name)
    lines = (
        f"{safe(release.model)} at commit {release.commit[:12]}, {_asked(progress)}.",
        *_reason(progress),
        *((f"Run: {run_page}",) if run_page else ()),
        *_page(progress, store),
    )
    return Notice(event=event, subject=subject, body="\n".join(lines))


def safe(text: str) -> str:
    """Return ``text`` in one line of at most ``LONGEST`` characters, without what may be a secret, and no markup."""
    text = _URL.sub(_without_query, text)
    for secret in _SECRETS:
        text = secret.sub(r"\1***", text)
    return _CALLS.sub("(at)", one_line(text, LONGEST)).translate(_MARKUP)


def _event(progress: Progress) -> Event | None:
    if progress.outcome is None:
        return Event.WAITING if progress.question is not None and progress.failure is None else None
    if progress.outcome is Outcome.PROMOTED and progress.kind is Kind.ROLL_BACK:
        return Event.ROLLED_BACK
    return EVENTS.get(progress.outcome)


def _asked(progress: Progress) -> str:
    what = progress.kind.value.replace("_", " ")
    why = f": {safe(progress.reason)}" if progress.reason else ""
    return f"a {what} asked for by {safe(progress.actor) or 'nobody named'}{why}"


def _reason(progress: Progress) -> tuple[str, ...]:
    answers = tuple(
        f"{'Approved' if one.granted else 'Rejected'} by {safe(one.who)}{f': {safe(one.why)}' if one.why else ''}"
        for one in progress.approvals
    )
    if progress.failure is not None:
        return (*answers, f"Reason: {safe(progress.failure.reason)}")
    question, service = progress.question, progress.release.service
    if question is None:
        return answers
    return (
        f"Question: {safe(question.text)}",
        f"No answer by {question.until:%Y-%m-%d %H:%M} UTC is a refusal. Answer on the page of the run, or with:",
        f'    slipway approve {service} --reason "..."',
        f'    slipway reject {service} --reason "..."',
    )


def _page(progress: Progress, store: str) -> tuple[str, ...]:
    if progress.outcome is None:
        return ()
    release = progress.release
    where = f"{store.rstrip('/')}/{evidence_key(progress, NAME)}"
    return (f"Report: slipway report {release.service} {release.name}", f"    {where}")


def _without_query(found: re.Match[str]) -> str:
    """Return an address without user, password, query and fragment; what cannot be read as one is cut whole."""
    try:
        parts = urlsplit(found[0])
        host = parts.netloc.rpartition("@")[2]
    except ValueError:
        return "***"
    cut = "?***" if parts.query else ""
    return f"{parts.scheme}://{host}{parts.path}{cut}"
