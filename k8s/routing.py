"""Who takes live traffic, and what to change so that somebody else does: decisions, no requests.

A service has one stable Service, whose selector leads to the pods of one release.  With a Gateway an HTTPRoute stands
before it and shares requests between the releases' own Services by weight; both are moved, so that callers in the
cluster and at the Gateway meet the same release in the end.

A release is named in the route only with a weight above 0, and one that has lost all traffic is taken out of it: some
gateways prepare nothing for a weight of 0, and meet the first requests cold.

https://gateway-api.sigs.k8s.io/reference/spec/#httproutespec
"""

from collections.abc import Collection, Mapping
from datetime import datetime

from k8s import names
from k8s.kinds import Object
from k8s.parts import Parts
from k8s.serve_config import SERVE_PORT

ALL = 100
UNLIMITED = {"timeouts": {"request": "0s"}}
"""No end to a generation: a Gateway's own default may be 15 s, and 0 s means none (GEP-1742)."""
CANDIDATE_HEADER = "slipway.dev/candidate-header"
"""Annotation of an HTTPRoute: ``name=value`` of the header that leads to a candidate while traffic is shared."""


def selected(stable: Object | None) -> str | None:
    """Return the release that the stable Service leads to, None for nobody or for a selector that is not ours."""
    if stable is None:
        return None
    selector = stable["spec"].get("selector") or {}
    release = selector.get(names.RELEASE)
    if release == names.NOBODY or selector != names.traffic_selector(stable["metadata"]["name"], release):
        return None
    return str(release)


def weights(route: Object | None) -> dict[str, int]:
    """Return the weight of each release in the route's rule for everybody; one without a weight has 1."""
    for rule in ((route or {}).get("spec") or {}).get("rules") or ():
        if not any(match.get("headers") for match in rule.get("matches") or ()):
            backends = rule.get("backendRefs") or ()
            return {backend["name"]: int(backend.get("weight", 1)) for backend in backends}
    return {}


def percents(stable: Object | None, route: Object | None) -> dict[str, int]:
    """Return the percentage of live traffic of each release that has any."""
    shared = {name: weight for name, weight in weights(route).items() if weight}
    lead = selected(stable)
    service = stable["metadata"]["name"] if stable else None
    if not shared or set(shared) == {service}:
        return {lead: ALL} if lead else {}
    total = sum(shared.values())
    return {name: max(1, round(ALL * weight / total)) for name, weight in shared.items()}


def live_of(stable: Object | None, route: Object | None) -> str | None:
    """Return the release with most of the live traffic; between equals the one that the stable Service leads to.

    Without the stable Service there is no live address, whatever a route says.
    """
    if stable is None:
        return None
    shares = percents(stable, route)
    return max(shares, key=lambda name: (shares[name], name == selected(stable)), default=None)


def is_led_to(release: str, stable: Object | None, route: Object | None) -> bool:
    """Say whether the stable Service or the route leads any request to the release."""
    selector = ((stable or {}).get("spec") or {}).get("selector") or {}
    return selector.get(names.RELEASE) == release or bool(weights(route).get(release))


def select(stable: Object, release: str | None) -> Object | None:
    """Return what to merge into the stable Service so that it leads to ``release``; None when it does already."""
    wanted = names.traffic_selector(stable["metadata"]["name"], release)
    found = (stable.get("spec") or {}).get("selector") or {}
    if found == wanted:
        return None
    return {"spec": {"selector": {**dict.fromkeys(found), **wanted}}}


def share(
    route: Object, stable: Object | None, release: str | None, percent: int, releases: Collection[str]
) -> Object | None:
    """Return what to merge into the route so that ``release`` gets ``percent`` of the requests; None when it does.

    The rest stays with the one that has most of it now.  Each of ``releases`` can be reached by its header.
    """
    service = route["metadata"]["name"]
    others = {name: share for name, share in percents(stable, route).items() if name != release}
    before = max(others, key=lambda name: others[name], default=None)
    if release is None:
        return routed(route, {service: 1}, releases)
    if percent == ALL or before is None:
        return routed(route, {release: ALL}, releases)
    return routed(route, {before: ALL - percent, release: percent}, releases, candidate=release)


def kept(route: Object, stable: Object | None, releases: Collection[str]) -> Object | None:
    """Return what to merge into the route so that each of ``releases`` can be reached and all shares stay."""
    shares = percents(stable, route) or {route["metadata"]["name"]: 1}
    least = min(shares, key=lambda name: shares[name])
    return routed(route, shares, releases, candidate=least if len(shares) > 1 else None)


def routed(
    route: Object, wanted: Mapping[str, int], releases: Collection[str], *, candidate: str | None = None
) -> Object | None:
    """Return what to merge into the route so that it has these weights and knows each of ``releases`` by header."""
    direct = [_by_header(names.RELEASE_HEADER, name, name) for name in sorted(releases)]
    header = (route["metadata"].get("annotations") or {}).get(CANDIDATE_HEADER)
    if candidate and header:
        name, _, value = header.partition("=")
        direct.append(_by_header(name, value, candidate))
    everybody = {"backendRefs": [_backend(name, weight) for name, weight in wanted.items()], **UNLIMITED}
    rules = [*direct, everybody]
    if _essence({"spec": {"rules": rules}}) == _essence(route):
        return None
    return {"spec": {"rules": rules}}


def last_led_to(releases: Mapping[str, Parts]) -> str | None:
    """Return the release that the live address was led to last: what a stable Service that is made again leads to."""
    known: dict[str, tuple[bool, datetime]] = {
        name: (parts.draining_since is None, parts.served_since)
        for name, parts in releases.items()
        if parts.served_since is not None and not parts.deleting
    }
    return max(known, key=lambda name: known[name], default=None)


def _by_header(header: str, value: str, release: str) -> Object:
    return {
        "matches": [{"headers": [{"type": "Exact", "name": header, "value": value}]}],
        "backendRefs": [_backend(release, 1)],
        **UNLIMITED,
    }


def _backend(service: str, weight: int) -> Object:
    return {"kind": "Service", "name": service, "port": SERVE_PORT, "weight": weight}


def _essence(route: Object) -> list[tuple[tuple[tuple[str, str], ...], tuple[tuple[str, int], ...]]]:
    """Return what the rules mean, without the defaults that the API server adds."""
    return [
        (
            tuple(
                (header["name"], header["value"])
                for match in rule.get("matches") or ()
                for header in match.get("headers") or ()
            ),
            tuple((backend["name"], int(backend.get("weight", 1))) for backend in rule.get("backendRefs") or ()),
        )
        for rule in route["spec"].get("rules") or ()
    ]
