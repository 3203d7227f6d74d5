"""Settings that contradict each other, secrets that cannot be read, and specs that cannot be used."""

from collections.abc import Callable, Iterator

from tasks._checks.prompts import load_prompts
from tasks._doctor.finding import Finding, told
from tasks._spec_file import load_spec, service_names
from tasks.errors import SlipwayError
from tasks.settings import Settings, hub_token, receiver_secrets, signing_password
from tasks.spec import ServiceSpec, TargetKind

SETTINGS, SPECS = "settings", "specs"


def settings_findings(settings: Settings) -> Iterator[Finding]:
    """Yield what is wrong with the settings themselves, whatever is at the addresses that they name."""
    yield from _unreadable(settings)
    yield from _target(settings)
    store = settings.store
    if (store.access_key is None) != (store.secret_key is None):
        yield Finding(
            about=SETTINGS,
            what="Only one of the store's two keys is set.",
            remedy="Set both SLIPWAY_STORE__ACCESS_KEY and SLIPWAY_STORE__SECRET_KEY, or neither.",
        )
    if settings.signing.key and not settings.signing.key.is_file():
        yield Finding(
            about=SETTINGS,
            what=f"There is no signing key {settings.signing.key}.",
            remedy="Mend or unset SLIPWAY_SIGNING__KEY.",
        )
    if settings.worker.kind == "kubernetes" and not settings.worker.image:
        yield Finding(
            about=SETTINGS,
            what="Flows are to run on Kubernetes, and no image is named.",
            remedy="Set SLIPWAY_WORKER__IMAGE.",
        )


def _unreadable(settings: Settings) -> Iterator[Finding]:
    """Yield each secret that is set and cannot be used; the receiver's is needed by the receiver alone."""
    receiver = settings.receiver
    reads: tuple[Callable[[], object], ...] = (
        lambda: hub_token(settings.hub, settings.hub.endpoint),
        lambda: signing_password(settings.signing),
        lambda: receiver_secrets(receiver) if receiver.secret or receiver.secret_file else None,
    )
    for read in reads:
        try:
            read()
        except SlipwayError as error:
            yield told(SETTINGS, error)


def _target(settings: Settings) -> Iterator[Finding]:
    ray, namespace = settings.ray, settings.kubernetes.namespace
    on_ray = bool(ray.dashboard and ray.serve)
    if namespace and (ray.dashboard or ray.serve):
        yield Finding(
            about=SETTINGS,
            what="Both a Ray cluster and a Kubernetes namespace are configured, and a controller drives one target.",
            remedy="Unset SLIPWAY_RAY__DASHBOARD and SLIPWAY_RAY__SERVE, or SLIPWAY_KUBERNETES__NAMESPACE.",
        )
    elif not namespace and not on_ray:
        yield Finding(
            about=SETTINGS,
            what="No target is configured: neither a Kubernetes namespace, nor both addresses of a Ray cluster.",
            remedy="Set SLIPWAY_KUBERNETES__NAMESPACE, or SLIPWAY_RAY__DASHBOARD and SLIPWAY_RAY__SERVE,"
            " or run `slipway up`.",
        )


def spec_findings(settings: Settings) -> Iterator[Finding]:
    """Yield each spec that cannot be read, and each that is released by itself and never can be."""
    names = service_names(settings.services)
    if not names:
        yield Finding(
            about=SPECS,
            what=f"{settings.services} describes no service.",
            remedy="Write a spec there with `slipway init`, or set SLIPWAY_SERVICES to another folder.",
        )
    for name in names:
        try:
            spec = load_spec(settings.services, name)
            load_prompts(settings.services / spec.checks.prompts)
        except SlipwayError as error:
            yield told(SPECS, error)
            continue
        yield from mismatch(spec, _target_kind(settings))


def mismatch(spec: ServiceSpec, target: TargetKind | None) -> Iterator[Finding]:
    """Yield that a service is refreshed by itself on a target that it is not made for; others may be examples."""
    if spec.schedules.refresh and target is not None and spec.target is not target:
        yield Finding(
            about=SPECS,
            what=f"{spec.service} is refreshed on a schedule for the target {spec.target.value}, and this controller"
            f" drives {target.value}: every release of it is refused.",
            remedy="Set its `target` to the controller's, or take its schedule away.",
        )


def _target_kind(settings: Settings) -> TargetKind | None:
    if settings.kubernetes.namespace:
        return TargetKind.KUBERAY
    return TargetKind.RAY if settings.ray.dashboard else None
