"""What flows and commands work on, built from the settings; nothing is reached until a step asks."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from tasks._checks.apart import quality_apart
from tasks._checks.prompts import Prompts
from tasks._clients.completions import Answer
from tasks._clients.witness import Witness
from tasks._clock import Clock
from tasks._release.boundaries import boundary
from tasks._release.ray import RayTarget
from tasks._release.target import Target
from tasks._stores.store import Store, open_store
from tasks._weights.access import open_hub, signer
from tasks._weights.carrying import Progress as Moved
from tasks._weights.hub import Hub
from tasks.errors import BadInput
from tasks.records import CheckResult, Manifest, Progress
from tasks.settings import Settings
from tasks.spec import ServiceSpec


def _unshown(_title: str) -> AbstractContextManager[Moved]:
    return nullcontext(lambda *_: None)


@dataclass(frozen=True)
class World:
    """What the steps work on; leaving it as a context lets go of its connections.

    ``shown`` shows the bytes of a mirror, by its title, while a block runs; ``sign`` signs what is mirrored;
    ``judge`` judges answers by themselves; ``witness`` keeps requests open and counts them; ``tell`` tells people of
    a release that asks them or has ended, and never raises; ``cross`` is told of every boundary between two effects.
    """

    hub: Callable[[str], Hub]
    store: Store
    target: Target
    services: Path
    clock: Clock = field(default_factory=Clock)
    shown: Callable[[str], AbstractContextManager[Moved]] = _unshown
    sign: Callable[[Manifest], bytes] | None = None
    judge: Callable[[Sequence[Answer], Prompts, ServiceSpec], tuple[CheckResult, ...]] = quality_apart
    witness: Witness | None = None
    tell: Callable[[Progress], None] = lambda _: None
    cross: Callable[[str], None] = lambda _: None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.witness is not None:
            self.witness.close()
        self.target.close()
        self.store.close()


def open_world(settings: Settings, *, shown: Callable[[str], AbstractContextManager[Moved]] = _unshown) -> World:
    """Return the world that ``settings`` describe; raises ``BadInput`` that names the setting that is missing.

    ``shown`` shows the bytes that a mirror moves, as ``World`` says.
    """
    store = open_store(settings.store)
    return World(
        hub=lambda endpoint: open_hub(settings, endpoint),
        store=store,
        target=_target(settings),
        services=settings.services,
        shown=shown,
        sign=signer(settings.signing),
        witness=Witness(store, settings.home / "receipts"),
        cross=boundary(settings.crash_at),
    )


def _target(settings: Settings) -> Target:
    """Return the one target that the settings name."""
    on_ray = bool(settings.ray.dashboard and settings.ray.serve)
    if on_ray and settings.kubernetes.namespace:
        raise BadInput(
            "Both a Ray cluster and a Kubernetes namespace are configured.",
            remedy="Unset SLIPWAY_RAY__DASHBOARD or SLIPWAY_KUBERNETES__NAMESPACE: a controller drives one target.",
        )
    if settings.kubernetes.namespace:
        from tasks._release.kuberay import KubeRayTarget  # noqa: PLC0415 - its client takes 0.3 s and 35 MB

        return KubeRayTarget(settings.kubernetes)
    if not on_ray:
        raise BadInput(
            "No Ray cluster and no Kubernetes namespace are configured.",
            remedy="Set SLIPWAY_KUBERNETES__NAMESPACE, or SLIPWAY_RAY__DASHBOARD and SLIPWAY_RAY__SERVE,"
            " or run `slipway up`.",
        )
    return RayTarget(settings.ray)
