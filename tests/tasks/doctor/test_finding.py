"""Checks that look at once."""

import threading
from collections.abc import Iterable

from tasks._doctor.finding import Finding, look
from tasks.errors import NotFound

WELL = Finding(about="well", what="a", remedy="b")


def test_what_each_finds_is_told_in_order_and_a_silent_one_is_not_waited_for() -> None:
    """An error is a finding, whatever raised it, and so is silence."""
    released = threading.Event()

    def silent() -> Iterable[Finding]:
        released.wait(30)
        return ()

    def wrong() -> Iterable[Finding]:
        raise NotFound("It is gone.", remedy="Bring it back.")

    def broken() -> Iterable[Finding]:
        raise LookupError("secret")

    try:
        found = look({"silent": silent, "well": lambda: [WELL], "wrong": wrong, "broken": broken}, 0.2)
    finally:
        released.set()

    assert ["silent", "well", "wrong", "broken"] == [one.about for one in found]
    assert ("It is gone.", "Bring it back.") == (found[2].what, found[2].remedy)
    assert "LookupError" in found[3].what
    assert "secret" not in found[3].what
