"""What differs between two versions of a file, told by its keys and lines."""

import json

import pytest

from tasks._plans.plan_diff import LONGEST, MOST, Difference, file_differences, sized, tree_differences


def told(path: str, before: object, after: object) -> list[str]:
    """Return the lines of what differs between two trees of JSON in the file ``path``."""
    return [one.line for one in file_differences(path, json.dumps(before).encode(), json.dumps(after).encode())]


def test_json_is_compared_by_keys() -> None:
    """Order and spaces mean nothing; a value, a new key and a lost one are told by their path."""
    before = {"rope": {"theta": 1e4, "type": "linear"}, "layers": 30, "eos": [1, 2]}
    after = {"eos": [1, 3], "layers": 30, "rope": {"theta": 1e5, "factor": 8}}

    assert [
        "config.json: eos: [1, 2] -> [1, 3]",
        "config.json: rope.factor: new, 8",
        "config.json: rope.theta: 10000.0 -> 100000.0",
        'config.json: rope.type: gone, was "linear"',
    ] == sorted(told("config.json", before, after))
    assert file_differences("config.json", b'{"a": 1, "b": 2}', b'{"b":2,"a":1}') == ()


def test_lists_of_objects_are_looked_into() -> None:
    """Named templates, or tokens: one of them that differs is told, not the whole list."""
    before = {"chat_template": [{"name": "default", "template": "a"}, {"name": "tool", "template": "b"}]}
    after = {"chat_template": [{"name": "default", "template": "a"}, {"name": "tool", "template": "c"}]}

    assert ['t.json: chat_template.1.template: "b" -> "c"'] == told("t.json", before, after)


@pytest.mark.parametrize(("before", "after"), [(1, True), (0, None), ({}, []), ("1", 1), ([], None)])
def test_other_types_are_other_values(before: object, after: object) -> None:
    """``1`` and ``true`` are equal to Python and not to an engine."""
    assert len(tree_differences("x", {"a": before}, {"a": after})) == 1


def test_many_differences_are_counted() -> None:
    """A table of a thousand tokens does not push the rest off the screen."""
    found = told("tokenizer_config.json", {}, {str(number): number for number in range(1000)})

    assert len(found) == MOST + 1
    assert found[-1] == f"tokenizer_config.json: and {1000 - MOST} more differences"


def test_long_values_are_cut_around_what_differs() -> None:
    """Two templates that begin alike do not look alike."""
    (line,) = told("t.json", {"chat_template": "x" * 5000 + "old"}, {"chat_template": "x" * 5000 + "new"})

    assert "old" in line
    assert "new" in line
    assert len(line) < 3 * LONGEST


def test_foreign_text_cannot_break_the_line() -> None:
    """Neither a value nor a key that came from a Hub."""
    (line,) = told("t.json", {}, {"a\nb": "c\nd\x1b[31m"})

    assert line.isprintable()


def test_templates_are_compared_line_by_line() -> None:
    """A changed line, lines in place of others, and a new one."""
    found = file_differences("t.jinja", b"a\nb\nc\nd", b"a\nB\nc\nx\ny")

    assert ['t.jinja: line 2: "b" -> "B"', 't.jinja: line 4: "d" -> "x\\ny"'] == [one.line for one in found]
    assert ['t.jinja: line 2: new, "b"'] == [one.line for one in file_differences("t.jinja", b"a", b"a\nb")]


@pytest.mark.parametrize("damaged", [b"{", b"\xff", b"[" * 100_000])
def test_what_cannot_be_read_is_told_by_its_size(damaged: bytes) -> None:
    """It is judged elsewhere; here it must not end the plan."""
    assert file_differences("config.json", b"{}", damaged) == (sized("config.json", 2, len(damaged)),)


def test_nesting_beyond_the_depth_is_one_value() -> None:
    """A tree as deep as a reader takes is compared without end of stack."""
    deep = json.loads("[" * 300 + "]" * 300)

    assert len(tree_differences("x", {"a": deep}, {"a": [deep]})) == 1


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (None, 5, "f: new, 5 bytes"),
        (5, None, "f: gone, was 5 bytes"),
        (5, 1234, "f: 5 bytes -> 1,234 bytes"),
        (5, 5, "f: other content in the same 5 bytes"),
    ],
)
def test_files_are_told_by_their_sizes(before: int | None, after: int | None, line: str) -> None:
    """A tokenizer's table is data that nobody reads."""
    assert sized("f", before, after).line == line
    assert Difference.from_json(sized("f", before, after).to_json()) == sized("f", before, after)
