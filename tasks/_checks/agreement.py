"""Compares the texts of two answers to one prompt, and says what may be wrong with either: pure functions of strings.

Two good models word the same answer differently, so nothing here calls a difference bad.  It names what can be
counted: equal, equal but for spelling, longer, refusing, in another language, broken.  What the counts mean is
decided over all prompts, by ``tasks._checks.paired``.

Languages are told by script, and those in Latin letters by their commonest words.  A text that leaves doubt has no
language rather than a guessed one, because a guess would blame a good candidate.
"""

import re
import unicodedata
from collections import Counter
from enum import StrEnum
from functools import lru_cache

from tasks._checks.quality import MAX_UNREADABLE
from tasks._checks.scoring import is_empty, leaks_template, repetition, unreadable

REFUSAL = re.compile(
    r"""
    \b(?:I|we)(?:\ am|'m|\ are|'re)?\ (?:cannot|can't|can\ not|unable\ to|not\ able\ to|won't|will\ not)
      \ (?:be\ able\ to\ )?
      (?:help|assist|answer|provide|give|fulfill|comply|complete|do\ that|discuss|create|generate|engage|support)
    | \bas\ an?\ (?:AI|artificial\ intelligence|language\ model)\b[^.]{0,60}\b(?:can't|cannot|unable|don't)\b
    | \bI'm\ (?:sorry|afraid),?\ (?:but\ )?I\ (?:can't|cannot|am\ unable|am\ not\ able|won't)\b
    | \b(?:lo\ siento|je\ suis\ désolée?|desculpe|mi\ dispiace)\b.{0,20}
      \b(?:no\ puedo|ne\ peux\ pas|não\ posso|non\ posso)\b
    | \bich\ kann\ (?:\w+\ ){0,3}nicht\ (?:helfen|beantworten)\b
    """,
    re.VERBOSE | re.IGNORECASE,
)
REFUSAL_WITHIN = 200
"""Characters from the beginning in which a refusal stands; later it is about something else."""

STOP_WORDS = {
    "English": "the of is and to in that it was for are with as this you be by from have not which a an",
    "Spanish": "el la los las de del es y en que un una por con para se lo su como más pero son está",
    "French": "le la les de des est et en que un une pour dans sur avec ce se il elle du au ne pas sont",
    "German": "der die das und ist in den von zu mit ein eine sich auf nicht des im dem es für auch als",
    "Italian": "il lo la gli di del della è e in che un una per con si sono non da come più dei nel",
    "Portuguese": "o a os as de do da é e em que um uma para com não se no na por mais como dos são",
    "Dutch": "de het een van en is in dat op te zijn met voor niet aan er om ook als bij naar deze",
}
_WORDS = {language: frozenset(words.split()) for language, words in STOP_WORDS.items()}
SENTENCE = 20
"""Characters added to each answer before lengths are compared: "Paris." says all that a sentence around it says."""
FEWEST_STOP_WORDS = 2
FEWEST_LETTERS = 4
MAIN_SHARE = 0.6
"""Share of the letters in one script above which it is the text's."""
CODE = re.compile(r"```.*?(?:```|\Z)|`[^`\n]*`", re.DOTALL)
_JAPANESE = frozenset({"HIRAGANA", "KATAKANA"})


class Fault(StrEnum):
    """What is wrong with an answer whatever was asked; the first that fits is named."""

    EMPTY = "shows nothing"
    TEMPLATE = "shows marks of the chat template"
    UNREADABLE = "is unreadable"
    REPETITIVE = "repeats itself"


@lru_cache(maxsize=1024)
def fault(text: str, max_repetition: float) -> Fault | None:
    """Return what is wrong with ``text`` by itself; a larger share of it than ``max_repetition`` may not repeat."""
    if is_empty(text):
        return Fault.EMPTY
    if leaks_template(text):
        return Fault.TEMPLATE
    if unreadable(text) > MAX_UNREADABLE:
        return Fault.UNREADABLE
    return Fault.REPETITIVE if repetition(text) > max_repetition else None


def normalised(text: str) -> str:
    """Return ``text`` without what two spellings of one answer differ in: case, signs, spaces and their forms."""
    letters = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.findall(r"\w+", letters)) or "".join(letters.split())


def length_ratio(candidate: str, live: str) -> float:
    """Return how many times as long as the live answer the candidate's is; a bare fact is not short of a sentence."""
    return (len(candidate.strip()) + SENTENCE) / (len(live.strip()) + SENTENCE)


def refuses(text: str) -> bool:
    """Return whether the answer begins by declining to give one."""
    return REFUSAL.search(text[:REFUSAL_WITHIN].replace("\u2019", "'")) is not None


def language(text: str) -> str | None:
    """Return the language or else the script of ``text``, code left out; none where that is doubtful."""
    prose = CODE.sub(" ", text)
    script = _script(prose)
    if script != "LATIN":
        return script
    words = Counter(re.findall(r"[^\W\d_]+", prose.casefold()))
    hits = Counter({name: sum(words[word] for word in stops) for name, stops in _WORDS.items()})
    (first, most), (_, second) = hits.most_common(2)
    return first if most >= FEWEST_STOP_WORDS and most > second else None


def _script(text: str) -> str | None:
    """Return the script of most letters, as Unicode names it; the Japanese ones are one with the Han among them."""
    scripts = Counter(unicodedata.name(letter, "?").split()[0] for letter in text if letter.isalpha())
    letters = scripts.total()
    if letters < FEWEST_LETTERS:
        return None
    if any(scripts[kana] for kana in _JAPANESE):
        japanese = sum(scripts[name] for name in (*_JAPANESE, "CJK"))
        return "Japanese" if japanese / letters > MAIN_SHARE else None
    name, count = scripts.most_common(1)[0]
    if count / letters <= MAIN_SHARE:
        return None
    return "LATIN" if name == "LATIN" else {"CJK": "Chinese"}.get(name, name.capitalize())
