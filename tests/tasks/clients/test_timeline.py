"""The picture says what the receipt says, is valid XML, and is the same each time."""

from datetime import UTC, datetime
from xml.etree import ElementTree as ET

from tasks._clients.receipt import Gap, Receipt, Second, receipt
from tasks._clients.switches import Switch
from tasks._clients.timeline import BOTTOM, LEFT, LOSS, RIGHT, TOP, UNWATCHED, timeline

SVG = "{http://www.w3.org/2000/svg}"
SWITCH = Switch(
    at=datetime(2025, 1, 1, tzinfo=UTC), after_s=12.0, from_release="chat-r1", to_release="chat-r2", streams_open=31
)


def drawn(*seconds: Second, switches: tuple[Switch, ...] = (), lost: int = 0) -> ET.Element:
    """Return the picture of a receipt with these seconds, parsed."""
    requests = sum(sum(second.by_release.values()) for second in seconds)
    update = {"seconds": seconds, "switches": switches, "lost": lost, "requests": requests}
    return ET.fromstring(timeline(receipt([]).model_copy(update=update)))  # noqa: S314 - our own text


def words(svg: ET.Element) -> list[str]:
    """Return every text of the picture."""
    return [element.text or "" for element in svg.iter(f"{SVG}text")]


def bars(svg: ET.Element) -> list[tuple[str, float]]:
    """Return the colour and height of each bar, from left to right and bottom to top."""
    rects = [rect for rect in svg.iter(f"{SVG}rect") if TOP <= float(rect.get("y", "")) < BOTTOM]
    return [(rect.get("fill", ""), float(rect.get("height", ""))) for rect in rects]


def test_bars_are_as_high_as_their_counts() -> None:
    """Heights in a stack are proportional to what each release answered in that time."""
    svg = drawn(
        Second(second=0, by_release={"chat-r1": 4}), Second(second=3, by_release={"chat-r1": 1, "chat-r2": 2})
    )
    (first, four), (_, one), (second, two) = bars(svg)

    assert four == (BOTTOM - TOP)
    assert (one, two) == (four / 4, four / 2)
    assert first != second


def test_switch_and_legend_are_named() -> None:
    """The switch, both releases, and the units of both axes are written out."""
    svg = drawn(Second(second=20, by_release={"chat-r1": 1, "chat-r2": 2}), switches=(SWITCH,))

    assert "chat-r1 → chat-r2, 31 streams open across" in words(svg)
    assert {"chat-r1", "chat-r2", "requests ended per second", "time since the first request (s)"} <= set(words(svg))
    assert len([line for line in svg.iter(f"{SVG}line") if line.get("stroke-dasharray")]) == 1


def test_losses_are_marked() -> None:
    """Each second with a loss has its red tick, and the legend says what it means; without loss there is none."""
    lossy = drawn(Second(second=1, by_release={"(none)": 2}, failed=2), lost=2)
    clean = drawn(Second(second=1, by_release={"chat-r1": 2}))
    red = [[rect for rect in svg.iter(f"{SVG}rect") if rect.get("fill") == LOSS] for svg in (lossy, clean)]

    assert [len(ticks) for ticks in red] == [2, 0]
    assert {"lost, truncated or wrong", "no release"} <= set(words(lossy))


def test_unwatched_times_are_marked() -> None:
    """A time without a probe is a band that reaches from its beginning to its end, inside the picture."""
    seen = receipt([]).model_copy(update={"gaps": (Gap(from_s=-5, to_s=2, moving=False),)})
    svg = ET.fromstring(timeline(seen))  # noqa: S314 - our own text
    bands = [rect for rect in svg.iter(f"{SVG}rect") if rect.get("fill") == UNWATCHED and rect.get("rx") is None]

    assert [(band.get("x"), band.get("width")) for band in bands] == [(str(LEFT), str((RIGHT - LEFT) / 5))]
    assert "no probe ran" in words(svg)


def test_long_runs_are_binned() -> None:
    """An hour is drawn in minutes and in no more bars than can be told apart; nothing is dropped."""
    svg = drawn(*(Second(second=second, by_release={"chat-r1": 1}) for second in range(3600)))

    assert len(bars(svg)) == 60
    assert {"requests ended per 60 s", "time since the first request (min:s)", "60:00"} <= set(words(svg))


def test_nothing_to_draw() -> None:
    """An empty receipt is a picture with empty axes, inside its frame."""
    assert bars(drawn()) == []


def test_hostile_names_stay_text() -> None:
    """A release name with markup in it cannot break the document."""
    svg = drawn(Second(second=0, by_release={"</text><script>&": 1}))

    assert "</text><script>&" in words(svg)
    assert list(svg.iter(f"{SVG}script")) == []


def test_deterministic() -> None:
    """The same receipt is drawn as the same text."""
    one: Receipt = receipt([])

    assert timeline(one) == timeline(Receipt.from_json(one.to_json()))


def test_everything_is_inside() -> None:
    """Labels of switches at the edges and close together neither leave the picture nor cover each other."""
    switches = tuple(SWITCH.model_copy(update={"after_s": after}) for after in (0.0, 1.0, 59.5))
    svg = drawn(Second(second=59, by_release={"chat-r1": 1}), switches=switches)
    labels = [t for t in svg.iter(f"{SVG}text") if "→" in (t.text or "")]

    assert [t.get("text-anchor") for t in labels] == ["start", "start", "end"]
    assert labels[0].get("y") != labels[1].get("y")
