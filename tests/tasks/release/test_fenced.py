"""A fenced target: every change asks first whether the lease is still held, and no look does."""

import inspect
from typing import Any

import pytest

from tasks._release.fenced import Fenced
from tasks._release.machine import Observed
from tasks._release.target import Target
from tasks.errors import Conflict
from tests.fakes.commits import release

CHANGES = {
    "start": (release("a" * 40), "s3://weights"),
    "shift": ("chat", "chat-r1"),
    "drain": ("chat", "chat-r1"),
    "remove": ("chat", "chat-r1"),
}
LOOKS: dict[str, tuple[Any, ...]] = {
    "observe": ("chat",),
    "address": ("chat",),
    "endpoint": (release("a" * 40),),
    "shares": (release("a" * 40),),
    "room": (release("a" * 40), "s3://weights"),
    "close": (),
}


class Recorder:
    """A target that only writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def __getattr__(self, name: str) -> Any:
        def told(*_arguments: Any, **_named: Any) -> Any:
            self.told.append(name)
            return Observed() if name == "observe" else name

        return told


def fenced(inner: Recorder, *, lost: bool) -> Fenced:
    """Return the target behind a lease that is held, or was lost."""

    def guard() -> None:
        inner.told.append("guard")
        if lost:
            raise Conflict("Another run has taken chat over.")

    target: Any = inner
    return Fenced(target, guard)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_asks_first(name: str) -> None:
    """With the lease it goes through."""
    inner = Recorder()

    getattr(fenced(inner, lost=False), name)(*CHANGES[name])

    assert ["guard", name] == inner.told


@pytest.mark.parametrize("name", CHANGES)
def test_without_the_lease_nothing_is_changed(name: str) -> None:
    """The target is not even told."""
    inner = Recorder()

    with pytest.raises(Conflict):
        getattr(fenced(inner, lost=True), name)(*CHANGES[name])

    assert ["guard"] == inner.told


@pytest.mark.parametrize("name", LOOKS)
def test_who_lost_the_lease_may_still_look(name: str) -> None:
    """A look harms nobody, and tells why the run stops."""
    inner = Recorder()
    target = fenced(inner, lost=True)

    getattr(target, name)(*LOOKS[name])

    assert [name] == inner.told


def test_every_method_of_a_target_is_one_of_these() -> None:
    """A new way to change a target must be fenced as well."""
    methods = {name for name, _ in inspect.getmembers(Target, inspect.isfunction) if not name.startswith("_")}

    assert methods == {*CHANGES, *LOOKS}
