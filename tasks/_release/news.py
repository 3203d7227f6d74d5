"""What there is to tell of a release, each thing once, and the lines that tell it."""

from collections.abc import Iterator

from tasks.records import Approval, Progress, Question, Step, StepState

News = Step | Question | Approval


def news_of(progress: Progress) -> Iterator[tuple[News, tuple[object, ...]]]:
    """Yield what there is to tell of a release, each with what tells it from all else of that release.

    A step is told of when it has ended; one that is repeated counts once, unless it ended otherwise.
    """
    for step in progress.steps:
        if step.state is not StepState.STARTED:
            yield step, (step.name, step.state)
    for approval in progress.approvals:
        yield approval, (approval.step, approval.at)
    if progress.question is not None:
        yield progress.question, (progress.question.step, progress.question.asked_at, "asked")


def step_line(progress: Progress, step: Step) -> str:
    """Return one line about a step that has ended."""
    mark = "ok" if step.state is StepState.DONE else "FAIL"
    return f"{progress.release.name:10} {mark:4} {step.name.value:11} {step.seconds:6.1f} s  {step.detail}"


def answer_line(progress: Progress, approval: Approval) -> str:
    """Return one line about a person's answer."""
    verb = "approved" if approval.granted else "rejected"
    return f"{progress.release.name} was {verb} by {approval.who}" + (f": {approval.why}" if approval.why else "")


def question_lines(release: str, service: str, question: Question) -> tuple[str, ...]:
    """Return what a person is asked about ``release``, and the commands that answer."""
    return (
        f"{release} waits for a person, until {question.until:%Y-%m-%d %H:%M} UTC; without an answer it is refused:",
        f"    {question.text}",
        f'    slipway approve {service} --reason "..."   lets it go on',
        f'    slipway reject {service} --reason "..."    ends it',
    )
