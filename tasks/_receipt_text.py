"""The receipt in words: one line, one sentence, and the Markdown of the Prefect artifact."""

from collections.abc import Iterable, Sequence

from tasks._receipt import UNANSWERED, Receipt
from tasks.records import Verdict


def summary(receipt: Receipt) -> str:
    """Return the receipt in one line."""
    by_release = ", ".join(f"{release} {count}" for release, count in receipt.by_release.items())
    return (
        f"{receipt.requests} requests ({receipt.streams} streams), {receipt.lost} lost, "
        f"{receipt.truncated} truncated, {receipt.streams_open_across} streams open across "
        f"{len(receipt.switches)} switches, slowest gap {receipt.slowest_gap_s:.2f} s; "
        f"{by_release or 'no answers'}"
    )


def sentence(receipt: Receipt) -> str:
    """Return the verdict as a person would say it."""
    match receipt.verdict:
        case Verdict.PASS:
            return f"No client lost anything: {receipt.requests} requests, every answer whole."
        case Verdict.FAIL:
            failed = f"{receipt.lost} lost and {receipt.truncated} truncated"
            return f"Clients lost answers: {failed}, of {receipt.requests} requests."
        case Verdict.INCONCLUSIVE if not receipt.requests:
            return "Nothing is proved: the probe made no request."
    return "Nothing is proved: the probe could not ask as much as it was told to."


def markdown(receipt: Receipt) -> str:
    """Return the receipt as Markdown: the verdict, the numbers, the switches, and each failure shown."""
    rows = [
        ("requests", f"{receipt.requests} ({receipt.streams} streams, {receipt.plain} plain)"),
        ("lost", str(receipt.lost)),
        ("truncated", str(receipt.truncated)),
        *((f"answered by {release}", str(count)) for release, count in receipt.by_release.items()),
        ("slowest gap in a stream", f"{receipt.slowest_gap_s:.2f} s"),
        ("slowest first token", f"{receipt.slowest_first_token_s:.2f} s"),
        *((f"odd: {note}", str(count)) for note, count in receipt.odd.items()),
    ]
    if receipt.probe:
        cost = f"{receipt.probe.cpu_s:.1f} CPU seconds in {receipt.probe.wall_s:.0f} s"
        rows.append(("the probe", f"asked {receipt.probe.achieved:.1%} of what it was told to; {cost}"))
    parts = [f"**{sentence(receipt)}**", _table(("what clients saw", "count"), rows)]
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
