"""Each score finds its kind of damage, and good answers in several languages score nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks._checks.scoring import holds_fact, is_empty, leaks_template, repetition, unreadable

GOOD = (
    "The capital of France is Paris.",
    'Hola! In Spanish, it\'s "Hola!"\n\nThis is a common greeting in many languages.',
    "Die Straße heißt „Fuß“ – groß, Größe, Übermaß, 37 °C.",  # noqa: RUF001
    "Où est la bibliothèque ? À côté de l’hôtel, près du café…",  # noqa: RUF001
    "日本の首都は東京です。人口は約1400万人です。",
    "Столица России — Москва.",
    "عاصمة مصر هي القاهرة.",
    '```python\nprint("Hello, World!")\n```\n\tif a < b and b > c: x = [1, 2]',
    "👩‍💻 writes <b>HTML</b> & {braces}",
)
words = st.text(st.characters(codec="ascii", categories=["Ll"]), min_size=1, max_size=8)


@pytest.mark.parametrize("text", GOOD)
def test_good_text_scores_nothing(text: str) -> None:
    """Prose, code, other scripts and emoji are neither empty, leaking, repetitive nor unreadable."""
    assert not is_empty(text)
    assert not leaks_template(text)
    assert repetition(text) < 0.25
    assert unreadable(text) < 0.05


@pytest.mark.parametrize("text", ["", "  \n\t ", "\u200b\ufeff", "\x00\x1b", "\u2028 \u00a0"])
def test_text_that_shows_nothing_is_empty(text: str) -> None:
    """Spaces, zero-width characters and controls are no answer."""
    assert is_empty(text)


@pytest.mark.parametrize(
    "text",
    [
        "Paris.<|im_end|>",
        "<|im_start|>assistant\nParis.",
        "Paris.</s>",
        "<s> Paris.",
        "[INST] What? [/INST] Paris.",
        "<<SYS>> You are",
        "<start_of_turn>model",
        "<｜end▁of▁sentence｜>",  # noqa: RUF001 - the mark as it is spelt
        "Paris.<unk>",
        "assistant\nParis.",
        "Paris.\nsystem\n\nuser\nI am planning to launch",
        "{% for message in messages %}",
    ],
)
def test_marks_of_a_chat_template_leak(text: str) -> None:
    """The marks of every common template are found."""
    assert leaks_template(text)


@given(st.text())
def test_shares_are_shares(text: str) -> None:
    """Whatever a model says, a share is between 0 and 1."""
    assert 0 <= repetition(text) <= 1
    assert 0 <= unreadable(text) <= 1


@given(st.lists(words, min_size=1, max_size=4), st.integers(min_value=20, max_value=60))
def test_a_loop_repeats_itself(loop: list[str], times: int) -> None:
    """A few words said over and over are repetition, however many spaces are between them."""
    assert repetition(" ".join(loop * times)) > 0.5
    assert repetition("".join(loop * times)) > 0.5


@given(st.lists(words, unique=True, min_size=3, max_size=60))
def test_words_said_once_repeat_no_words(text: list[str]) -> None:
    """Text in which no word comes twice can repeat at most parts of words."""
    joined = " ".join(text)
    assert repetition(joined) == repetition(joined.upper())
    assert repetition(joined) < 0.5


@given(st.text(st.characters(min_codepoint=0xC0, max_codepoint=0xFF, categories=["L"]), min_size=4))
def test_utf8_read_as_latin_is_mojibake(text: str) -> None:
    """Accented text that was decoded with the wrong table is unreadable from end to end."""
    assert unreadable(text.encode().decode("latin-1")) == 1


@pytest.mark.parametrize("text", ["ThoseâĢĶ", "\ufffd\ufffd\ufffd Paris", "â€œParisâ€\x9d", "\x0b$\x7f\x0b$\x7f"])
def test_broken_characters_are_unreadable(text: str) -> None:
    """Replacement characters, controls and mistaken decodings each count."""
    assert unreadable(text) > 0.1


def test_signs_of_a_tokenizer_are_unreadable() -> None:
    """Signs for spaces that were not turned back into spaces exceed the share that is allowed."""
    assert unreadable("The\u0120capital\u0120of\u0120France\u0120is\u0120Paris.") > 0.1
    assert unreadable("\u2581The\u2581capital\u2581of\u2581France\u2581is\u2581Paris.") > 0.1


@given(st.text(), st.text())
def test_a_fact_is_held_wherever_it_stands(before: str, after: str) -> None:
    """All patterns must be found, anywhere."""
    text = f"{before} Paris {after}"
    assert holds_fact(text, (r"\bParis\b",))
    assert not holds_fact(text, (r"\bParis\b", r"no such \A fact"))


def test_a_part_of_a_word_is_no_fact() -> None:
    """Word bounds in a pattern are kept."""
    assert not holds_fact("Parisian", (r"\bParis\b",))
