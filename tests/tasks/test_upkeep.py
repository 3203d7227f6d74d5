"""What a person or a schedule asks of stored weights: names are judged before anything is reached."""

import pytest

from tasks import _upkeep
from tasks.errors import BadInput
from tasks.settings import Settings


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        ("acme/tiny", ("acme/tiny", None)),
        ("acme/tiny@main", ("acme/tiny", "main")),
        ("acme/tiny@refs/pr/1", ("acme/tiny", "refs/pr/1")),
    ],
)
def test_a_target_is_a_model_and_perhaps_a_ref(target: str, expected: tuple[str, str | None]) -> None:
    """The first @ parts them."""
    assert _upkeep.parse_target(target) == expected


@pytest.mark.parametrize("target", ["tiny", "", "@main", "acme/tiny@", "a/b/c", "../x", "acme/tiny\n"])
def test_what_names_no_model_is_bad_input(target: str) -> None:
    """One sentence that quotes it."""
    with pytest.raises(BadInput, match="names no model"):
        _upkeep.parse_target(target)


def test_only_a_commit_is_verified() -> None:
    """A branch may mean another commit by now than the one that was mirrored."""
    with pytest.raises(BadInput, match="names no commit"):
        _upkeep.verify_target(Settings(), "acme/tiny@main", deep=False)


def test_what_no_hub_calls_a_licence_is_bad_input() -> None:
    """A misspelt licence would refuse everything."""
    with pytest.raises(BadInput, match="MIT License"):
        _upkeep.limits_of(("MIT License",))
