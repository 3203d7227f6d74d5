"""One look at the live address sees a wrong release, a lost fact, and an answer that never comes."""

from collections.abc import Iterator

import pytest

from tasks._checks.bake import look
from tasks._checks.prompts import parse_prompts
from tasks._clients.receipt import Seen
from tasks.records import CheckResult, Release, Verdict
from tasks.spec import ServiceSpec
from tests.fakes.completions import Messages
from tests.fakes.engine import Engine, Fault, serving
from tests.fakes.prometheus import Prometheus
from tests.fakes.prometheus import serving as serving_prometheus

COMMIT = "1" * 40
RELEASE = Release(service="chat", number=1, model="org/model", commit=COMMIT, hub="http://hub", spec={})
SPEC = ServiceSpec.model_validate({"service": "chat", "model": "org/model", "deadlines": {"request": 10}})
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


@pytest.mark.parametrize(
    ("failed", "slow", "verdict"),
    [(0, 0, Verdict.PASS), (0, 9, Verdict.PASS), (1, 0, Verdict.PASS), (2, 0, Verdict.FAIL), (100, 0, Verdict.FAIL)],
)
def test_what_the_probe_met_counts(url: str, failed: int, slow: int, verdict: Verdict) -> None:
    """More failed requests than the spec allows move traffic back; its very limit, and slowness, do not."""
    result = look(url, RELEASE, PROMPTS, SPEC, Seen(requests=100, failed=failed, slow=slow))

    assert verdict is result.verdict
    assert f"of 100 requests of the probe {failed} failed and {slow} were slow" in result.summary
    assert failed / 100 == result.measured["probe_error_rate"]


def test_a_probe_that_asked_nothing_yet_says_nothing(url: str) -> None:
    """No request is no error rate."""
    assert seen(url).summary == look(url, RELEASE, PROMPTS, SPEC, Seen(requests=0, failed=0, slow=0)).summary


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


def watched(prometheus: str) -> ServiceSpec:
    """Return a spec whose bake asks this Prometheus."""
    asking = {"prometheus": prometheus, "error_query": "error_rate", "max_error_rate": 0.02}
    return ServiceSpec.model_validate({"service": "chat", "model": "org/model", "bake": asking})


@pytest.mark.slow
@pytest.mark.parametrize(
    ("values", "verdict"),
    [
        (["0"], Verdict.PASS),
        (["0.02"], Verdict.PASS),
        (["0.0201"], Verdict.FAIL),
        (["NaN"], Verdict.INCONCLUSIVE),
        ([], Verdict.INCONCLUSIVE),
        (["0", "0"], Verdict.INCONCLUSIVE),
    ],
    ids=["none", "on the limit", "above it", "NaN", "empty", "two"],
)
def test_the_error_rate_counts(url: str, values: list[str], verdict: Verdict) -> None:
    """Up to the limit passes, above it fails, and a rate that is not there never passes."""
    with serving_prometheus(Prometheus(values=values)) as prometheus:
        result = seen(url, watched(prometheus))

    assert result.verdict is verdict
    assert ("error_rate" in result.measured) == (verdict is not Verdict.INCONCLUSIVE)


@pytest.mark.slow
def test_a_prometheus_that_is_down_is_inconclusive(
    engine: Engine, url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A good look without the metric is no pass and says so in the log; a bad one fails all the same."""
    with serving_prometheus(Prometheus(status=500)) as prometheus:
        result = seen(url, watched(prometheus))
        engine.fault = Fault.STATUS_500
        broken = seen(url, watched(prometheus))

    assert (result.verdict, broken.verdict) == (Verdict.INCONCLUSIVE, Verdict.FAIL)
    assert "the error rate is unknown: Prometheus answered with status 500." in result.summary
    assert "error rate of the live traffic is unknown" in caplog.text


@pytest.mark.parametrize(
    "bake",
    [
        {"prometheus": "http://metrics"},
        {"error_query": "rate"},
        {"prometheus": "http://me:secret@metrics", "error_query": "rate"},
        {"prometheus": "metrics:9090", "error_query": "rate"},
    ],
    ids=["no query", "no server", "password", "no URL"],
)
def test_half_a_metric_is_a_fault_of_the_spec(bake: dict[str, str]) -> None:
    """A server without a query, a query without a server, and an address that is none or a secret are refused."""
    with pytest.raises(ValueError, match="need"):
        ServiceSpec.model_validate({"service": "chat", "model": "org/model", "bake": bake})
