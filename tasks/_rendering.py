"""How verdicts are shown to a person: evidence in one line, results as Markdown.

What a model said is foreign text: controls, line breaks and invisible characters are escaped, so that it can
neither break a table nor hide, and it is shown as code, so that it is not read as markup.
"""

from collections.abc import Sequence

from tasks._completions import Answer
from tasks.records import CheckResult, Verdict

PROMPT_LENGTH = 60
ANSWER_LENGTH = 160
"""Characters of a prompt and of an answer that evidence shows."""
WORST_FIRST = (Verdict.FAIL, Verdict.INCONCLUSIVE, Verdict.PASS)


def evidence(answer: Answer) -> str:
    """Return a prompt and what came back for it, in one line."""
    said = one_line(answer.text, ANSWER_LENGTH) if answer.text else "nothing"
    fault = f" ({one_line(answer.error, ANSWER_LENGTH)})" if answer.error else ""
    return f"{one_line(answer.prompt, PROMPT_LENGTH)} -> {said}{fault}"


def results_markdown(results: Sequence[CheckResult]) -> str:
    """Return a table of verdicts, worst first, and below it the evidence of those that are not a pass."""
    results = sorted(results, key=lambda result: WORST_FIRST.index(result.verdict))
    lines = [
        "| check | verdict | what was found |",
        "|---|---|---|",
        *(f"| {_cell(result.name)} | {result.verdict} | {_cell(result.summary)} |" for result in results),
    ]
    for result in results:
        if result.verdict is not Verdict.PASS and result.evidence:
            # Indented code, for which no text inside can end the block.
            shown = (f"    {one_line(line, len(line))}" for line in result.evidence)
            lines += ["", f"Evidence of **{_cell(result.name)}**:", "", *shown]
    return "\n".join(lines) + "\n"


def one_line(text: str, length: int) -> str:
    """Return ``text`` cut to ``length`` characters, with everything escaped that does not print."""
    cut = text if len(text) <= length else text[: length - 1] + "…"
    return "".join(character if character.isprintable() else _escaped(character) for character in cut)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", errors="surrogatepass").decode("ascii")


def _cell(text: str) -> str:
    return one_line(text, len(text)).replace("\\", "\\\\").replace("|", "\\|").replace("<", "&lt;")
