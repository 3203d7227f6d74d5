"""The receipt in words: one line, one sentence, and the Markdown of the Prefect artifact."""

from collections.abc import Iterable, Sequence

from tasks._clients.receipt import LEAST_ACHIEVED, UNANSWERED, Receipt
from tasks.records import Verdict


def summary(receipt: Receipt) -> str:
    """Return the receipt in one line."""
    by_release = ", ".join(f"{release} {count}" for release, count in receipt.by_release.items())
    return (
        f"{receipt.requests} requests ({receipt.streams} streams), {receipt.lost} lost, "
        f"{receipt.truncated} truncated, {receipt.wrong} wrong, {receipt.slow} slow, "
        f"{receipt.streams_open_across} streams open across "
        f"{len(receipt.switches)} switches, slowest gap {receipt.slowest_gap_s:.2f} s; "
        f"{by_release or 'no answers'}"
    )


def sentence(receipt: Receipt) -> str:
    """Return the verdict as a person would say it, and what was not watched."""
    return " ".join(part for part in (_verdict(receipt), _slow(receipt), _unwatched(receipt)) if part)


def _verdict(receipt: Receipt) -> str:
    match receipt.verdict:
        case Verdict.PASS:
            return f"No client lost anything: {receipt.requests} requests, every answer whole and by a live release."
        case Verdict.FAIL:
            failed = f"{receipt.lost} lost, {receipt.truncated} truncated and {receipt.wrong} by a wrong release"
            return f"Clients lost answers: {failed}, of {receipt.requests} requests."
    if not receipt.requests and receipt.may_answer == ():
        return "Nobody was live, so there was nothing to see."
    return f"Nothing is proved: {_doubt(receipt)}."


def _doubt(receipt: Receipt) -> str:
    if receipt.broken:
        return f"the probe ended before its time ({receipt.broken})"
    if not receipt.requests:
        return "the probe made no request"
    if receipt.probe and receipt.probe.achieved < LEAST_ACHIEVED:
        return "the probe could not ask as much as it was told to"
    return "no probe ran while traffic moved"


def _slow(receipt: Receipt) -> str:
    return f"{receipt.slow} took longer than {receipt.slow_s:g} s." if receipt.slow else ""


def _unwatched(receipt: Receipt) -> str:
    """Return the times without a probe in words."""
    gaps = ", ".join(f"for {gap.to_s - gap.from_s:.0f} s from {_moment(gap.from_s)}" for gap in receipt.gaps)
    return f"No probe ran {gaps}." if gaps else ""


def _moment(seconds: float) -> str:
    return f"{abs(seconds):.0f} s {'before' if seconds < 0 else 'after'} the first request"


def numbers(receipt: Receipt) -> tuple[tuple[str, str], ...]:
    """Return what clients saw, as rows of a name and a count."""
    rows = [
        ("requests", f"{receipt.requests} ({receipt.streams} streams, {receipt.plain} plain)"),
        ("lost", str(receipt.lost)),
        ("truncated", str(receipt.truncated)),
        ("answered by a release that was not live", str(receipt.wrong)),
        (f"slower than {receipt.slow_s:g} s", str(receipt.slow)),
        *((f"answered by {release}", str(count)) for release, count in receipt.by_release.items()),
        ("slowest gap in a stream", f"{receipt.slowest_gap_s:.2f} s"),
        ("slowest first token", f"{receipt.slowest_first_token_s:.2f} s"),
        *((f"odd: {note}", str(count)) for note, count in receipt.odd.items()),
        *((f"no probe ran from {_moment(gap.from_s)}", f"for {gap.to_s - gap.from_s:.1f} s") for gap in receipt.gaps),
    ]
    if receipt.probe:
        cost = f"{receipt.probe.cpu_s:.1f} CPU seconds in {receipt.probe.wall_s:.0f} s"
        rows.append(("the probe", f"asked {receipt.probe.achieved:.1%} of what it was told to; {cost}"))
    return tuple(rows)


def markdown(receipt: Receipt) -> str:
    """Return the receipt as Markdown: the verdict, the numbers, the switches, and each failure shown."""
    parts = [f"**{sentence(receipt)}**", _table(("what clients saw", "count"), numbers(receipt))]
    if receipt.switches:
        switches = [
            (
                f"{s.at:%H:%M:%S} UTC",
                f"{s.after_s:.1f} s",
                f"{s.from_release} → {s.to_release}",
                str(s.streams_open),
            )
            for s in receipt.switches
        ]
        parts.append(_table(("switch", "after", "releases", "streams open across it"), switches))
    if receipt.losses:
        losses = [
            (f"{x.after_s:.1f} s", x.kind.value, x.outcome.value, x.release or UNANSWERED, x.note)
            for x in receipt.losses
        ]
        parts.append(_table(("after", "kind", "outcome", "release", "why"), losses))
    return "\n\n".join(parts) + "\n"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)
