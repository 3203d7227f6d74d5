"""Answers are judged the same in a process of its own, and a process that fails is no judgement."""

import subprocess
import sys
from pathlib import Path

import pytest

from tasks._checks import apart
from tasks._checks.apart import quality_apart
from tasks._checks.prompts import load_prompts
from tasks._checks.quality import quality
from tasks._clients.completions import Answer
from tasks.errors import MachineError
from tasks.spec import ServiceSpec

pytestmark = pytest.mark.slow

PROMPTS = load_prompts(Path("serve/services/chat.prompts.yaml"))
SPEC = ServiceSpec.model_validate({"service": "chat", "model": "org/model"})
ANSWERS = tuple(
    Answer(prompt=prompt.prompt, text=text, status=200, finish_reason="stop", first_token_s=0.1, latency_s=0.2)
    for prompt, text in zip(
        PROMPTS.all[:3], ("The capital is Paris.", "rk rk rk rk rk rk rk", "é\u2028\x00"), strict=True
    )
)


def test_the_same_verdicts_come_back() -> None:
    """Text of any kind, missing answers and numbers survive the way there and back."""
    assert quality(ANSWERS, PROMPTS, SPEC) == quality_apart(ANSWERS, PROMPTS, SPEC)


def test_this_process_stays_small() -> None:
    """What judges is not imported where a release runs: that is what the other process is for."""
    code = (
        "import sys; from tasks._checks.apart import quality_apart; from tests.tasks.checks.test_apart import *;"
        "quality_apart(ANSWERS, PROMPTS, SPEC);"
        "sys.exit('great_expectations' in sys.modules or 'pandas' in sys.modules)"
    )
    assert 0 == subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode


def test_a_process_that_fails_is_an_error_with_its_last_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """A judgement that did not happen is never a pass."""
    monkeypatch.setattr(apart, "__name__", "tasks._checks.no_such_module")

    with pytest.raises(MachineError, match=r"could not be judged: .*no_such_module"):
        quality_apart(ANSWERS, PROMPTS, SPEC)
