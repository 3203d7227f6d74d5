"""What can be said of an answer's text without knowing the right one: pure functions of a string.

Each looks for one kind of damage that a broken commit, tokenizer or chat template really does to answers of a
server that is otherwise healthy and fast.
"""

import re
import unicodedata
from collections.abc import Sequence

WORDS_IN_A_ROW = 3
"""Length of the word n-grams: shorter ones repeat in good prose, longer ones miss a loop of few words."""
CHARACTERS_IN_A_ROW = 10
"""Length of the character n-grams, for loops in text without spaces between words."""

TEMPLATE = re.compile(
    r"""
    <\|[A-Za-z0-9_ ]{1,40}\|>                     # <|im_start|>, <|eot_id|>, <|endoftext|>
    | <\uff5c[^<>\n]{1,40}\uff5c>                   # the same with full-width bars
    | </?s> | <pad> | <unk> | <bos> | <eos>
    | \[/?INST\] | <</?SYS>>
    | </?(?:start|end)_of_turn>
    | ^\s*(?:user|assistant|system)\n             # the bare role line of a template whose marks were dropped
    | \n(?:user|assistant|system)\n(?:[^\n]*\n){0,9}?(?:user|assistant|system)\n  # two of them: the end was not seen
    | \{%-?\s | \{\{-?\s*(?:messages|bos_token)   # the template's own source
    """,
    re.VERBOSE,
)

# UTF-8 that was read as Windows-1252 looks like this: a lead byte, then its continuation bytes.  The last range is
# how a byte-level tokenizer writes those bytes where it does not turn them back.
_CONTINUATION = "".join(
    re.escape(bytes([byte]).decode("cp1252", errors="ignore") + chr(byte)) for byte in range(0x80, 0xC0)
)
_CONTINUATION += "\u0122-\u0143"
MOJIBAKE = re.compile(
    f"[\u00c2-\u00df][{_CONTINUATION}]"
    f"|[\u00e0-\u00ef][{_CONTINUATION}]{{2}}"
    f"|[\u00f0-\u00f4][{_CONTINUATION}]{{3}}"
    # A byte-level tokenizer's or SentencePiece's own signs for space and newline, not turned back into them.
    "|[\u0120\u010a\u2581]"
)
_BROKEN_CATEGORIES = frozenset({"Cc", "Cn", "Co", "Cs"})
_WHITESPACE = frozenset("\n\t\r")


def is_empty(text: str) -> bool:
    """Return whether ``text`` shows nothing: only spaces, controls and invisible format characters."""
    return all(character.isspace() or unicodedata.category(character)[0] == "C" for character in text)


def holds_fact(text: str, patterns: Sequence[str]) -> bool:
    """Return whether every regular expression of ``patterns`` is found in ``text``; raises ``re.error``."""
    return all(re.search(pattern, text) for pattern in patterns)


def leaks_template(text: str) -> bool:
    """Return whether the marks of a chat template are in ``text``, where only its content belongs."""
    return TEMPLATE.search(text) is not None


def repetition(text: str) -> float:
    """Return the share, 0 to 1, of n-grams of ``text`` that were there before, of words or of characters.

    The larger of the two counts.  Text too short for two n-grams repeats nothing.
    """
    words = re.findall(r"\w+|[^\w\s]", text.casefold())
    return max(_repeated(words, WORDS_IN_A_ROW), _repeated(text.casefold(), CHARACTERS_IN_A_ROW))


def unreadable(text: str) -> float:
    """Return the share, 0 to 1, of characters that are mojibake, controls, or no characters at all.

    A share, not a yes or no: a language may use one of the signs rightly, a damaged tokenizer uses them all over.
    """
    if not text:
        return 0.0
    broken = {place for match in MOJIBAKE.finditer(text) for place in range(*match.span())}
    broken |= {place for place, character in enumerate(text) if _is_broken(character)}
    return len(broken) / len(text)


def _repeated(units: Sequence[str], length: int) -> float:
    grams = [tuple(units[start : start + length]) for start in range(len(units) - length + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _is_broken(character: str) -> bool:
    if character in _WHITESPACE:
        return False
    return character == "\ufffd" or unicodedata.category(character) in _BROKEN_CATEGORIES
