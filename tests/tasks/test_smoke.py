"""Smoke checks pass a candidate that speaks the protocol, and name what is wrong with one that does not."""

import socket
from collections.abc import Iterator

import pytest

from tasks._smoke import smoke
from tasks.records import CheckResult, Release, Verdict
from tasks.spec import ServiceSpec
from tests.fakes.context_engine import ContextEngine
from tests.fakes.engine import Fault, serving

COMMIT = "1" * 40
RELEASE = Release(service="chat", number=1, model="org/model", commit=COMMIT, hub="http://hub", spec={})
SPEC = ServiceSpec.model_validate({"service": "chat", "model": "org/model", "deadlines": {"request": 0.5}})
NAMES = ["models", "overflow", "plain", "stream", "identity"]


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[ContextEngine, str]]:
    """One engine for all tests, with its address."""
    engine = ContextEngine()
    with serving(engine) as url:
        yield engine, url


@pytest.fixture
def engine(shared: tuple[ContextEngine, str]) -> Iterator[ContextEngine]:
    """The shared engine, put right again afterwards."""
    engine, _ = shared
    right = {name: getattr(engine, name) for name in ("answer", "model", "overflow_status", "max_model_len")}
    yield engine
    engine.fault = Fault.NONE
    engine.switch("chat-r1", COMMIT)
    for name, value in right.items():
        setattr(engine, name, value)


def checked(url: str, spec: ServiceSpec = SPEC) -> dict[str, CheckResult]:
    """Return the smoke checks by name."""
    return {result.name: result for result in smoke(url, RELEASE, spec)}


def failed(url: str) -> set[str]:
    """Return the names of the checks that did not pass."""
    return {name for name, result in checked(url).items() if result.verdict is not Verdict.PASS}


def test_a_good_candidate_passes(shared: tuple[ContextEngine, str]) -> None:
    """Every check passes and says what it saw."""
    results = checked(shared[1])

    assert list(results) == NAMES
    assert {result.verdict for result in results.values()} == {Verdict.PASS}
    assert results["overflow"].summary.startswith("a prompt longer than 64 tokens gives status 400")
    assert results["identity"].summary == "all 4 answers name chat-r1 and its commit"


def test_nonsense_passes(shared: tuple[ContextEngine, str], engine: ContextEngine) -> None:
    """Smoke does not judge what is said."""
    engine.answer = lambda _messages: "$\x7f\x0b 1111111111 <|im_end|>"

    assert not failed(shared[1])


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        (Fault.STATUS_500, {"plain", "stream"}),
        (Fault.ERROR_BODY, {"plain", "stream"}),
        (Fault.ERROR_EVENT, {"stream"}),
        (Fault.GARBAGE, {"plain", "stream"}),
        (Fault.EMPTY, {"plain", "stream"}),
        (Fault.NO_DONE, {"stream"}),
        (Fault.NO_FINISH, {"plain", "stream"}),
        (Fault.ABORT, {"plain", "stream"}),
        (Fault.CUT, {"plain", "stream"}),
        (Fault.HANG_MIDWAY, {"stream"}),
        (Fault.NO_HEADERS, {"plain", "stream", "identity"}),
        (Fault.WRONG_HEADERS, {"plain", "stream", "identity"}),
    ],
    ids=str,
)
def test_what_is_wrong_is_named(
    shared: tuple[ContextEngine, str], engine: ContextEngine, fault: Fault, names: set[str]
) -> None:
    """Each fault fails exactly the checks that it is of."""
    engine.fault = fault
    results = checked(shared[1])

    assert {name for name, result in results.items() if result.verdict is Verdict.FAIL} >= names
    assert names | {"identity"} >= {n for n, result in results.items() if result.verdict is not Verdict.PASS}
    assert all(results[name].evidence for name in names)


@pytest.mark.parametrize(("release", "commit"), [("chat-r2", COMMIT), ("chat-r1", "2" * 40)])
def test_right_text_of_another_release_is_refused(
    shared: tuple[ContextEngine, str], engine: ContextEngine, release: str, commit: str
) -> None:
    """A good answer from the wrong release or commit fails by its name alone, with the names as evidence."""
    engine.switch(release, commit)
    results = checked(shared[1])

    assert failed(shared[1]) == {"identity"}
    assert f"{release}, x-slipway-commit {commit}" in results["identity"].evidence[0]


def test_another_model_is_refused(shared: tuple[ContextEngine, str], engine: ContextEngine) -> None:
    """A server that serves another name is not this service."""
    engine.model = "other"

    assert failed(shared[1]) >= {"models", "plain", "stream"}
    assert "lists other" in checked(shared[1])["models"].summary


@pytest.mark.parametrize("status", [200, 500])
def test_overflow_must_be_refused_cleanly(
    shared: tuple[ContextEngine, str], engine: ContextEngine, status: int
) -> None:
    """A prompt that is too long may neither be answered nor break the server."""
    engine.overflow_status = status

    assert failed(shared[1]) == {"overflow"}


def test_an_unknown_context_length_is_inconclusive(shared: tuple[ContextEngine, str], engine: ContextEngine) -> None:
    """Where nobody says how long a prompt may be, the check cannot be made; the spec may say it."""
    engine.max_model_len = None
    told = SPEC.model_copy(update={"engine": {"max_model_len": 32}})

    assert checked(shared[1])["overflow"].verdict is Verdict.INCONCLUSIVE
    assert "longer than 32 tokens" in checked(shared[1], told)["overflow"].summary


def test_nobody_there() -> None:
    """A candidate that cannot be reached fails; nothing is raised."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    assert failed(f"http://127.0.0.1:{port}") == set(NAMES)
