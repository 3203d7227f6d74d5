"""One look at the live address sees a wrong release, a lost fact, and an answer that never comes."""

from collections.abc import Iterator

import pytest

from tasks._bake import look
from tasks._prompts import parse_prompts
from tasks.records import CheckResult, Release, Verdict
from tasks.spec import ServiceSpec
from tests.fakes.completions import Messages
from tests.fakes.engine import Engine, Fault, serving

COMMIT = "1" * 40
RELEASE = Release(service="chat", number=1, model="org/model", commit=COMMIT, hub="http://hub", spec={})
SPEC = ServiceSpec.model_validate({"service": "chat", "model": "org/model", "deadlines": {"request": 0.5}})
IMPATIENT = ServiceSpec.model_validate({"service": "chat", "model": "org/model", "deadlines": {"request": 0.1}})
PROMPTS = parse_prompts(
    """
- {id: other, prompt: Say anything., expect: nothing}
- {id: paris, prompt: "The capital of France?", expect: Paris, golden: true}
- {id: tokyo, prompt: "The capital of Japan?", expect: Tokyo, golden: true}
""",
    "x",
)


def right(messages: Messages) -> str:
    """Answer what is golden rightly."""
    return "Paris." if "France" in messages[-1]["content"] else "Tokyo."


@pytest.fixture
def engine() -> Engine:
    """An engine that answers rightly."""
    return Engine(answer=right)


@pytest.fixture
def url(engine: Engine) -> Iterator[str]:
    """The engine's address."""
    with serving(engine) as url:
        yield url


def seen(url: str, spec: ServiceSpec = SPEC) -> CheckResult:
    """Look once."""
    return look(url, RELEASE, PROMPTS, spec)


def test_a_good_release_passes(engine: Engine, url: str) -> None:
    """The golden prompts are asked, one streamed and one plain, and nothing else."""
    result = seen(url)

    assert result.verdict is Verdict.PASS
    assert result.measured["latency_max_s"] > 0
    assert [request.body["stream"] for request in engine.seen] == [True, False]
    assert "Say anything." not in str(engine.seen)


@pytest.mark.parametrize(
    "fault", [Fault.STATUS_500, Fault.CUT, Fault.RESET, Fault.HANG, Fault.EMPTY, Fault.NO_HEADERS], ids=str
)
def test_a_broken_answer_fails(engine: Engine, url: str, fault: Fault) -> None:
    """Whatever a client would call a failure fails the look and names the prompt."""
    engine.fault = fault
    result = seen(url, IMPATIENT if fault is Fault.HANG else SPEC)

    assert result.verdict is Verdict.FAIL
    assert result.summary.startswith("paris: ")
    assert len(result.evidence) == 2


def test_it_passes_then_fails(engine: Engine, url: str) -> None:
    """A release that breaks after its first answers is caught by the next look."""
    engine.fault, engine.healthy_requests = Fault.STATUS_503, 3

    assert [seen(url).verdict, seen(url).verdict] == [Verdict.PASS, Verdict.FAIL]


def test_another_release_at_the_live_address_fails(engine: Engine, url: str) -> None:
    """A right answer from another release is not this release's."""
    engine.switch("chat-r2", COMMIT)
    result = seen(url)

    assert result.verdict is Verdict.FAIL
    assert "answered by chat-r2, not by chat-r1" in result.summary


def test_a_lost_fact_fails(engine: Engine, url: str) -> None:
    """An answer without its fact fails with the answer as evidence."""
    engine.answer = lambda _messages: "Paris."
    result = seen(url)

    assert result.summary == "tokyo: the answer does not hold its fact"
    assert result.evidence == ("The capital of Japan? -> Paris.",)
