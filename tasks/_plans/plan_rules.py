"""What can be known to fail before anything moves, and which checks a candidate will meet.

Only what the spec and its files say; what the commit itself says is judged where it is read.
"""

from pathlib import Path

from tasks._checks.paired import planned_sensitivity
from tasks._checks.prompts import Prompts, load_prompts
from tasks._stores.store import Store
from tasks._weights.layout import SIGNATURE, weights_key
from tasks.errors import BadInput, NotFound
from tasks.records import Release
from tasks.spec import Policy, ServiceSpec

DAY_S = 86_400
HOUR_S = 3_600


def read_prompts(services: Path, spec: ServiceSpec) -> tuple[Prompts | None, str]:
    """Return the prompts of the spec, or None and why they cannot be used."""
    try:
        return load_prompts(services / spec.checks.prompts), ""
    except (NotFound, BadInput) as error:
        return None, str(error)


def signature_fault(store: Store, services: Path, release: Release, spec: ServiceSpec, *, signs: bool) -> str:
    """Return why the signature that the spec demands would be missing; ``signs`` when a mirror here makes one."""
    if spec.signature is None:
        return ""
    key = services / spec.signature.public_key
    try:
        pem = key.read_bytes()
    except OSError as error:
        return f"{key}, whose signature the weights must bear, cannot be read: {error.strerror}."
    if b"-----BEGIN PUBLIC KEY-----" not in pem:
        return f"{key} is no PEM file with a public key, and the weights must bear its signature."
    folder = weights_key(release.model, release.commit)
    if store.head(f"{folder}/{SIGNATURE}") is None and not signs:
        return (
            f"{release.model}@{release.commit[:12]} would be stored without the signature that the spec demands. "
            "Set SLIPWAY_SIGNING__KEY."
        )
    return ""


def check_lines(spec: ServiceSpec, prompts: Prompts | None, *, compared: bool) -> tuple[str, ...]:
    """Return the checks in their order; ``compared`` when there is a live release to compare with."""
    return (
        _smoke(spec),
        _quality(spec, prompts),
        _paired(spec, prompts, compared=compared),
        _performance(spec, compared=compared),
        *(f"own: {plugin.name} ({plugin.use}), at most {plugin.timeout:g} s" for plugin in spec.checks.plugins),
        f"bake: {spec.bake.seconds:g} s, looked at every {spec.bake.interval:g} s"
        + (f", and {spec.bake.prometheus} is asked" if spec.bake.prometheus else ""),
    )


def policy_line(spec: ServiceSpec) -> str:
    """Return who will be asked."""
    until = _span(spec.approval.timeout)
    doubt = f"a person decides about what could not be measured, within {until}"
    match spec.policy:
        case Policy.APPROVE:
            return f"approve: a person is asked before live traffic moves, and no answer within {until} is a refusal"
        case Policy.MANUAL:
            return f"manual: a new commit of {spec.ref} is only reported; {doubt}"
    return f"auto: a new commit of {spec.ref} is released by itself; {doubt}"


def traffic_line(spec: ServiceSpec, *, shares: bool, live: bool) -> str:
    """Return how live traffic will move."""
    if not live:
        return "takes the live address, which no release has now"
    if not shares:
        return "moves all traffic at once, 0 -> 100"
    return f"moves {' -> '.join(map(str, (0, *spec.shift.steps)))} %, {spec.shift.pause:g} s between two steps"


def shift_warning(spec: ServiceSpec, *, shares: bool) -> str:
    """Return that the steps of the spec mean nothing where traffic moves at once."""
    if shares or spec.shift.steps == (100,):
        return ""
    return f"`shift.steps` {list(spec.shift.steps)} is ignored: this target knows no shares."


def _smoke(spec: ServiceSpec) -> str:
    smoke = spec.checks.smoke
    asked = (
        (True, "plain and streaming answers"),
        (smoke.tools, "a tool call"),
        (smoke.json_output, "JSON output"),
        (smoke.long_prompt, f"a prompt of {smoke.long_prompt:.0%} of the context"),
        (smoke.concurrent, f"{smoke.concurrent} prompts at once"),
        (smoke.overflow, "a clean 400 beyond the context"),
    )
    return f"smoke: {', '.join(what for wanted, what in asked if wanted)}"


def _quality(spec: ServiceSpec, prompts: Prompts | None) -> str:
    if prompts is None:
        return f"quality: cannot run without {spec.checks.prompts}"
    asked, facts, golden = len(prompts.all), len(prompts.with_facts), len(prompts.golden)
    return (
        f"quality: {asked} prompts, {facts} with a fact, {spec.checks.min_facts:.0%} must be right; {golden} golden"
    )


def _paired(spec: ServiceSpec, prompts: Prompts | None, *, compared: bool) -> str:
    if not compared or not spec.checks.paired.enabled or prompts is None:
        return f"paired: not run, {_why_not(compared=compared, enabled=spec.checks.paired.enabled)}"
    return f"paired: {planned_sensitivity(prompts, spec)}"


def _performance(spec: ServiceSpec, *, compared: bool) -> str:
    speed = spec.checks.performance
    if not compared or not speed.enabled:
        return f"performance: not run, {_why_not(compared=compared, enabled=speed.enabled)}"
    return (
        f"performance: {speed.requests} streams at each, {speed.concurrency} at once; first token at most "
        f"{speed.max_first_token_ratio:g} times, each token {speed.max_token_time_ratio:g} times the live one"
    )


def _why_not(*, compared: bool, enabled: bool) -> str:
    if not compared:
        return "no release is live to compare with"
    return "there are no prompts" if enabled else "the spec asks for none"


def _span(seconds: float) -> str:
    if seconds >= DAY_S:
        return f"{seconds / DAY_S:g} d"
    return f"{seconds / HOUR_S:g} h" if seconds >= HOUR_S else f"{seconds:g} s"
