"""What a release is, told from its objects: starting, healthy, failed or going; and which one is live.

A candidate is healthy when the status is about its present spec, KubeRay calls it ready, every application runs and
every pod that is to take requests is a ready endpoint.  KubeRay's word alone comes seconds too early: in six of nine
starts on a real cluster only the head was an endpoint then.

A release that clients were led to is judged more mildly: it was complete then, and is healthy as long as one of its
pods takes requests; what is wrong is its message.  A readiness probe that fails for a moment, an operator that is
down or somebody's edit must not make traffic move to something worse; whether its answers are good, the answers say.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from k8s.edits import edited
from k8s.kinds import Object
from k8s.parts import Objects, Parts, condition, parts_of
from k8s.routing import live_of, percents
from k8s.trouble import application_says, trouble


class Health(StrEnum):
    """What is to be said of one release."""

    STARTING = "starting"
    HEALTHY = "healthy"
    FAILED = "failed"
    REMOVING = "removing"


@dataclass(frozen=True)
class ReleaseState:
    """One release; ``share`` is its percentage of live traffic, ``live`` that it has most or all of it.

    ``edited`` when somebody else changed what it is, however well it answers; ``message`` says where.
    """

    health: Health
    live: bool = False
    draining: bool = False
    share: int = 0
    message: str = ""
    edited: bool = False


def release_states(objects: Objects, service: str, now: datetime) -> dict[str, ReleaseState]:
    """Return every release of the service by name, those included of which only a remnant is left."""
    stable = _named(objects.services, service)
    route = _named(objects.routes, service)
    live, shares = live_of(stable, route), percents(stable, route)
    return {
        name: _state(parts, now, live=name == live, share=shares.get(name, 0))
        for name, parts in parts_of(objects, service).items()
    }


def _state(parts: Parts, now: datetime, *, live: bool, share: int) -> ReleaseState:
    place = edited(parts.ray_service) if parts.ray_service else None
    health, message = _judged(parts, now, place)
    return ReleaseState(
        health=health,
        live=live,
        draining=parts.draining_since is not None,
        share=share,
        message=message,
        edited=place is not None,
    )


def _judged(parts: Parts, now: datetime, place: str | None) -> tuple[Health, str]:
    """Return the health and the sentence that goes with it; ``place`` is where somebody edited it."""
    if parts.ray_service is None:
        return Health.FAILED, f"its RayService was deleted by somebody else: release again, or remove {parts.name}"
    if parts.deleting:
        return Health.REMOVING, "its RayService is being deleted"
    found, lacking = trouble(parts, now), _lacking(parts)
    sentence = _edit(place) if place else found.sentence if found else lacking
    if parts.served_since and parts.answering:
        return Health.HEALTHY, sentence
    if place or (found and found.hopeless):
        return Health.FAILED, sentence
    return (Health.STARTING if lacking else Health.HEALTHY), sentence


def _edit(place: str) -> str:
    return (
        f"somebody edited its RayService ({place}), so it is not what was released: put the change into the spec of "
        "the service and release that"
    )


def _lacking(parts: Parts) -> str:
    """Return what is still missing until the release is ready, empty when it is."""
    if not parts.observed:
        return "KubeRay has not looked at it yet"
    ready = condition(parts.status, "Ready")
    applications = parts.applications
    waiting = {name: app for name, app in applications.items() if app.get("status") != "RUNNING"}
    if waiting or not applications:
        return _deploying(waiting)
    wanted, there = parts.lacking
    if there < wanted:
        return f"{there} of {wanted} pods take requests"
    if ready.get("status") != "True" or ready.get("observedGeneration", 0) < parts.generation:
        return f"KubeRay says that it is not ready ({ready.get('reason', 'no reason given')})"
    return ""


def _deploying(waiting: dict[str, Object]) -> str:
    if not waiting:
        return "no application runs yet"
    name, application = next(iter(waiting.items()))
    said = application_says(application)
    return f"its application {name} is {application.get('status')}" + (f": {said}" if said else "")


def _named(objects: tuple[Object, ...], name: str) -> Object | None:
    return next((obj for obj in objects if obj["metadata"]["name"] == name), None)
