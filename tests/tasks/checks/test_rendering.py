"""Foreign text is shown, but can neither break a table nor hide."""

from tasks._checks.rendering import TITLES, cut, evidence, one_line, results_markdown, visible
from tasks._clients.completions import Answer
from tasks.records import CheckResult, StepName, Verdict


def answer(text: str, error: str | None = None) -> Answer:
    """Return an answer with this text."""
    return Answer(prompt="What is\nthe capital?", text=text, latency_s=1, error=error)


def test_evidence_is_one_short_line_without_controls() -> None:
    """Controls, line breaks and direction marks are escaped, long answers cut."""
    shown = evidence(answer("\x1b[31m\u202eParis\n" + "a" * 500))

    assert shown.startswith(r"What is\nthe capital? -> \x1b[31m\u202eParis\na")
    assert shown.isprintable()
    assert len(shown) < 250
    assert shown.endswith("…")


def test_evidence_of_a_broken_answer_says_why() -> None:
    """Where nothing was said, the error is the evidence."""
    assert evidence(answer("", "HTTP 500")) == r"What is\nthe capital? -> nothing (HTTP 500)"


def test_other_scripts_stay_readable() -> None:
    """Only what does not print is escaped."""
    assert one_line("東京 — Москва é\t", 40) == r"東京 — Москва é\t"


def test_a_list_of_verdicts_with_evidence_of_what_did_not_pass() -> None:
    """The worst comes first; tags, links and backticks of a model are shown as what they are."""
    results = (
        CheckResult(name="a", verdict=Verdict.PASS, summary="x | y\n| z |", evidence=("hidden",)),
        CheckResult(name="b", verdict=Verdict.FAIL, summary="<b>![x](y)</b>", evidence=("```\n# title",)),
    )

    assert results_markdown(results).splitlines() == [
        r"- **fail** b: &lt;b>!\[x](y)&lt;/b>",
        r"- pass a: x \| y\\n\| z \|",
        "",
        "Evidence of **b**:",
        "",
        r"    ```\n# title",
    ]


def test_every_step_has_a_title_of_its_own() -> None:
    """A new step cannot be shown without a name, nor under that of another."""
    assert set(StepName) == set(TITLES)
    assert len(set(TITLES.values())) == len(TITLES)


def test_what_is_cut_is_counted() -> None:
    """A text that fits stays as it is; of a longer one the rest is told."""
    assert cut("four", 4) == "four"
    assert cut("a" * 5004, 4) == "aaaa… (5,000 more characters)"


def test_only_line_breaks_and_tabs_of_what_does_not_print_are_kept() -> None:
    """A text of several lines keeps them, and can neither hide nor reverse anything."""
    assert visible("é\n\ta\u202eb\x00\r\ud800") == "é\n\ta\\u202eb\\x00\\r\\ud800"
