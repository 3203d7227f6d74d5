"""The allow-list: read again when specs change, and never emptied by one that is broken."""

from pathlib import Path

import pytest

from tasks._receiver.services import Services, is_ref
from tests.fakes.webhooks import MODEL, SPEC


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the service ``chat``."""
    (tmp_path / "chat.yaml").write_text(SPEC)
    return tmp_path


def test_services_are_found_by_model_and_ref(folder: Path) -> None:
    """Several may follow one ref; another ref of a known model is followed by none."""
    (folder / "also.yaml").write_text(f"service: also\nmodel: {MODEL}\nref: main\n")
    (folder / "old.yaml").write_text(f"service: old\nmodel: {MODEL}\nref: v1\n")
    services = Services(folder)

    assert ("also", "chat") == services.following(MODEL, "refs/heads/main")
    assert ("old",) == services.following(MODEL, "refs/tags/v1")
    assert () == services.following(MODEL, "refs/pr/1")
    assert [True, False] == [services.knows(MODEL), services.knows("acme/other")]


def test_changes_are_seen(folder: Path) -> None:
    """A service that comes, one that follows another ref, and one that goes."""
    services = Services(folder)
    (folder / "new.yaml").write_text("service: new\nmodel: acme/new\n")
    (folder / "chat.yaml").write_text(SPEC + "ref: stable\n")
    services.look()

    assert [("new",), (), ("chat",)] == [
        services.following(*asked) for asked in (("acme/new", "main"), (MODEL, "main"), (MODEL, "stable"))
    ]
    (folder / "new.yaml").unlink()
    services.look()
    assert not services.knows("acme/new")


def test_a_broken_spec_leaves_the_last_good_one(folder: Path) -> None:
    """It is named until it is mended, and keeps no other service from being followed."""
    services = Services(folder)
    (folder / "chat.yaml").write_text("service: chat\nmodle: x/y\n")
    (folder / "new.yaml").write_text("service: new\nmodel: acme/new\n")
    services.look()
    services.look()

    assert (("chat",), ("new",)) == (services.following(MODEL, "main"), services.following("acme/new", "main"))
    assert ["chat"] == list(services.trouble)
    (folder / "chat.yaml").write_text(SPEC + "ref: stable\n")
    services.look()
    assert ({}, ("chat",)) == (services.trouble, services.following(MODEL, "stable"))


def test_a_folder_that_is_away_changes_nothing(folder: Path) -> None:
    """A mount that blinks is no decision to follow nothing."""
    services = Services(folder)
    folder.rename(folder.with_name("gone"))
    services.look()

    assert ("chat",) == services.following(MODEL, "main")
    assert services.trouble


@pytest.mark.parametrize(
    ("followed", "told", "same"),
    [
        ("main", "refs/heads/main", True),
        ("main", "main", True),
        ("v1", "refs/tags/v1", True),
        ("refs/pr/3", "refs/pr/3", True),
        ("main", "refs/pr/3", False),
        ("main", "refs/heads/main2", False),
        ("main", "refs/heads/feature/main", False),
        ("0" * 40, "refs/heads/main", False),
    ],
)
def test_refs_are_the_same_by_their_short_and_full_names(followed: str, told: str, *, same: bool) -> None:
    """Nothing else is: a service that is held at a commit follows no ref."""
    assert same is is_ref(followed, told)
