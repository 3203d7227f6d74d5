"""Why a release does not come up: one sentence, with what to do, from what its RayService's status hides.

KubeRay 1.7's RayService says ``Initializing`` and no more while an image cannot be pulled, no node has room or a
quota is used up, and keeps saying it when its applications have failed for good.  The RayCluster's conditions tell
some of it, pods tell most, and only Kubernetes' own words name the cause, so these are passed on, shortened.
"""

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from k8s.kinds import Object
from k8s.parts import Parts, condition

SILENT_S = 30.0
"""Seconds without a word after which the operator counts as down; it answers in one, and after a restart in 19."""
MOST_TEXT = 256
"""Characters of foreign text in a sentence."""
IMAGE = frozenset({"ErrImagePull", "ImagePullBackOff", "InvalidImageName", "ErrImageNeverPull"})
UNMAKEABLE = frozenset({"CreateContainerConfigError", "CreateContainerError", "RunContainerError"})
GUESS = "This may be caused by"
"""How Serve goes on about a start that takes more than 30 s, as that of a model does."""
ANSI = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
INSUFFICIENT = re.compile(r"Insufficient ([\w./-]*\w)")


@dataclass(frozen=True)
class Trouble:
    """What keeps a release from being ready; ``hopeless`` when waiting cannot help."""

    sentence: str
    hopeless: bool = False


def trouble(parts: Parts, now: datetime) -> Trouble | None:
    """Return the gravest trouble that the release's objects show, the cause before what follows from it."""
    looks: tuple[Callable[[], Iterable[Trouble]], ...] = (
        lambda: _suspended(parts),
        lambda: _refused(parts),
        lambda: _images(parts),
        lambda: _crashes(parts),
        lambda: _applications(parts),
        lambda: _forbidden(parts),
        lambda: _unschedulable(parts),
        lambda: _unmakeable(parts),
        lambda: _lost(parts),
        lambda: _silent(parts, now),
        lambda: _head(parts),
    )
    return next((found for look in looks for found in look()), None)


def _suspended(parts: Parts) -> Iterable[Trouble]:
    if parts.spec.get("suspend"):
        yield Trouble(
            "it was suspended, so KubeRay has taken its pods away: somebody set spec.suspend, and only they can tell "
            "why; release again once it may run",
            hopeless=True,
        )


def _refused(parts: Parts) -> Iterable[Trouble]:
    """See https://github.com/ray-project/kuberay: reasons of the condition Ready that never pass."""
    ready = condition(parts.status, "Ready")
    if ready.get("status") == "False" and ready.get("reason") in {"ValidationFailed", "InitializingTimeout"}:
        yield Trouble(f"KubeRay has given it up ({ready['reason']}): {_short(ready.get('message'))}", hopeless=True)


def _images(parts: Parts) -> Iterable[Trouble]:
    for pod, container in _containers(parts):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in IMAGE:
            yield Trouble(
                f"the image {container.get('image')} of the pod {pod} cannot be pulled ({waiting['reason']}: "
                f"{_short(waiting.get('message'))}): check its name, its digest and the pull Secret",
                hopeless=True,
            )
    head = condition(_status(parts), "HeadPodReady")
    if head.get("reason") in IMAGE:
        yield Trouble(
            f"the image of the head cannot be pulled ({head['reason']}: {_short(head.get('message'))}): check its "
            "name, its digest and the pull Secret",
            hopeless=True,
        )


def _crashes(parts: Parts) -> Iterable[Trouble]:
    for pod, container in _containers(parts):
        if ((container.get("state") or {}).get("waiting") or {}).get("reason") == "CrashLoopBackOff":
            yield Trouble(_crash(pod, container), hopeless=True)


def _crash(pod: str, container: Object) -> str:
    last = (container.get("lastState") or {}).get("terminated") or {}
    times = container.get("restartCount", 0)
    begun = f"the container {container.get('name')} of the pod {pod} has crashed {times} times"
    if last.get("reason") == "OOMKilled":
        return f"{begun}, last for want of memory (OOMKilled): give it more, or a smaller model"
    said = f", saying: {_last_line(last['message'])}" if last.get("message") else ""
    how = f"{last.get('reason', 'for a reason unknown')}, exit status {last.get('exitCode', 'unknown')}"
    return f"{begun}, last with {how}{said}: see `kubectl logs --previous {pod}`"


def _applications(parts: Parts) -> Iterable[Trouble]:
    for name, application in parts.applications.items():
        if application.get("status") == "DEPLOY_FAILED":
            cause = application_says(application)
            yield Trouble(f"its application {name} could not be deployed: {cause}", hopeless=True)


