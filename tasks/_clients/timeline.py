"""The receipt as a picture: requests by release over time, with switches, losses and unwatched times marked.

A pure function from a receipt to SVG: the same receipt is the same text.  It has a background of its own, so that
it reads on light and dark pages.  Releases take their colours, in the order they first answered, from the
palette of Okabe and Ito, which the common kinds of colour blindness tell apart; losses are told by place and
shape, not by colour alone.
"""

from collections import Counter
from xml.etree import ElementTree as ET

from tasks._checks.rendering import one_line
from tasks._clients.receipt import UNANSWERED, Receipt

WIDTH, HEIGHT = 900, 320
LEFT, RIGHT, TOP, BOTTOM = 58, 880, 100, 262
MOST_BARS = 110
LEAST_SPAN_S = 10
MOST_TICKS = 9
STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
MINUTES_FROM_S = 180
CHARACTER = 6.4

PALETTE = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#8C6D1F")
NO_RELEASE = "#8A8F98"
BACKGROUND, INK, MUTED, GRID, LOSS = "#FCFCFD", "#1B1F24", "#5B6470", "#E3E6EA", "#D0021B"
UNWATCHED = "#EEF0F3"


def timeline(receipt: Receipt, title: str = "Requests by release") -> str:
    """Return the receipt drawn as an SVG document of 900 by 320 pixels."""
    return _Drawing(receipt).draw(title)


