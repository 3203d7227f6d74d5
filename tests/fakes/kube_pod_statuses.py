"""What a kubelet and a scheduler write about a pod; see ``kube_statuses`` for what was recorded."""

from typing import Any

from tests.fakes.kube_statuses import (
    CRASH_BACK_OFF,
    PULL_BACK_OFF,
    PULL_FAILED,
    Object,
    condition,
    is_worker,
    now,
)

HOST = "10.240.0.1"
INIT_CONTAINER = "wait-gcs-ready"
"""What the operator has each worker do first."""


def unschedulable(message: str) -> Object:
    """Return the status of a pod that no node takes."""
    return {"phase": "Pending", "conditions": [_condition("PodScheduled", False, "Unschedulable", message)]}


def waiting(pod: Object, reason: str, **more: str) -> Object:
    """Return the status of a pod whose container has not run yet."""
    return _status(pod, "Pending", {"waiting": {"reason": reason, **more}})


def creating(pod: Object) -> Object:
    """Return the status of a pod on its node; a worker waits for its head first."""
    return waiting(pod, "PodInitializing" if is_worker(pod) else "ContainerCreating")


def not_pulled(pod: Object, is_again: bool) -> Object:
    """Return the status of a pod whose image cannot be pulled, at the first try or later."""
    reason, words = ("ImagePullBackOff", PULL_BACK_OFF) if is_again else ("ErrImagePull", PULL_FAILED)
    return waiting(pod, reason, message=words.format(image=pod["spec"]["containers"][0]["image"]))


def running(pod: Object, ip: str, is_ready: bool, restarts: int) -> Object:
    """Return the status of a pod whose container runs."""
    state = {"running": {"startedAt": now()}}
    return _status(pod, "Running", state, is_ready=is_ready, ip=ip, restarts=restarts)


def crashed(pod: Object, ip: str, restarts: int, pause_s: float) -> Object:
    """Return the status of a pod whose container has ended, and waits ``pause_s`` if that is not zero."""
    ended = {"terminated": {"exitCode": 1, "reason": "Error", "startedAt": now(), "finishedAt": now()}}
    if not pause_s:
        return _status(pod, "Running", ended, ip=ip, restarts=restarts)
    meta, container = pod["metadata"], pod["spec"]["containers"][0]["name"]
    message = CRASH_BACK_OFF.format(
        seconds=int(pause_s), container=container, pod=meta["name"], namespace=meta["namespace"], uid=meta["uid"]
    )
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": message}}
    return _status(pod, "Running", state, ip=ip, restarts=restarts, last=ended)


def _condition(kind: str, is_true: bool, reason: str = "", message: str = "") -> Object:
    made = condition(kind, is_true, reason, message, lastProbeTime=None)
    return {key: value for key, value in made.items() if value != ""}


def _status(
    pod: Object,
    phase: str,
    state: Object,
    *,
    is_ready: bool = False,
    ip: str = "",
    restarts: int = 0,
    last: Object | None = None,
) -> Object:
    container = pod["spec"]["containers"][0]
    unready = "" if is_ready else f"containers with unready status: [{container['name']}]"
    why: tuple[str, ...] = () if is_ready else ("ContainersNotReady", unready)
    is_waiting = state.get("waiting", {}).get("reason") == "PodInitializing"
    not_begun = ("ContainersNotInitialized", f"containers with incomplete status: [{INIT_CONTAINER}]")
    conditions = [
        _condition("PodReadyToStartContainers", True),
        _condition("Initialized", not is_waiting, *(not_begun if is_waiting else ())),
        _condition("Ready", is_ready, *why),
        _condition("ContainersReady", is_ready, *why),
        _condition("PodScheduled", True),
    ]
    told: dict[str, Any] = {
        "phase": phase,
        "conditions": conditions,
        "containerStatuses": [
            {
                "image": container["image"],
                "imageID": "",
                "lastState": last or {},
                "name": container["name"],
                "ready": is_ready,
                "restartCount": restarts,
                "started": "running" in state,
                "state": state,
            }
        ],
        "hostIP": HOST,
        "hostIPs": [{"ip": HOST}],
    }
    return told | ({"podIP": ip, "podIPs": [{"ip": ip}]} if ip else {})
