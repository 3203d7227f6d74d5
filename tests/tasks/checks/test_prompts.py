"""A prompt file is either right or an error that says where and why."""

from pathlib import Path

import pytest

from tasks._checks.prompts import load_prompts, parse_prompts
from tasks.errors import BadInput, NotFound

GOOD = "- {id: paris, prompt: 'What is the capital of France?', expect: '\\bParis\\b', golden: true}\n"


def test_the_prompts_of_chat_are_right() -> None:
    """The file in the repository loads, asks for Paris, and has golden prompts."""
    prompts = load_prompts(Path("serve/services/chat.prompts.yaml"))

    assert len(prompts.all) == len(prompts.with_facts) == 12
    assert r"\bParis\b" in {prompt.expect for prompt in prompts.all}
    assert [prompt.id for prompt in prompts.golden] == ["capital-of-japan", "capital-of-england"]


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "no list"),
        ("[]", "no list"),
        ("id: a", "no list"),
        ("- {id: a", "is not YAML"),
        (GOOD + "- hello", "prompt 2"),
        (GOOD + "- {id: b, prompt: B, expects: x}", "prompt 2 (b): unknown key 'expects'"),
        (GOOD + "- {id: b}", "prompt 2 (b): 'prompt' is missing"),
        (GOOD + "- {id: b, prompt: ' '}", "prompt 2 (b): prompt: "),
        (GOOD + "- {id: b, prompt: B, expect: '('}", "prompt 2 (b): '(' is no regular expression"),
        (GOOD + "- {id: b, prompt: B, expect: '.*'}", "prompt 2 (b): '.*' also fits an empty answer"),
        (GOOD + "- {id: b, prompt: B, golden: true}", "prompt 2 (b): a golden prompt needs `expect`"),
        (GOOD + GOOD, "the id 'paris' is there twice"),
        (GOOD + GOOD.replace("paris", "again"), "the prompt 'What is the capital of France?' is there twice"),
        (GOOD.replace("true", "false"), "no prompt is golden"),
        (GOOD.replace("paris", "Paris!"), "prompt 1 (Paris!): id: "),
    ],
)
def test_a_fault_is_named(text: str, fault: str) -> None:
    """Every fault is a sentence that names the prompt it is in."""
    with pytest.raises(BadInput) as error:
        parse_prompts(text, "x.prompts.yaml")

    assert str(error.value).startswith("x.prompts.yaml")
    assert fault in str(error.value)


def test_every_fault_is_named_at_once() -> None:
    """Nobody has to mend one fault to learn of the next."""
    with pytest.raises(BadInput, match=r"prompt 2 \(b\).*prompt 3 \(c\)"):
        parse_prompts(GOOD + "- {id: b}\n- {id: c, prompt: C, x: 1}", "x")


def test_a_missing_file_is_not_found(tmp_path: Path) -> None:
    """A prompt file that the spec names wrongly is an error of its own."""
    with pytest.raises(NotFound, match=r"no prompt file .*none\.yaml"):
        load_prompts(tmp_path / "none.yaml")


def test_a_file_that_is_no_text_is_bad_input(tmp_path: Path) -> None:
    """Bytes that are not UTF-8 end in a sentence."""
    path = tmp_path / "x.yaml"
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(BadInput, match="cannot be read"):
        load_prompts(path)
