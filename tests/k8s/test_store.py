"""What is known of each object after lists and events, whichever way they came."""

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from k8s.kinds import Object
from k8s.store import Listing, Store

Step = tuple[int, Object | None, str]
"""One change in the history of a namespace: its version, the object after it (None: deleted), the object's name."""

NAMES = st.sampled_from("abc")


def made(name: str, version: int) -> Object:
    """Return an object as the server tells it."""
    return {"metadata": {"name": name, "resourceVersion": str(version)}}


@st.composite
def histories(draw: st.DrawFn) -> list[Step]:
    """Draw changes in the order they happened; nothing is deleted that does not exist."""
    steps: list[Step] = []
    there: set[str] = set()
    for version, (name, wish) in enumerate(draw(st.lists(st.tuples(NAMES, st.booleans()), max_size=12)), start=1):
        deleted = wish and name in there
        there = there - {name} if deleted else there | {name}
        steps.append((version, None if deleted else made(name, version), name))
    return steps


def listed(history: Sequence[Step], version: int) -> Listing:
    """Return what a list shows right after the change of that version."""
    state: dict[str, Object] = {}
    for at, item, name in history:
        if at <= version:
            state = {key: value for key, value in {**state, name: item}.items() if value is not None}
    return Listing(tuple(state.values()), str(version))


def tell(store: Store, step: Step) -> None:
    """Pass a change on as a watch does."""
    version, item, name = step
    store.take(item or made(name, version), deleted=item is None)


@settings(max_examples=60)
@given(history=histories(), data=st.data())
def test_events_twice_and_in_any_order_end_where_a_list_does(history: list[Step], data: st.DataObject) -> None:
    """However often and in whatever order changes are told, between lists or after, nothing else is known."""
    end = len(history)
    first = data.draw(st.integers(0, end), label="version of the first list")
    again = data.draw(st.integers(first, end), label="version of the second list")
    twice = data.draw(st.lists(st.sampled_from(history)) if history else st.just([]), label="told once more")
    told = data.draw(st.permutations([*history[first:], *twice]), label="told")
    between = data.draw(st.integers(0, len(told)), label="told before the second list")
    store = Store()
    store.replace(listed(history, first))
    for step in told[:between]:
        tell(store, step)
    store.replace(listed(history, again))
    for step in told[between:]:
        tell(store, step)

    expected = {item["metadata"]["name"]: item for item in listed(history, end).items}
    assert expected == store.objects


def test_a_deleted_object_does_not_come_back_with_an_old_event() -> None:
    """A change that was told late is older than the deletion that is known."""
    store = Store()
    store.take(made("chat-r1", 7), deleted=True)
    store.take(made("chat-r1", 6))

    assert {} == store.objects


def test_an_own_write_is_kept_by_a_list_from_before_it() -> None:
    """A list that was on its way while we wrote does not undo what we know."""
    store = Store()
    store.take(made("chat-r1", 9))
    store.replace(Listing((made("chat-r1", 3), made("chat-r2", 4)), "8"))

    assert {"chat-r1": made("chat-r1", 9), "chat-r2": made("chat-r2", 4)} == store.objects


def test_a_list_from_a_restored_server_replaces_everything() -> None:
    """Versions that go backwards are another history, in which what was known never happened."""
    store = Store()
    store.replace(Listing((made("chat-r1", 90),), "100"))
    store.take(made("chat-r2", 101))
    store.replace(Listing((made("chat-r3", 5),), "6"))

    assert {"chat-r3": made("chat-r3", 5)} == store.objects
