"""Stored weights as Prefect shows them: mirrors, verifications, collections, and looks at what became upstream.

Each function returns the state that its flow run ends in.  What a person should look at, a damaged file or a commit
that vanished from its Hub, is a failed run with the reason as its message, because that is what Prefect notifies of.
"""

from typing import Any

from prefect.client.schemas.objects import State
from prefect.states import Completed, Failed

from tasks import _upkeep
from tasks._weights.collect import Collection
from tasks._weights.garbage import Action
from tasks._weights.upstream import Finding
from tasks.reporting import publish, shown_progress
from tasks.settings import Settings


def mirror(
    settings: Settings, model: str, ref: str, hub: str | None, licences: tuple[str, ...], *, repair: bool
) -> State[Any]:
    """Bring what ``ref`` of ``model`` means into the store, and show how far it is."""
    target = f"{model}@{ref}"
    if hub is not None:
        settings = settings.from_hub(hub)
    with shown_progress(f"mirror {target}") as moved:
        done = _upkeep.mirror_target(settings, target, licences=licences, repair=repair, progress=moved)
    return Completed(message=done.sentence)


def verify(settings: Settings, model: str, commit: str, *, deep: bool) -> State[Any]:
    """Compare a stored commit with its manifest; the run fails for damage, and names each file."""
    target = f"{model}@{commit}"
    with shown_progress(f"verify {target}") as moved:
        found = _upkeep.verify_target(settings, target, deep=deep, progress=moved)
    if found.whole:
        return Completed(message=f"{target} is whole: {found.files} files, {found.bytes / 1e6:,.0f} MB")
    return Failed(message="; ".join(f"{damage.path} {damage.what}" for damage in found.damaged))


def collect_garbage(settings: Settings, *, delete: bool, grace_days: float) -> State[Any]:
    """Mark or delete what nothing refers to, and show what became of each commit."""
    done = _upkeep.collect_garbage(settings, delete=delete, grace_days=grace_days)
    publish(key="garbage", markdown=collection_markdown(done), description="stored commits")
    doomed = sum(one.action is Action.DELETE for one in done.decisions)
    verb = "would be deleted" if done.dry else "deleted"
    return Completed(message=f"{doomed} commits, {done.deleted_bytes / 1e6:,.0f} MB {verb}")


def watch_upstream(settings: Settings) -> State[Any]:
    """Report what became, at their Hubs, of commits in use; the run fails when a person should look."""
    found = _upkeep.watch_upstream(settings)
    publish(key="upstream", markdown=findings_markdown(found), description="commits in use, at their Hubs")
    trouble = [one.what for one in found if _upkeep.is_trouble(one)]
    return Failed(message=" ".join(trouble)) if trouble else Completed(message="nothing that a person should look at")


def collection_markdown(done: Collection) -> str:
    """Return a table of all commits of a store and what became of each."""
    lines = ["| commit | MB | what | why |", "|---|---:|---|---|"]
    lines += [
        f"| `{one.model}@{one.commit[:12]}` | {one.bytes / 1e6:,.0f} | {one.action.value} | {'; '.join(one.why)} |"
        for one in done.decisions
    ]
    return "\n".join(lines) + "\n"


def findings_markdown(found: tuple[Finding, ...]) -> str:
    """Return a table of what is to be known of commits in use."""
    lines = ["| commit | used by | what |", "|---|---|---|"]
    lines += [
        f"| `{one.pin.model}@{one.pin.commit[:12]}` | {', '.join(one.pin.used)} | {one.kind.value}: {one.what} |"
        for one in found
    ]
    return "\n".join(lines) + "\n" if found else "Nothing has changed.\n"
