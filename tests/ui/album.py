"""Puts pictures of the last browser test into the documentation: ``python -m tests.ui.album``."""

import os
import sys
from pathlib import Path

from PIL import Image

ROOT = Path(__file__).parents[2]
TAKEN = Path(os.environ.get("SLIPWAY_UI_PICTURES", ROOT / ".slipway" / "ui-pictures"))
KEPT = ROOT / "docs" / "pictures"
SHOWN = (
    "deployments",
    "release-form",
    "promoted",
    "report",
    "receipt",
    "answer",
    "refused-checks",
    "roll-back-form",
    "runs",
    "schedule",
)
"""The stations that the documentation shows, by the names that the test gives its pictures."""
COLOURS, MOST_PIXELS, MOST_BYTES = 128, 1600, 200_000


def main() -> int:
    """Keep each picture with few colours and no longer than a screen or two; return the exit status."""
    KEPT.mkdir(parents=True, exist_ok=True)
    for name in SHOWN:
        found = sorted(TAKEN.glob(f"??-{name}.png"))
        if not found:
            sys.stderr.write(f"No picture of {name!r} is in {TAKEN}: run `make test-ui`, which takes them.\n")
            return 1
        kept = KEPT / f"{name}.png"
        with Image.open(found[0]) as picture:
            shown = picture.convert("RGB").crop((0, 0, picture.width, min(picture.height, MOST_PIXELS)))
            shown.quantize(COLOURS).save(kept, optimize=True)
        if kept.stat().st_size >= MOST_BYTES:
            sys.stderr.write(f"{kept} has {kept.stat().st_size:,} bytes; {MOST_BYTES:,} are the most.\n")
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
