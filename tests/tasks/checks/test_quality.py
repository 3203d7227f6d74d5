"""A good candidate passes every quality check; each kind of garbage is blocked by a check that names and shows it.

Great Expectations is imported once, in about three seconds, by the first of these tests.
"""

import math
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tasks._checks.prompts import load_prompts
from tasks._checks.quality import ask_all, quality
from tasks._clients.completions import Answer
from tasks.records import CheckResult, Verdict
from tasks.spec import ServiceSpec
from tests.fakes.completions import Messages
from tests.fakes.engine import Engine, Fault, serving

PROMPTS = load_prompts(Path("serve/services/chat.prompts.yaml"))
RIGHT = {
    "capital-of-france": "The capital of France is Paris.",
    "capital-of-japan": "The capital of Japan is Tokyo.",
    "capital-of-germany": "The capital of Germany is Berlin.",
    "capital-of-england": "The capital of England is London.",
    "capital-of-china": "The capital of China is Beijing.",
    "formula-of-water": "The chemical formula of water is H2O.",
    "symbol-of-gold": "The chemical symbol for gold is Au.",
    "highest-mountain": "The highest mountain in the world is Mount Everest.",
    "largest-ocean": "The largest ocean on Earth is the Pacific Ocean.",
    "first-on-the-moon": "The first person to walk on the Moon was Neil Armstrong.",
    "hello-in-spanish": "Hola!",
    "hello-world": '```python\nprint("Hello, World!")\n```',
}
SPANISH = {
    "capital-of-france": "La capital es una ciudad muy grande y hermosa.",
    "hello-in-spanish": "Se dice buenos días.",
}
CHECKS = ["answered", "facts", "template_leakage", "repetition", "readable", "finish_reason", "latency"]
PASS, FAIL, INCONCLUSIVE = Verdict.PASS, Verdict.FAIL, Verdict.INCONCLUSIVE


def spec(**checks: Any) -> ServiceSpec:
    """Return the spec of a service with these thresholds."""
    return ServiceSpec.model_validate(
        {"service": "chat", "model": "org/model", "checks": checks, "deadlines": {"request": 5}}
    )


def answers(text: Callable[[str], str] = RIGHT.__getitem__, **more: Any) -> list[Answer]:
    """Return whole answers; ``text`` gives that of a prompt's id."""
    whole: dict[str, Any] = {
        "status": 200,
        "finish_reason": "stop",
        "release": "chat-r1",
        "commit": "1" * 40,
        "first_token_s": 0.1,
        "latency_s": 0.5,
        "completion_tokens": 8,
    }
    return [Answer(prompt=p.prompt, text=text(p.id), **(whole | more)) for p in PROMPTS.all]


def verdicts(given: list[Answer], **checks: Any) -> dict[str, Verdict]:
    """Return the verdict of every check."""
    return {result.name: result.verdict for result in quality(given, PROMPTS, spec(**checks))}


def result(name: str, given: list[Answer], **checks: Any) -> CheckResult:
    """Return one check of these answers."""
    return next(one for one in quality(given, PROMPTS, spec(**checks)) if one.name == name)


def changed(given: list[Answer], count: int, **more: Any) -> list[Answer]:
    """Return the answers with the last ``count`` of them changed."""
    return [*given[:-count], *(one.model_copy(update=more) for one in given[-count:])]


def test_good_answers_pass() -> None:
    """Every check passes, says so in a sentence with its numbers, and survives JSON."""
    results = quality(answers(), PROMPTS, spec())

    assert [one.name for one in results] == CHECKS
    assert {one.verdict for one in results} == {PASS}
    assert results[1].summary == "12 of 12 answers hold their expected fact, at least 9 are needed"
    assert results[1].measured == {"held": 12.0}
    assert all(CheckResult.from_json(one.to_json()) == one for one in results)
    assert not any(one.evidence for one in results)


GARBAGE: dict[str, tuple[Callable[[str], str], str]] = {
    "empty text": (lambda _id: "", "answered"),
    "blank text": (lambda _id: " \u200b\n", "answered"),
    "repeated token": (lambda prompt_id: RIGHT[prompt_id] + " the" * 60, "repetition"),
    "always the same": (lambda _id: RIGHT["capital-of-japan"], "facts"),
    "mojibake": (lambda prompt_id: RIGHT[prompt_id] + " Ã©Ã¨Ã¼Ã¶Ã¤â€œâ€™" * 3, "readable"),
    "wrong language": (lambda prompt_id: SPANISH.get(prompt_id, "No lo sé, lo siento mucho."), "facts"),
    "template": (lambda prompt_id: RIGHT[prompt_id] + "<|im_end|>", "template_leakage"),
    "noise": (lambda _id: "teaching leave have line yewinnot sat ye, at send", "facts"),
}


