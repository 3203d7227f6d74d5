"""How steps and verdicts are shown to a person: titles, evidence in one line, results as Markdown.

What a model said is foreign text: controls, line breaks and invisible characters are escaped, so that it can
neither break a table nor hide, and it is shown as code, so that it is not read as markup.
"""

from collections.abc import Sequence

from tasks._clients.completions import Answer
from tasks.records import CheckResult, StepName, Verdict

TITLES = {
    StepName.ROOM: "look for room",
    StepName.MIRROR: "mirror the weights",
    StepName.START: "start the candidate",
    StepName.READY: "wait for its first answer",
    StepName.SMOKE: "smoke checks",
    StepName.QUALITY: "quality checks",
    StepName.PAIRED: "paired checks against the live release",
    StepName.PERFORMANCE: "speed against the live release",
    StepName.OWN: "your own checks",
    StepName.APPROVE: "approval",
    StepName.SHIFT: "shift live traffic",
    StepName.BAKE: "bake: watch it live",
    StepName.TIDY: "remove older releases",
    StepName.RECEIPT: "receipt of what clients saw",
    StepName.MOVE_BACK: "move live traffic back",
    StepName.REMOVE: "remove the candidate",
}
"""What a person reads for a step, in the timeline and in the report."""

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
    """Return a list of verdicts, worst first, and below it the evidence of those that are not a pass.

    No table: Prefect's pages break no line in a cell, and cut it off.
    """
    results = worst_first(results)
    lines = [
        f"- {result.verdict if result.verdict is Verdict.PASS else f'**{result.verdict}**'} "
        f"{plain(result.name)}: {plain(result.summary)}"
        for result in results
    ]
    for result in results:
        if result.verdict is not Verdict.PASS and result.evidence:
            # Indented code, for which no text inside can end the block.
            shown = (f"    {one_line(line, len(line))}" for line in result.evidence)
            lines += ["", f"Evidence of **{plain(result.name)}**:", "", *shown]
    return "\n".join(lines) + "\n"


def worst_first(results: Sequence[CheckResult]) -> list[CheckResult]:
    """Return the verdicts with what failed first, then what could not be measured; otherwise in their order."""
    return sorted(results, key=lambda result: WORST_FIRST.index(result.verdict))


def cut(text: str, length: int) -> str:
    """Return the first ``length`` characters of ``text``, and how many more there were."""
    more = len(text) - length
    return text if more <= 0 else f"{text[:length]}… ({more:,} more characters)"


def visible(text: str) -> str:
    """Return ``text`` with its line breaks and tabs, and everything else escaped that does not print."""
    return "".join(
        character if character.isprintable() or character in "\n\t" else _escaped(character) for character in text
    )


def one_line(text: str, length: int) -> str:
    """Return ``text`` cut to ``length`` characters, with everything escaped that does not print."""
    cut = text if len(text) <= length else text[: length - 1] + "…"
    return "".join(character if character.isprintable() else _escaped(character) for character in cut)


def _escaped(character: str) -> str:
    return character.encode("unicode_escape", errors="surrogatepass").decode("ascii")


def plain(text: str) -> str:
    """Return ``text`` in one line of Markdown that holds no tag, link, picture or bar of a table."""
    text = one_line(text, len(text)).replace("\\", "\\\\").replace("<", "&lt;")
    return text.replace("|", "\\|").replace("[", "\\[").replace("`", "\\`")
