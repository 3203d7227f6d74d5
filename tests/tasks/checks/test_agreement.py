"""Two texts are compared as a person would: wording is free, and what is broken or foreign is seen."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks._checks.agreement import Fault, fault, language, length_ratio, normalised, refuses

SENTENCES = {
    "English": "The capital of France is Paris.",
    "Spanish": "La capital de Francia es París.",
    "French": "La capitale de la France est Paris.",
    "German": "Die Hauptstadt von Frankreich ist Paris.",
    "Italian": "La capitale della Francia è Parigi.",
    "Portuguese": "A capital da França é uma cidade com o nome de Paris.",
    "Dutch": "De hoofdstad van Frankrijk is Parijs.",
    "Chinese": "法国的首都是巴黎。",
    "Japanese": "フランスの首都はパリです。",
    "Cyrillic": "Столица Франции — Париж.",
    "Arabic": "عاصمة فرنسا هي باريس.",
    "Hangul": "프랑스의 수도는 파리입니다.",
    "Greek": "Πόλη και πρωτεύουσα της Γαλλίας είναι το Παρίσι.",
}


@pytest.mark.parametrize("name", SENTENCES)
def test_a_short_sentence_has_its_language(name: str) -> None:
    """One sentence is enough to tell the languages and scripts apart."""
    assert name == language(SENTENCES[name])


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Paris.",
        "H2O",
        "42",
        "Au",
        "```python\nfor the_of in is_a: print('the of and is')\n```",
        "Париж is Paris.",
    ],
)
def test_a_text_that_leaves_doubt_has_no_language(text: str) -> None:
    """Names, formulas, numbers, code and mixtures are not guessed at."""
    assert language(text) is None


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("Paris.", "paris"),
        ("The capital  is\n**Paris**!", "the capital is Paris"),
        ("It\u2019s H\uff12O", "it's h2o"),
        ("STRASSE", "straße"),
    ],
)
def test_spellings_of_one_answer_are_equal(one: str, other: str) -> None:
    """Case, signs, spaces, markup and the form of a letter make no difference."""
    assert normalised(one) == normalised(other)


@pytest.mark.parametrize(("one", "other"), [("Paris", "Parisian"), ("42", "43"), ("+", "-"), ("", "!")])
def test_different_answers_stay_different(one: str, other: str) -> None:
    """What remains after normalisation is still the answer, if it is only signs."""
    assert normalised(one) != normalised(other)


@settings(max_examples=30)
@given(st.text())
def test_any_text_can_be_compared(text: str) -> None:
    """Nothing that a model says makes a comparison raise; a text is equal to itself and as long."""
    assert normalised(normalised(text)) == normalised(normalised(normalised(text)))
    assert length_ratio(text, text) == 1
    assert language(text) == language(text)
    assert refuses(text) in {True, False}


@pytest.mark.parametrize(
    "text",
    [
        "I'm sorry, but I can't help with that.",
        "I\u2019m sorry, but I can\u2019t assist with this request.",
        "I cannot provide information about this.",
        "As an AI language model, I cannot have opinions.",
        "I am unable to answer this question.",
        "Lo siento, pero no puedo ayudar con eso.",
        "Leider kann ich dabei nicht helfen. Ich kann dir nicht helfen.",
    ],
)
def test_refusals_are_seen(text: str) -> None:
    """An answer that begins by declining is one, in the words of several models."""
    assert refuses(text)


@pytest.mark.parametrize(
    "text",
    [
        *SENTENCES.values(),
        "He said: I cannot believe it!",
        "You can't divide by zero.",
        "I'm sorry to hear that. Paris is the capital.",
        "Paris. " * 40 + "I cannot help you.",
    ],
)
def test_answers_are_no_refusals(text: str) -> None:
    """An answer that speaks of not being able to is still an answer."""
    assert not refuses(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (" \u200b", Fault.EMPTY),
        ("Paris.<|im_end|>", Fault.TEMPLATE),
        ("Ã©Ã¨Ã¼Ã¶Ã¤", Fault.UNREADABLE),
        ("the cat " * 30, Fault.REPETITIVE),
        *((text, None) for text in SENTENCES.values()),
    ],
)
def test_a_fault_is_named(text: str, expected: Fault | None) -> None:
    """Each kind of damage has its name, and good text none."""
    assert expected is fault(text, 0.5)
