"""From two sockets to the verdicts: both releases are asked at once, and whatever they do, a verdict comes back."""

import json
import re
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tasks._checks.paired import paired, planned_sensitivity
from tasks._checks.prompts import Prompts, parse_prompts
from tasks.records import CheckResult, Release, Verdict
from tasks.spec import ServiceSpec
from tests.fakes import asgi
from tests.fakes.completions import Endpoint, Messages
from tests.fakes.engine import Engine, Fault, serving

pytestmark = pytest.mark.slow

PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE
CITIES = (
    "Paris",
    "Tokyo",
    "Berlin",
    "London",
    "Beijing",
    "Rome",
    "Madrid",
    "Cairo",
    "Lima",
    "Nairobi",
    "Oslo",
    "Bern",
)
PROMPTS = Prompts.model_validate(
    [
        {"id": f"fact-{place}", "prompt": f"Say number {place}.", "expect": rf"\b{city}\b", "golden": place == 0}
        for place, city in enumerate(CITIES)
    ]
)
CANDIDATE = Release(service="chat", number=2, model="org/model", commit="2" * 40, hub="http://hub", spec={})
LIVE = Release(service="chat", number=1, model="org/model", commit="1" * 40, hub="http://hub", spec={})
TEXTS = {
    "paired_answers",
    "paired_accuracy",
    "paired_agreement",
    "paired_length",
    "paired_variety",
    "paired_refusals",
    "paired_language",
    "paired_endings",
    "paired_repetition",
    "paired_template",
    "paired_readable",
}


def city(messages: Messages) -> str:
    """Return the city that is asked for."""
    return CITIES[int(re.findall(r"\d+", messages[0]["content"])[0])]


def right(messages: Messages) -> str:
    """Answer as a good model."""
    return f"The answer to this is {city(messages)}, of course."


@dataclass
class ScoringEngine(Engine):
    """Scores the tokens of a conversation as vLLM does: the role's line, then so many nats for each word."""

    nats: float = -0.5
    shape: Callable[[list[Any]], Any] = list

    async def _complete(self, endpoint: Endpoint, request: Request) -> Response:
        response, body = await super()._complete(endpoint, request), await request.json()
        if "prompt_logprobs" not in body:
            return response
        words = re.findall(r"\s*\S+", body["messages"][-1]["content"])
        tokens = [("assistant\n", -50.0), *((word, self.nats) for word in words)]
        scores = [{"7": {"logprob": nats, "rank": 1, "decoded_token": word}} for word, nats in tokens]
        content = json.loads(bytes(response.body)) | {"prompt_logprobs": self.shape([None, *scores])}
        names = {name: value for name, value in response.headers.items() if name.startswith("x-")}
        return JSONResponse(content, headers=names)


def engine(release: Release, answer: Callable[[Messages], str] = right, **more: Any) -> ScoringEngine:
    """Return the engine of ``release``."""
    return ScoringEngine(answer=answer, release=release.name, commit=release.commit, **more)


def judged(candidate: Engine, live: Engine, **check: Any) -> dict[str, CheckResult]:
    """Serve both and return the checks by name."""
    spec = spec_of(**check)
    with serving(candidate) as ours, serving(live) as theirs:
        results = paired(ours, theirs, releases=(CANDIDATE, LIVE), prompts=PROMPTS, spec=spec)
    return {result.name: result for result in results}


def spec_of(**check: Any) -> ServiceSpec:
    """Return the spec of a service with these settings of the check."""
    return ServiceSpec.model_validate(
        {"service": "chat", "model": "org/model", "checks": {"paired": check}, "deadlines": {"request": 2}}
    )


def unpassed(results: dict[str, CheckResult]) -> dict[str, Verdict]:
    """Return the verdicts that are no pass."""
    return {name: result.verdict for name, result in results.items() if result.verdict is not PASS}