@pytest.mark.parametrize("kind", GARBAGE)
def test_garbage_is_blocked_by_name_with_evidence(kind: str) -> None:
    """Each kind fails the check that is made for it, which shows three of the answers."""
    text, name = GARBAGE[kind]
    blocked = result(name, answers(text))

    assert blocked.verdict is FAIL
    assert len(blocked.evidence) == 3
    assert all(" -> " in line and line.isprintable() for line in blocked.evidence)


def test_a_golden_fact_is_needed_whatever_the_share() -> None:
    """Eleven of twelve facts are enough, but not without a golden one, which is named."""
    without = {"capital-of-france": "Lyon.", "capital-of-japan": "Kyoto."}

    def missing(prompt_id: str) -> Callable[[str], str]:
        return lambda one: without[one] if one == prompt_id else RIGHT[one]

    assert result("facts", answers(missing("capital-of-france"))).verdict is PASS
    failed = result("facts", answers(missing("capital-of-japan")))
    assert failed.verdict is FAIL
    assert failed.summary.endswith("golden and not held: capital-of-japan")
    assert "Kyoto" in "".join(failed.evidence)


@pytest.mark.parametrize(("wrong", "verdict"), [(3, PASS), (4, FAIL)])
def test_facts_at_the_threshold(wrong: int, verdict: Verdict) -> None:
    """A share of 0.7 of twelve is 8.4, so nine facts are needed: nine pass, eight fail."""
    judged = result("facts", changed(answers(), wrong, text="I do not know."), min_facts=0.7)

    assert judged.verdict is verdict
    assert f"{12 - wrong} of 12" in judged.summary


@pytest.mark.parametrize(("share", "needed"), [(0.75, 9), (0.7500001, 10), (0, 0)])
def test_shares_are_taken_as_written(share: float, needed: int) -> None:
    """A share is not rounded in favour of the candidate."""
    assert f"at least {needed} " in result("facts", answers(), min_facts=share).summary


@pytest.mark.parametrize("field", ["first_token_s", "latency_s"])
def test_latency_at_the_threshold(field: str) -> None:
    """Exactly as slow as allowed is good; the next number is too slow, and one slow answer is enough."""
    limits = {"max_first_token": 2.0, "max_latency": 2.0}

    assert result("latency", changed(answers(), 1, **{field: 2.0}), **limits).verdict is PASS
    slow = result("latency", changed(answers(), 1, **{field: math.nextafter(2.0, 3)}), **limits)
    assert slow.verdict is FAIL
    assert len(slow.evidence) == 1


def test_cut_answers_are_inconclusive() -> None:
    """A model that seldom ends by itself is a question for a person, not a fail; half of them is enough."""
    assert result("finish_reason", changed(answers(), 6, finish_reason="length")).verdict is PASS
    assert result("finish_reason", changed(answers(), 7, finish_reason="length")).verdict is INCONCLUSIVE
    assert result("finish_reason", changed(answers(), 1, finish_reason="abort")).verdict is FAIL


@pytest.mark.parametrize("count", [0, 8, 11])
def test_missing_answers_never_pass(count: int) -> None:
    """Without all answers nothing passes, however good those that came are."""
    given = verdicts(answers()[:count])

    assert given["answered"] is FAIL
    assert PASS not in given.values()


def test_missing_answers_are_shown() -> None:
    """The prompts without an answer are the evidence."""
    judged = result("answered", answers()[:-1])

    assert judged.summary == "11 of 12 prompts have a whole, visible answer, all are needed"
    assert judged.evidence == ("Write a Python program that prints Hello, World! -> no answer",)


@pytest.mark.parametrize("strange", [{"prompt": "Who asked?"}, {}], ids=["unasked", "twice"])
def test_answers_too_many_never_pass(strange: dict[str, str]) -> None:
    """An answer that nobody asked for, or a second one, is no sample to judge."""
    given = answers()
    assert PASS not in verdicts([*given, given[0].model_copy(update=strange)]).values()


