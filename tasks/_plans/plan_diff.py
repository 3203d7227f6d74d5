"""What changes between two commits, or two specs, told by the key: pure, and bounded.

A hash says that a file differs; what a person wants to know is that ``rope_theta`` became ten times larger.  JSON is
compared key by key, templates line by line, everything else by its size.  What came from a Hub is foreign text, so a
value is shown in one line, escaped and cut around the first character that differs.
"""

import difflib
import json
from collections.abc import Iterator, Mapping

from tasks._checks.rendering import one_line
from tasks.records import Value

MOST = 20
"""Differences of one file that are shown; the others are counted."""
LONGEST = 100
"""Characters of a value that are shown."""
BEFORE = 20
"""Characters of a long value that are shown before the first one that differs."""
DEEPEST = 20
"""Levels of JSON that are looked into; what lies deeper is compared as one value."""
MOST_LINES = 5_000
"""Lines of a text that are compared one by one."""


class Difference(Value):
    """One thing that differs; ``key`` is empty for a whole file, a side is None where it has nothing there."""

    where: str
    key: str = ""
    before: str | None = None
    after: str | None = None

    @property
    def line(self) -> str:
        """Return it in one line for a person."""
        name = f"{self.where}: {self.key}" if self.key else self.where
        match self.before, self.after:
            case None, str(after):
                return f"{name}: new, {after}"
            case str(before), None:
                return f"{name}: gone, was {before}"
            case None, None:
                return name
        return f"{name}: {self.before} -> {self.after}"


def file_differences(path: str, before: bytes | None, after: bytes | None) -> tuple[Difference, ...]:
    """Compare two versions of a small file, None where there is none, by what it is."""
    if before == after:
        return ()
    if before is None or after is None:
        return (sized(path, None if before is None else len(before), None if after is None else len(after)),)
    try:
        texts = before.decode(), after.decode()
        if path.endswith(".json"):
            return tree_differences(path, json.loads(texts[0]), json.loads(texts[1]))
    except (ValueError, RecursionError):
        return (sized(path, len(before), len(after)),)
    return _bounded(path, _of_lines(path, texts[0].splitlines(), texts[1].splitlines()))


def tree_differences(where: str, before: object, after: object) -> tuple[Difference, ...]:
    """Compare two trees of JSON by their keys, in the order of the keys."""
    return _bounded(where, _of_trees(where, "", before, after, DEEPEST))


def sized(path: str, before: int | None, after: int | None) -> Difference:
    """Return that a file differs of which only the sizes, in bytes, are to be told; None where it is missing."""
    if before == after:
        return Difference(where=path, key=f"other content in the same {before:,} bytes")
    told = [None if size is None else f"{size:,} bytes" for size in (before, after)]
    return Difference(where=path, before=told[0], after=told[1])


def _bounded(where: str, found: Iterator[Difference]) -> tuple[Difference, ...]:
    every = tuple(found)
    if len(every) <= MOST:
        return every
    return (*every[:MOST], Difference(where=where, key=f"and {len(every) - MOST:,} more differences"))


def _of_trees(where: str, key: str, before: object, after: object, depth: int) -> Iterator[Difference]:
    if depth:
        mine, theirs = _children(before), _children(after)
        if mine is not None and theirs is not None and isinstance(before, list) == isinstance(after, list):
            for name in sorted(mine.keys() | theirs.keys(), key=_place):
                inner = f"{key}.{name}" if key else name
                if name not in theirs:
                    yield Difference(where=where, key=_key(inner), before=_shown(mine[name])[0])
                elif name not in mine:
                    yield Difference(where=where, key=_key(inner), after=_shown(theirs[name])[0])
                else:
                    yield from _of_trees(where, inner, mine[name], theirs[name], depth - 1)
            return
    if before != after or type(before) is not type(after):
        old, new = _shown(before, after)
        yield Difference(where=where, key=_key(key), before=old, after=new)


def _children(value: object) -> Mapping[str, object] | None:
    """Return what is below an object or a list of objects, by name; None for what is compared as a whole."""
    if isinstance(value, dict):
        return value
    if isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        return {str(index): item for index, item in enumerate(value)}
    return None


def _place(name: str) -> str:
    """Return by what to sort: names as they are, the places of a list by their numbers."""
    return name.zfill(8) if name.isdecimal() else name


def _of_lines(path: str, before: list[str], after: list[str]) -> Iterator[Difference]:
    if max(len(before), len(after)) > MOST_LINES:
        yield Difference(where=path, before=f"{len(before):,} lines", after=f"{len(after):,} lines")
        return
    for kind, i, j, k, m in difflib.SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != "equal":
            old, new = _shown("\n".join(before[i:j]), "\n".join(after[k:m]))
            yield Difference(
                where=path, key=f"line {i + 1}", before=old if j > i else None, after=new if m > k else None
            )


def _key(key: str) -> str:
    return one_line(key, LONGEST)


def _shown(*values: object) -> tuple[str, ...]:
    """Return values as a person reads them, long ones from shortly before where they begin to differ."""
    texts = [json.dumps(value, ensure_ascii=False, default=str) for value in values]
    same = 0
    if len(texts) > 1 and max(map(len, texts)) > LONGEST:
        pairs = zip(*texts, strict=False)
        same = next((at for at, pair in enumerate(pairs) if len(set(pair)) > 1), min(map(len, texts)))
    start = max(0, same - BEFORE)
    return tuple(one_line(("…" if start else "") + text[start:], LONGEST) for text in texts)