def test_the_same_model_passes_every_check() -> None:
    """Each prompt is asked of both in turn, twice if the spec says so, and nothing differs."""
    ours, theirs = engine(CANDIDATE), engine(LIVE)
    results = judged(ours, theirs, rounds=2)

    assert results.keys() == TEXTS | {"paired_logprobs"}
    assert not unpassed(results)
    assert results["paired_logprobs"].measured["mean"] == 0
    assert len(ours.seen) == len(theirs.seen) == 2 * 12 + 12
    asked = sorted((seen.at, seen.release, len(seen.body["messages"])) for seen in ours.seen + theirs.seen)
    firsts = [release for _, release, messages in asked if messages == 1][:8]
    assert {firsts.count("chat-r1"), firsts.count("chat-r2")} <= {3, 4, 5}, "they are asked in turn"


def test_a_good_model_that_words_it_otherwise_passes() -> None:
    """Another style, and a little less of the live release's confidence, is no loss."""
    assert not unpassed(judged(engine(CANDIDATE, lambda asked: f"{city(asked)}! Easy.", nats=-0.8), engine(LIVE)))


def test_a_model_that_answers_wrongly_fails_with_its_answers() -> None:
    """The facts that were lost are counted, and the answers shown side by side."""
    results = judged(engine(CANDIDATE, lambda _asked: "I would say Vienna."), engine(LIVE))

    assert results["paired_accuracy"].verdict is FAIL
    assert results["paired_variety"].verdict is FAIL
    example = results["paired_accuracy"].examples[0]
    assert ("I would say Vienna.", "The answer to this is Paris, of course.") == (example.candidate, example.live)


def test_damage_that_leaves_the_answers_right_shows_in_the_log_probabilities() -> None:
    """The same texts, found much less likely, fail that check alone; impossible tokens do not make it infinite."""
    results = judged(engine(CANDIDATE, nats=-9999.0), engine(LIVE))

    assert {"paired_logprobs": FAIL} == unpassed(results)
    assert 29.5 == results["paired_logprobs"].measured["mean"]


@pytest.mark.parametrize(
    ("shape", "verdict"),
    [
        (lambda _scores: None, INCONCLUSIVE),
        (lambda _scores: [None], INCONCLUSIVE),
        (lambda _scores: "?", INCONCLUSIVE),
    ],
    ids=["none", "empty", "other"],
)
def test_log_probabilities_of_one_side_are_inconclusive(shape: Callable[[list[Any]], Any], verdict: Verdict) -> None:
    """A candidate that no longer gives what the live release gives could not be measured."""
    results = judged(engine(CANDIDATE, shape=shape), engine(LIVE))

    assert {"paired_logprobs": verdict} == unpassed(results)
    assert "the candidate: no log-probabilities in its answer" in results["paired_logprobs"].evidence


def test_an_engine_without_log_probabilities_is_not_judged_by_them() -> None:
    """Where neither gives any, or the spec wants none, there is no such check."""
    plain = Engine(answer=right, release="chat-r2", commit="2" * 40), Engine(answer=right)

    assert judged(*plain).keys() == TEXTS
    assert judged(engine(CANDIDATE), engine(LIVE), logprobs=False).keys() == TEXTS


@pytest.mark.parametrize("side", ["candidate", "live"])
@pytest.mark.parametrize("fault", [Fault.STATUS_500, Fault.GARBAGE, Fault.RESET, Fault.NO_HEADERS], ids=str)
def test_a_side_that_breaks_is_inconclusive(fault: Fault, side: str) -> None:
    """Whoever breaks, in whatever way: nothing is compared, and the one verdict says how it broke."""
    ours, theirs = engine(CANDIDATE), engine(LIVE)
    (ours if side == "candidate" else theirs).fault = fault
    results = judged(ours, theirs)

    assert {"paired_answers": INCONCLUSIVE} == unpassed(results)
    assert len(results) == 1
    assert side in results["paired_answers"].evidence[0]


def test_an_address_that_another_release_answers_is_inconclusive() -> None:
    """The live release compared with itself would be a pass of nothing."""
    results = judged(engine(LIVE), engine(LIVE))

    assert {"paired_answers": INCONCLUSIVE} == unpassed(results)
    assert "answered by chat-r1, not by chat-r2" in results["paired_answers"].evidence[0]