def application_says(application: Object) -> str:
    """Return the last line of what an application and its deployments have to say, which names the cause."""
    deployments = (application.get("serveDeploymentStatuses") or {}).values()
    told = [one.get("message") for one in deployments if one.get("status") != "HEALTHY"]
    return _last_line(next(filter(None, [*told, application.get("message")]), "no reason was given"))


def _forbidden(parts: Parts) -> Iterable[Trouble]:
    """See https://github.com/ray-project/kuberay: the condition says which create failed, its message why."""
    failure = condition(_status(parts), "ReplicaFailure")
    if failure.get("status") == "True":
        yield Trouble(
            f"its pods cannot be made ({failure.get('reason')}: {_short(failure.get('message'))}): raise the quota, "
            "or change the policy that forbids them"
        )


def _unschedulable(parts: Parts) -> Iterable[Trouble]:
    for pod in parts.pods:
        scheduled = condition(pod.get("status"), "PodScheduled")
        if scheduled.get("status") == "False" and scheduled.get("reason") == "Unschedulable":
            yield Trouble(_no_room(pod["metadata"]["name"], str(scheduled.get("message") or "")))


def _no_room(pod: str, message: str) -> str:
    """Return the sentence; the scheduler adds what preemption would do, which is of no use here."""
    cause = _short(re.split(r"[.,]? (?:no new claims to deallocate|preemption:)", message)[0])
    lacking = ", ".join(dict.fromkeys(INSUFFICIENT.findall(message)))
    what = f"has enough {lacking} for" if lacking else "takes"
    return f"no node {what} the pod {pod} ({cause}): add nodes, free some, or ask for less"


def _unmakeable(parts: Parts) -> Iterable[Trouble]:
    for pod, container in _containers(parts):
        waiting = (container.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in UNMAKEABLE:
            yield Trouble(
                f"the container {container.get('name')} of the pod {pod} cannot be started ({waiting['reason']}: "
                f"{_short(waiting.get('message'))}): make what it needs"
            )


def _lost(parts: Parts) -> Iterable[Trouble]:
    """See https://kubernetes.io/docs/concepts/workloads/pods/disruptions/#pod-disruption-conditions."""
    for pod in parts.pods:
        status, name = pod.get("status") or {}, pod["metadata"]["name"]
        disrupted = condition(status, "DisruptionTarget")
        if status.get("reason") == "NodeLost" or status.get("phase") == "Unknown":
            why = "no word comes from it"
        elif disrupted.get("status") == "True":
            why = f"{disrupted.get('reason')}: {_short(disrupted.get('message'))}"
        else:
            continue
        node = (pod.get("spec") or {}).get("nodeName", "its node")
        yield Trouble(f"the pod {name} is lost with {node} ({why}): KubeRay makes another where there is room")


def _silent(parts: Parts, now: datetime) -> Iterable[Trouble]:
    changed = parts.changed_at
    if changed is None or parts.observed or parts.deleting:
        return
    seconds = (now - changed).total_seconds()
    if seconds > SILENT_S:
        yield Trouble(
            f"the KubeRay operator does not act: {seconds:.0f} s after the last change it has not said a word about "
            "it; see that it runs (`kubectl get pods --all-namespaces -l app.kubernetes.io/name=kuberay-operator`)"
        )


def _head(parts: Parts) -> Iterable[Trouble]:
    head = condition(_status(parts), "HeadPodReady")
    if head.get("status") == "False":
        said = _short(head.get("message")).rstrip(": ") or head.get("reason", "no reason given")
        yield Trouble(f"its head is not ready: {said}")


def _status(parts: Parts) -> Object | None:
    """Return the newest RayCluster's status; the RayService's copy of it leaves out what matters here."""
    clusters = sorted(parts.ray_clusters, key=lambda one: str(one["metadata"].get("creationTimestamp")))
    return clusters[-1].get("status") if clusters else None


def _containers(parts: Parts) -> Iterable[tuple[str, Object]]:
    """Yield the name of the pod with each of its containers' statuses, those that run before the others included."""
    for pod in parts.pods:
        status = pod.get("status") or {}
        for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
            yield pod["metadata"]["name"], container


def _last_line(text: str) -> str:
    lines = [line.strip() for line in ANSI.sub("", text).splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(GUESS)]
    return _short(telling[-1]) if telling else ""


def _short(text: object) -> str:
    """Return the text on one line; of a long one both ends, since Go's errors end with their cause."""
    line = " ".join(ANSI.sub("", str(text or "")).split())
    half = MOST_TEXT // 2
    return line if len(line) <= MOST_TEXT else f"{line[:half]}…{line[-half:]}"
