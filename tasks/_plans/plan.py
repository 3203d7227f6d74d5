"""What a release would do, before anything moves: what changes, what it costs, whether it can work at all.

``plan`` only reads: the record, the manifests, the Hub, and what the target says of itself.  What cannot work is
refused here, in seconds, by the rules that would refuse it later; what is only likely to fail is a warning.  A size
that nobody tells is "not known", never a guess.
"""

from dataclasses import dataclass

from tasks._checks.plugins import missing_plugins
from tasks._checks.prompts import Prompts
from tasks._plans.capacity import Capacity, read_capacity, room_of
from tasks._plans.cluster_capacity import read_cluster_capacity, shortage
from tasks._plans.memory_fit import MemoryFit, Model, Room, memory_fit
from tasks._plans.plan_diff import Difference, tree_differences
from tasks._plans.plan_reading import Contents, changed_bytes, changes, proposed_contents, stored_contents
from tasks._plans.plan_rules import (
    check_lines,
    policy_line,
    read_prompts,
    shift_warning,
    signature_fault,
    traffic_line,
)
from tasks._plans.plan_time import expected
from tasks._plans.planned import Bytes, Meets, Plan
from tasks._release.journal import Journal
from tasks._release.machine import Health, fulfils, gives_way
from tasks._release.step_result import spec_of
from tasks._release.wishes import wanted
from tasks._release.workloads import workload_of
from tasks._release.world import World
from tasks._spec_file import load_spec, with_source
from tasks._weights.hub import Hub
from tasks._weights.layout import weights_url
from tasks._weights.planning import Plan as Moves
from tasks.errors import BadInput, IntegrityError, Refused, SlipwayError
from tasks.records import Release, Request, ServiceRecord
from tasks.settings import Settings
from tasks.spec import ServiceSpec, TargetKind


@dataclass(frozen=True)
class Seen:
    """All that a plan is made of.  ``faults`` forbid it; ``healthy`` says whether the target shows what is live."""

    record: ServiceRecord
    request: Request
    spec: ServiceSpec
    moves: Moves | None
    contents: Contents | None
    live: Contents | None
    prompts: Prompts | None
    capacity: Capacity
    room: Room
    shares: bool
    healthy: bool | None
    faults: tuple[str, ...]


def plan(
    world: World,
    settings: Settings,
    service: str,
    model: str | None = None,
    ref: str | None = None,
    hub: str | None = None,
) -> Plan:
    """Return what releasing ``ref`` of ``model`` (None: what the spec of ``service`` follows) would do.

    Raises ``BadInput`` or ``NotFound`` for a spec, model or ref that is wrong, and ``Unreachable`` or
    ``AccessDenied`` where the Hub or the store cannot be read; what a rule forbids is in ``refusals`` instead.
    """
    spec = with_source(load_spec(settings.services, service), model, ref)
    return planned(_see(world, settings, spec, hub or settings.hub.endpoint))


def planned(seen: Seen) -> Plan:
    """Return the plan that follows from what was seen."""
    spec, contents, live = seen.spec, seen.contents, seen.record.live
    meets, other = met(seen.record, seen.request, healthy=seen.healthy is not False)
    seconds = _mirror_seconds(seen.moves)
    memory = None
    if contents is not None:
        memory = memory_fit(Model(contents.config, contents.weights, contents.dtypes), spec, seen.room)
    too_little, aloud = shortage(spec, seen.capacity, live)
    warnings = (aloud, shift_warning(spec, shares=seen.shares), *_warnings(seen, memory))
    refusals = (*seen.faults, _too_large(memory), too_little)
    return Plan(
        release=seen.request.release,
        ref=spec.ref,
        live=live,
        meets=meets,
        other=other,
        moves=_bytes(seen.moves, seen.live, contents, seconds) if seen.moves and contents else None,
        changes=changes(seen.live, contents) if seen.live and contents else (),
        spec_changes=_spec_changes(live, spec) if live else (),
        memory=memory,
        capacity=seen.capacity,
        traffic=traffic_line(spec, shares=seen.shares, live=live is not None),
        checks=check_lines(spec, seen.prompts, compared=live is not None),
        policy=policy_line(spec),
        receipt=spec.probe.enabled,
        expected=expected(seen.record.past, spec, seconds),
        warnings=tuple(one for one in warnings if one),
        refusals=tuple(one for one in refusals if one),
    )


