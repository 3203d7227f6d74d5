"""Smoke checks pass a candidate that speaks the protocol, and name what is wrong with one that does not."""

import socket
from collections.abc import Iterator

import pytest

from tasks._checks.smoke import smoke
from tasks._spec_checks import Smoke
from tasks.records import CheckResult, Release, Verdict
from tasks.spec import ServiceSpec
from tests.fakes.context_engine import ContextEngine
from tests.fakes.engine import Fault, serving

COMMIT = "1" * 40
RELEASE = Release(service="chat", number=1, model="org/model", commit=COMMIT, hub="http://hub", spec={})
SPEC = ServiceSpec.model_validate({"service": "chat", "model": "org/model", "deadlines": {"request": 0.5}})
ABLE = SPEC.model_copy(
    update={"checks": SPEC.checks.model_copy(update={"smoke": Smoke(tools=True, json_output=True)})}
)
NAMES = ["models", "overflow", "long_prompt", "concurrent", "plain", "stream", "stop_reasons", "identity"]
STREAMED = {"stream", "concurrent"}
ALL = STREAMED | {"plain"}
TAKEN_ALONG = {"identity", "long_prompt", "stop_reasons"}


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
    kept = (
        "answer",
        "model",
        "overflow_status",
        "max_model_len",
        "tool_arguments",
        "json_text",
        "memory",
        "ignored",
        "strays",
    )
    right = {name: getattr(engine, name) for name in kept}
    engine.seen.clear()
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
    assert results["long_prompt"].summary == "a prompt of 28 words gives status 200, 32 of 64 tokens read"
    assert results["concurrent"].summary == "4 of 4 prompts asked at once have a whole answer"
    assert results["identity"].summary == "all 13 answers name chat-r1 and its commit"


def test_only_what_the_spec_wants_is_asked(shared: tuple[ContextEngine, str], engine: ContextEngine) -> None:
    """Each part that a spec turns off is neither asked nor judged."""
    none = Smoke(overflow=False, long_prompt=0, concurrent=0)
    spec = SPEC.model_copy(update={"checks": SPEC.checks.model_copy(update={"smoke": none})})

    assert list(checked(shared[1], spec)) == ["models", "plain", "stream", "stop_reasons", "identity"]
    assert len(engine.seen) == 4


def test_nonsense_passes(shared: tuple[ContextEngine, str], engine: ContextEngine) -> None:
    """Smoke does not judge what is said."""
    engine.answer = lambda _messages: "$\x7f\x0b 1111111111 <|im_end|>"

    assert not failed(shared[1])


def named(value: Fault | set[str]) -> str:
    """Return the same name in every process: a set has no order."""
    return " ".join(sorted(value)) if isinstance(value, set) else str(value)


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        (Fault.STATUS_500, ALL),
        (Fault.ERROR_BODY, ALL),
        (Fault.ERROR_EVENT, STREAMED),
        (Fault.GARBAGE, ALL),
        (Fault.EMPTY, ALL),
        (Fault.NO_DONE, STREAMED),
        (Fault.NO_FINISH, ALL),
        (Fault.ABORT, ALL),
        (Fault.CUT, ALL),
        pytest.param(Fault.HANG_MIDWAY, STREAMED, marks=pytest.mark.slow),
        (Fault.NO_HEADERS, ALL | {"identity"}),
        (Fault.WRONG_HEADERS, ALL | {"identity"}),
    ],
    ids=named,
)
def test_what_is_wrong_is_named(
    shared: tuple[ContextEngine, str], engine: ContextEngine, fault: Fault, names: set[str]
) -> None:
    """Each fault fails exactly the checks that it is of."""
    engine.fault = fault
    results = checked(shared[1])

    assert {name for name, result in results.items() if result.verdict is Verdict.FAIL} >= names
    assert names | TAKEN_ALONG >= {n for n, result in results.items() if result.verdict is not Verdict.PASS}
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
    assert checked(shared[1])["long_prompt"].verdict is Verdict.INCONCLUSIVE
    assert "longer than 32 tokens" in checked(shared[1], told)["overflow"].summary


def test_tools_and_json(shared: tuple[ContextEngine, str]) -> None:
    """A candidate that calls the tool and keeps to the schema passes both checks."""
    results = checked(shared[1], ABLE)

    assert {name: results[name].verdict for name in ("tool_call", "json_output")} == {
        "tool_call": Verdict.PASS,
        "json_output": Verdict.PASS,
    }
    assert results["tool_call"].evidence == ('get_weather({"city": "Paris"})',)


@pytest.mark.parametrize("arguments", ['{"city": "Paris"', '["Paris"]', '{"town": "Paris"}', "", None])
def test_a_broken_tool_call_fails(
    shared: tuple[ContextEngine, str], engine: ContextEngine, arguments: str | None
) -> None:
    """Arguments that are no JSON or do not fit, and text in place of a call, fail with what came as evidence."""
    engine.tool_arguments = arguments
    results = checked(shared[1], ABLE)

    assert results["tool_call"].verdict is Verdict.FAIL
    assert results["tool_call"].evidence
    assert results["json_output"].verdict is Verdict.PASS


@pytest.mark.parametrize("text", ["Yes.", '{"answer": "yes"', '{"answer": "perhaps"}', '```{"answer": "yes"}```'])
def test_broken_json_fails(shared: tuple[ContextEngine, str], engine: ContextEngine, text: str) -> None:
    """An answer that is not JSON by the schema and nothing else fails with the answer as evidence."""
    engine.json_text = text
    result = checked(shared[1], ABLE)["json_output"]

    assert (result.verdict, result.evidence) == (Verdict.FAIL, (text,))


@pytest.mark.parametrize("ignored", [{"stop"}, {"max_tokens", "ignore_eos"}], ids=named)
def test_an_engine_that_ends_where_it_likes_fails(
    shared: tuple[ContextEngine, str], engine: ContextEngine, ignored: set[str]
) -> None:
    """A stop string or a token limit that is ignored is seen by the reason for the end."""
    engine.ignored = frozenset(ignored)

    assert failed(shared[1]) == {"stop_reasons"}


def test_a_prompt_that_is_cut_silently_fails(shared: tuple[ContextEngine, str], engine: ContextEngine) -> None:
    """An engine that reads only the end of a long prompt says so by its own count."""
    engine.memory = 18
    result = checked(shared[1])["long_prompt"]

    assert result.verdict is Verdict.FAIL
    assert result.summary == "a prompt of 29 words gives status 200, 21 of 64 tokens read"


def test_a_stray_answer_among_many_at_once_is_found(shared: tuple[ContextEngine, str], engine: ContextEngine) -> None:
    """One of the requests at once that reaches another release fails the identity."""
    engine.strays = {4: "chat-r2"}
    results = checked(shared[1])

    assert results["identity"].verdict is Verdict.FAIL
    assert all(line.startswith("concurrent answer ") for line in results["identity"].evidence)


def test_nobody_there() -> None:
    """A candidate that cannot be reached fails; nothing is raised."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    assert failed(f"http://127.0.0.1:{port}") == set(NAMES)