class _Drawing:
    """One picture on its way: the scales, and the elements drawn so far."""

    def __init__(self, receipt: Receipt) -> None:
        self.receipt = receipt
        self.length_s = max(LEAST_SPAN_S, *(second.second + 1 for second in receipt.seconds), 1)
        self.bar_s = _step(self.length_s, MOST_BARS)
        self.bars: dict[int, Counter[str]] = {}
        for second in receipt.seconds:
            self.bars.setdefault(second.second // self.bar_s, Counter()).update(second.by_release)
        self.colours = _colours(receipt)
        highest = max((bar.total() for bar in self.bars.values()), default=1)
        self.tick = _nice(highest / 4)
        self.top = self.tick * -(-highest // self.tick)
        self.span_s = self.bar_s * -(-self.length_s // self.bar_s)
        self.svg = ET.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "viewBox": f"0 0 {WIDTH} {HEIGHT}",
                "width": str(WIDTH),
                "height": str(HEIGHT),
                "role": "img",
                "font-family": "system-ui, 'Segoe UI', Helvetica, Arial, 'DejaVu Sans', sans-serif",
                "font-size": "12",
                "fill": INK,
            },
        )

    def draw(self, title: str) -> str:
        numbers = self.receipt
        subtitle = (
            f"{numbers.requests} requests · {numbers.lost} lost · {numbers.truncated} truncated · "
            f"{numbers.wrong} by a wrong release · {numbers.slow} slow · "
            f"slowest gap {numbers.slowest_gap_s:.2f} s"
        )
        self.svg.set("aria-label", f"{title}: {subtitle}")
        ET.SubElement(self.svg, "title").text = f"{title}: {subtitle}"
        self._add("rect", x=0.5, y=0.5, width=WIDTH - 1, height=HEIGHT - 1, rx=8, fill=BACKGROUND, stroke=GRID)
        self._text(20, 28, title, **{"font-size": "15", "font-weight": "600"})
        self._text(20, 48, subtitle, fill=MUTED)
        self._legend()
        self._gaps()
        self._axes()
        self._stacks()
        self._switches()
        self._losses()
        ET.indent(self.svg, space=" ")
        return ET.tostring(self.svg, encoding="unicode") + "\n"

    def _x(self, seconds: float) -> float:
        return LEFT + (RIGHT - LEFT) * seconds / self.span_s

    def _y(self, count: float) -> float:
        return BOTTOM - (BOTTOM - TOP) * count / self.top

    def _add(self, tag: str, **attributes: float | str) -> ET.Element:
        texts = {name.replace("_", "-"): _text(value) for name, value in attributes.items()}
        return ET.SubElement(self.svg, tag, texts)

    def _text(self, x: float, y: float, words: str, **attributes: float | str) -> None:
        self._add("text", x=x, y=y, **attributes).text = one_line(words, len(words))

    def _legend(self) -> None:
        items = [("no release" if n == UNANSWERED else n, colour) for n, colour in self.colours.items()]
        if self.receipt.failed:
            items.append(("lost, truncated or wrong", LOSS))
        if self.receipt.gaps:
            items.append(("no probe ran", UNWATCHED))
        x = RIGHT - sum(26 + CHARACTER * len(name) for name, _ in items) + 10
        for name, colour in items:
            self._add("rect", x=x, y=18, width=4 if colour == LOSS else 11, height=11, rx=1.5, fill=colour)
            self._text(x + 16, 28, name)
            x += 26 + CHARACTER * len(name)

    def _gaps(self) -> None:
        for gap in self.receipt.gaps:
            start, end = (self._x(min(max(moment, 0), self.span_s)) for moment in (gap.from_s, gap.to_s))
            self._add(
                "rect", x=start, y=TOP - 8, width=max(end - start, 1.5), height=BOTTOM - TOP + 8, fill=UNWATCHED
            )

    def _axes(self) -> None:
        for count in range(0, self.top + 1, self.tick):
            y = self._y(count)
            self._add("line", x1=LEFT, x2=RIGHT, y1=y, y2=y, stroke=GRID if count else MUTED)
            self._text(LEFT - 8, y + 4, str(count), text_anchor="end", fill=MUTED)
        in_minutes = self.span_s >= MINUTES_FROM_S
        for moment in range(0, self.span_s + 1, _step(self.span_s, MOST_TICKS)):
            x = self._x(moment)
            self._add("line", x1=x, x2=x, y1=BOTTOM, y2=BOTTOM + 5, stroke=MUTED)
            label = f"{moment // 60}:{moment % 60:02}" if in_minutes else str(moment)
            self._text(x, BOTTOM + 19, label, text_anchor="middle", fill=MUTED)
        unit = "min:s" if in_minutes else "s"
        middle = (TOP + BOTTOM) / 2
        self._text((LEFT + RIGHT) / 2, BOTTOM + 41, f"time since the first request ({unit})", text_anchor="middle")
        turned = f"rotate(-90 20 {_text(middle)})"
        per = "per second" if self.bar_s == 1 else f"per {self.bar_s} s"
        self._text(20, middle, f"requests ended {per}", text_anchor="middle", transform=turned)

    def _stacks(self) -> None:
        width = self._x(self.bar_s) - LEFT
        gap = min(1.0, width / 6)
        for index, bar in sorted(self.bars.items()):
            below = 0
            for release, colour in self.colours.items():
                count = bar[release]
                if count:
                    self._add(
                        "rect",
                        x=self._x(index * self.bar_s) + gap / 2,
                        y=self._y(below + count),
                        width=width - gap,
                        height=self._y(below) - self._y(below + count),
                        fill=colour,
                    )
                below += count

    def _switches(self) -> None:
        ends = [0.0, 0.0]
        for switch in self.receipt.switches:
            x = self._x(min(switch.after_s, self.span_s))
            label = f"{switch.from_release} → {switch.to_release}, {switch.streams_open} streams open across"
            length = CHARACTER * len(label)
            start = x - length if x + length > RIGHT else x
            row = 0 if start >= ends[0] else 1
            ends[row] = start + length + 12
            y = 70 + 15 * row
            self._add("line", x1=x, x2=x, y1=y + 5, y2=BOTTOM, stroke=INK, stroke_width=1.4, stroke_dasharray="4 3")
            anchor = "end" if start < x else "start"
            halo: dict[str, float | str] = {"stroke": BACKGROUND, "stroke_width": 4, "paint_order": "stroke"}
            self._text(x, y, label, text_anchor=anchor, font_weight="600", **halo)

    def _losses(self) -> None:
        for second in self.receipt.seconds:
            if second.failed:
                x = self._x(second.second + 0.5)
                self._add("rect", x=x - 1.5, y=TOP - 4, width=3, height=16, rx=1, fill=LOSS, stroke=BACKGROUND)


def _colours(receipt: Receipt) -> dict[str, str]:
    """Return a colour for each release, in the order in which they first answered."""
    names = dict.fromkeys(name for second in receipt.seconds for name in second.by_release)
    releases = [name for name in names if name != UNANSWERED]
    colours = {name: PALETTE[index % len(PALETTE)] for index, name in enumerate(releases)}
    return colours | ({UNANSWERED: NO_RELEASE} if UNANSWERED in names else {})


def _step(length_s: int, most: int) -> int:
    """Return the smallest round number of seconds that divides ``length_s`` into at most ``most`` parts."""
    return next((step for step in STEPS_S if length_s <= step * most), STEPS_S[-1])


def _nice(value: float) -> int:
    """Return the smallest of 1, 2, 5, 10, 20, 50 ... that is no less than ``value``."""
    power = 1
    while True:
        for leading in (1, 2, 5):
            if leading * power >= value:
                return leading * power
        power *= 10


def _text(value: float | str) -> str:
    """Return an attribute's text; numbers keep two decimals."""
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
