"""Who is named in the record where nobody was."""

import getpass

import pytest

from tasks._who import maker, person


@pytest.mark.parametrize("named", ["", "  "])
def test_a_name_of_nothing_is_the_user_of_this_machine(named: str) -> None:
    """Whoever types a command is somebody."""
    assert getpass.getuser() == person(named)


def test_a_user_without_a_name_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs under a bare number."""

    def nameless() -> str:
        raise OSError

    monkeypatch.setattr(getpass, "getuser", nameless)

    assert "unknown" == person()


@pytest.mark.parametrize(
    ("kind", "name", "tags", "scheduled", "told"),
    [
        pytest.param("SCHEDULE", "nightly", set(), True, "schedule nightly", id="schedule"),
        pytest.param("AUTOMATION", "on-publish", set(), False, "automation on-publish", id="automation"),
        pytest.param("USER", "ada", {"webhook"}, False, "ada", id="person of Prefect Cloud"),
        pytest.param(None, None, {"slipway", "webhook"}, False, "webhook", id="webhook"),
        pytest.param(None, None, set(), True, "schedule", id="schedule of an older server"),
        pytest.param(None, None, {"slipway"}, False, "", id="person"),
    ],
)
def test_what_made_a_run_is_named_by_what_prefect_knows(
    kind: str | None, name: str | None, tags: set[str], scheduled: bool, told: str
) -> None:
    """The creator counts before a tag, which anybody can set."""
    assert told == maker(kind, name, tags=tags, scheduled=scheduled)