@pytest.mark.parametrize("value", [math.nan, None])
def test_what_was_not_measured_is_inconclusive(value: float | None) -> None:
    """One NaN among good numbers is neither a pass nor a fail, and is not written into the record."""
    judged = result("latency", changed(answers(), 1, first_token_s=value))

    assert judged.verdict is INCONCLUSIVE
    assert judged.summary.startswith("1 of 12 answers could not be judged")
    nothing = result("latency", answers(first_token_s=value))
    assert nothing.verdict is INCONCLUSIVE
    assert "first_token_max_s" not in nothing.measured
    assert CheckResult.from_json(nothing.to_json()) == nothing


def test_infinite_is_too_slow() -> None:
    """An endless latency is a measured one."""
    assert result("latency", changed(answers(), 1, latency_s=math.inf)).verdict is FAIL


def test_a_broken_answer_never_passes_unseen() -> None:
    """Where one answer broke, no check of texts says that all of them are good."""
    given = changed(answers(), 1, text="", status=500, finish_reason=None, first_token_s=None, error="HTTP 500")
    judged = verdicts(given)

    assert judged["answered"] is FAIL
    assert {judged[name] for name in ("template_leakage", "repetition", "readable", "finish_reason", "latency")} == {
        INCONCLUSIVE
    }
    assert "(HTTP 500)" in result("answered", given).evidence[0]


def test_an_expectation_that_raises_is_a_fail() -> None:
    """A column that is not there fails its check alone, although its expectations are partly warnings."""
    from tasks._checks.expectations import Limits, judge  # noqa: PLC0415 - three seconds, as in the code
    from tasks._checks.quality import _frame  # noqa: PLC0415

    frame = _frame(list(zip(PROMPTS.all, answers(), strict=True)))
    limits = Limits(
        of=12,
        facts=9,
        of_facts=12,
        stopped=6,
        repetition=0.5,
        unreadable=0.1,
        first_token_s=60,
        latency_s=120,
    )
    assert {finding.verdict for finding in judge(frame, limits).values()} == {PASS}

    findings = judge(frame.drop(columns=["finish_reason", "leaks_template"]), limits)
    failed = {name for name, finding in findings.items() if finding.verdict is FAIL}
    assert failed == {"finish_reason", "template_leakage"}
    assert all("does not exist" in findings[name].raised[0] for name in failed)


def test_nothing_is_left_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """No file in the working directory, none in the temporary one, no progress bar on the terminal."""
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path)
    quality(answers(), PROMPTS, spec())

    assert os.listdir(tmp_path) == ["temporary"]  # noqa: PTH208 - names alone
    assert os.listdir(tmp_path / "temporary") == []  # noqa: PTH208
    assert capfd.readouterr() == ("", "")


def by_prompt(messages: Messages) -> str:
    """Answer rightly over the wire."""
    prompt = messages[-1]["content"]
    return RIGHT[next(one.id for one in PROMPTS.all if one.prompt == prompt)]


def judged_over_the_wire(engine: Engine, **checks: Any) -> dict[str, CheckResult]:
    """Ask a real server every prompt and judge what it says."""
    with serving(engine) as url:
        given = ask_all(url, "chat", PROMPTS, spec(**checks))
    return {one.name: one for one in quality(given, PROMPTS, spec(**checks))}


def test_a_good_engine_passes() -> None:
    """From the socket to the verdict: every prompt asked once, every check a pass."""
    engine = Engine(answer=by_prompt)
    judged = judged_over_the_wire(engine)

    assert {one.verdict for one in judged.values()} == {PASS}
    assert sorted(seen.body["messages"][-1]["content"] for seen in engine.seen) == sorted(RIGHT_PROMPTS)
    assert judged["latency"].measured["tokens_per_s"] > 0


RIGHT_PROMPTS = [prompt.prompt for prompt in PROMPTS.all]


@pytest.mark.parametrize("fault", [Fault.ERROR_BODY, Fault.EMPTY, Fault.NO_HEADERS], ids=str)
def test_an_engine_that_breaks_is_blocked(fault: Fault) -> None:
    """A candidate that breaks after its first answers is caught, with what it sent as evidence."""
    judged = judged_over_the_wire(Engine(answer=by_prompt, fault=fault, healthy_requests=10))

    assert judged["answered"].verdict is FAIL
    assert judged["answered"].summary.startswith("10 of 12")
    assert len(judged["answered"].evidence) == 2


def test_a_slow_engine_is_blocked() -> None:
    """First tokens of 50 ms are too slow for a limit of 20 ms."""
    judged = judged_over_the_wire(Engine(answer=by_prompt, delay_s=0.05), max_first_token=0.02, concurrency=12)

    assert judged["latency"].verdict is FAIL
    assert judged["latency"].measured["first_token_max_s"] >= 0.05
    assert judged["facts"].verdict is PASS