def met(record: ServiceRecord, request: Request, *, healthy: bool) -> tuple[Meets, str]:
    """Return what ``request`` meets, as the engine would treat it, and the name of what it meets.

    ``healthy`` says whether the target shows the live release so: one that is not is brought back.
    """
    current, waiting, live = record.current, record.waiting, record.live
    if current is not None and fulfils(current, request):
        return Meets.ON_ITS_WAY, current.release.name
    if waiting is not None and waiting.same(request):
        return Meets.ASKED, waiting.id
    if current is not None:
        return Meets.REPLACES if gives_way(current, request) else Meets.WAITS, current.release.name
    is_live = live is not None and request.same(request.model_copy(update={"release": live}))
    if waiting is None and live is not None and is_live and healthy:
        return Meets.LIVE, live.name
    return Meets.NOTHING, ""


def _see(world: World, settings: Settings, spec: ServiceSpec, endpoint: str) -> Seen:
    record = Journal(world.store, spec.service).record
    with world.hub(endpoint) as source:
        commit = source.resolve(spec.model, spec.ref).commit
        release = wanted(spec, commit, endpoint, number=record.next_number)
        moves, contents, refused = _look(source, world, release, spec)
    prompts, no_prompts = read_prompts(world.services, spec)
    unsigned = signature_fault(world.store, world.services, release, spec, signs=world.sign is not None)
    capacity, homeless = _capacity(world, settings, release, record.live)
    return Seen(
        record=record,
        request=Request(id="", release=release, at=world.clock.now()),
        spec=spec,
        moves=moves,
        contents=contents,
        live=stored_contents(world.store, record.live.model, record.live.commit) if record.live else None,
        prompts=prompts,
        capacity=capacity,
        room=room_of(settings.ray, capacity),
        shares=world.target.shares(release),
        healthy=_is_healthy(world, record.live) if record.live else None,
        faults=(refused, no_prompts, *missing_plugins(spec), unsigned, homeless),
    )


def _look(hub: Hub, world: World, release: Release, spec: ServiceSpec) -> tuple[Moves | None, Contents | None, str]:
    """Return what would move and what the commit holds, or why a rule refuses it."""
    try:
        return (*proposed_contents(hub, world.store, release.model, release.commit, spec.limits), "")
    except (Refused, IntegrityError) as error:
        return None, None, str(error)


def _capacity(world: World, settings: Settings, release: Release, live: Release | None) -> tuple[Capacity, str]:
    """Return what the target has for the release, or why it cannot run there at all."""
    spec = spec_of(release)
    if spec.target is not TargetKind.KUBERAY:
        return read_capacity(settings.ray, spec.resources), ""
    weights = weights_url(world.store.url, release.model, release.commit)
    try:
        workload = workload_of(release, weights, settings.kubernetes.namespace)
    except BadInput as error:
        return Capacity(), str(error)
    return read_cluster_capacity(settings.kubernetes, workload, live.name if live else None), ""


def _is_healthy(world: World, live: Release) -> bool | None:
    """Return whether the target shows the live release so; None when it does not answer."""
    try:
        placement = world.target.observe(live.service).placements.get(live.name)
    except SlipwayError:
        return None
    return placement is not None and placement.live and placement.health is Health.HEALTHY


def _bytes(moves: Moves, before: Contents | None, after: Contents, seconds: float | None) -> Bytes:
    return Bytes(
        total=after.total,
        changed=changed_bytes(before, after),
        to_fetch=moves.to_fetch,
        to_copy=moves.to_copy,
        there=moves.there,
        seconds=seconds,
    )


def _mirror_seconds(moves: Moves | None) -> float | None:
    if moves is None:
        return None
    return moves.seconds if moves.to_fetch else 0.0


def _spec_changes(live: Release, spec: ServiceSpec) -> tuple[Difference, ...]:
    before, after = spec_of(live).model_dump(mode="json"), spec.model_dump(mode="json")
    return tree_differences("spec", before, after)


def _too_large(memory: MemoryFit | None) -> str:
    return f"The model does not fit: {memory.sentence}." if memory is not None and memory.fits is False else ""


def _warnings(seen: Seen, memory: MemoryFit | None) -> tuple[str, ...]:
    """Return what is only likely to go wrong."""
    short = memory is not None and memory.needed and memory.free is not None and memory.needed > memory.free
    live = seen.record.live
    cases = (
        (not seen.spec.probe.enabled, "The probe is turned off, so nothing will prove what clients saw."),
        (short, "Memory is short beside what runs now."),
        (
            seen.capacity.enough is False and seen.capacity.cluster is None,
            "There is no room for the candidate now; without more it ends at `deadlines.ready`.",
        ),
        (seen.healthy is None and live, "The target does not answer."),
        (
            seen.healthy is False,
            f"{live.name if live else ''} is live by the record, and the target does not show it.",
        ),
    )
    return tuple(text for holds, text in cases if holds)
