"""JSON from a Hub, parsed so that nothing in it is overlooked: repeated keys, nesting that exhausts a reader.

Of two equal keys most readers keep the last and some the first.  So every object is shown with all its pairs, and
whoever judges it decides.
"""

import json
from collections.abc import Callable

from tasks._weights.names import refusal

Pairs = list[tuple[str, object]]


def read_text(path: str, data: bytes, *, part: str = "") -> str:
    """Return the UTF-8 text of the file ``path``; raises ``Refused`` for other bytes, and for a NUL among them.

    ``part`` begins what a refusal says, where ``data`` is only a part of the file.
    """
    if b"\0" in data:
        raise refusal(path, f"{part}is no text: it holds a NUL")
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise refusal(path, f"{part}is no UTF-8 from byte {error.start:,} on") from error


def parse(path: str, data: bytes, on_object: Callable[[Pairs], object], *, part: str = "") -> object:
    """Return the tree of the file ``path``; each object is what ``on_object`` makes of its pairs, inner ones first.

    Raises ``Refused`` as ``read_text`` does, and for what is not JSON or nested too deeply to be read.
    """
    text = read_text(path, data, part=part)
    try:
        return json.loads(text, object_pairs_hook=on_object)
    except ValueError as error:
        raise refusal(path, f"{part}is not JSON: {error}") from error
    except RecursionError as error:
        raise refusal(path, f"{part}is JSON that is nested too deeply") from error


def parse_unique(path: str, data: bytes, *, part: str = "") -> object:
    """Return the tree of the file ``path``; raises ``Refused`` as ``parse`` does, and for a repeated key."""

    def unique(pairs: Pairs) -> dict[str, object]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise refusal(path, f"{part}is JSON in which a key occurs twice")
        return found

    return parse(path, data, unique, part=part)