def test_nobody_there_is_inconclusive() -> None:
    """An address at which nothing listens is no loss of the candidate."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    with serving(engine(CANDIDATE)) as ours:
        results = paired(ours, nobody, releases=(CANDIDATE, LIVE), prompts=PROMPTS, spec=spec_of())

    assert [INCONCLUSIVE] == [result.verdict for result in results]


def test_what_is_not_asked_in_time_is_inconclusive() -> None:
    """The deadline of the check ends it, however many prompts are left."""
    spec = spec_of().model_copy(update={"deadlines": spec_of().deadlines.model_copy(update={"checks": 0.1})})
    slow = engine(CANDIDATE, delay_s=0.05)
    with serving(slow) as ours, serving(engine(LIVE)) as theirs:
        results = paired(ours, theirs, releases=(CANDIDATE, LIVE), prompts=PROMPTS, spec=spec)

    assert [INCONCLUSIVE] == [result.verdict for result in results]
    assert len(slow.seen) < 12


def preference(favoured: str) -> Callable[[str], str]:
    """Return a judge that prefers the answer with a word in it, whichever order it reads them in."""

    def opinion(question: str) -> str:
        first, second = question.split("Answer B:")
        if (favoured in first) == (favoured in second):
            return "SAME"
        return "A." if favoured in first else "**B**"

    return opinion


@contextmanager
def other_models(opinion: Callable[[str], str], vector: Callable[[str], list[float]]) -> Iterator[str]:
    """Serve a judge and an embedding model, without any header of Slipway's."""

    async def judge(request: Request) -> Response:
        question = (await request.json())["messages"][0]["content"]
        return JSONResponse({"choices": [{"message": {"content": opinion(question)}}]})

    async def embed(request: Request) -> Response:
        vectors = [
            {"index": index, "embedding": vector(text)} for index, text in enumerate((await request.json())["input"])
        ]
        return JSONResponse({"data": vectors[::-1]})

    routes = [
        Route("/v1/chat/completions", judge, methods=["POST"]),
        Route("/v1/embeddings", embed, methods=["POST"]),
    ]
    with asgi.serving(Starlette(routes=routes)) as (url, _):
        yield url


@pytest.mark.parametrize(
    ("opinion", "vector", "verdicts"),
    [
        (preference("of course"), lambda text: [1.0, float("Easy" in text)], (FAIL, PASS)),
        (preference("Easy"), lambda text: [1.0 - 2 * ("Easy" in text), 0.5], (PASS, FAIL)),
        (lambda _question: "A", lambda _text: [0.5, 0.5], (PASS, PASS)),
        (lambda _question: "Hm.", lambda _text: [0.0], (INCONCLUSIVE, INCONCLUSIVE)),
    ],
    ids=["judge", "embeddings", "first is best", "unusable"],
)
def test_other_models_may_judge(
    opinion: Callable[[str], str], vector: Callable[[str], list[float]], verdicts: tuple[Verdict, Verdict]
) -> None:
    """A judge and an embedding model each have a verdict; a judge that prefers what it reads first has no say."""
    with ExitStack() as stack:
        url = stack.enter_context(other_models(opinion, vector))
        results = judged(
            engine(CANDIDATE, lambda asked: f"{city(asked)}! Easy."),
            engine(LIVE),
            judge=url,
            judge_model="judge",
            embeddings=url,
            embeddings_model="embedder",
        )

    assert verdicts == (results["paired_judge"].verdict, results["paired_similarity"].verdict)


def test_a_judge_that_is_not_there_is_inconclusive() -> None:
    """Nobody's opinion is no good opinion."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}"
    results = judged(engine(CANDIDATE, city), engine(LIVE), judge=nobody, embeddings=nobody)

    assert {"paired_judge": INCONCLUSIVE, "paired_similarity": INCONCLUSIVE} == unpassed(results)


def test_the_plan_says_what_the_prompts_can_show() -> None:
    """The smallest loss that twelve prompts show, and how many it takes to prove a loss of twice the margin."""
    few = parse_prompts("- {id: a, prompt: 'Who?', expect: me, golden: true}", "prompts")

    assert planned_sensitivity(PROMPTS, spec_of()) == (
        "12 prompts can show a loss of accuracy of 34% or more with 95% confidence; "
        "to prove one of 20%, 105 with an expected fact are needed"
    )
    assert planned_sensitivity(few, spec_of()).startswith("1 prompt can show a loss of accuracy of 95% or more")
    assert planned_sensitivity(PROMPTS, spec_of(margin=0.5)).endswith("95% confidence")
