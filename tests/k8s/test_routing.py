"""Who takes live traffic, and what changes it."""

from datetime import timedelta

import pytest

from k8s import names, routing
from k8s.kinds import Object
from k8s.parts import SERVED_SINCE, Parts
from k8s.surroundings import http_route
from tests.k8s.matrix import workload
from tests.k8s.shown import NOW, a_stable

R1, R2 = "chat-r1", "chat-r2"


def a_route(*changes: Object | None) -> Object:
    """Return the HTTPRoute of a service with a candidate's header, with changes merged in one by one."""
    route = http_route(workload("gateway"))
    assert route is not None
    for change in changes:
        assert change is not None
        route["spec"] |= change["spec"]
    return route


def headers(route: Object) -> dict[str, str]:
    """Return which release a header's value leads to."""
    return {
        rule["matches"][0]["headers"][0]["value"]: rule["backendRefs"][0]["name"]
        for rule in route["spec"]["rules"]
        if "matches" in rule
    }


def test_the_selector_says_who_is_live() -> None:
    """It is the one place that clients' connections are decided by."""
    assert R1 == routing.live_of(a_stable(R1), None)
    assert {R1: 100} == routing.percents(a_stable(R1), None)


@pytest.mark.parametrize("change", [{"app": "other"}, {names.SERVES: "false"}, {names.SERVICE: "other"}])
def test_a_selector_that_somebody_edited_leads_to_nobody(change: dict[str, str]) -> None:
    """The next shift decides anew; meanwhile the release that it names is not to be removed."""
    stable = a_stable(R1)
    stable["spec"]["selector"] |= change

    assert routing.live_of(stable, None) is None
    assert routing.is_led_to(R1, stable, None)


def test_nobody_is_live_without_a_live_address() -> None:
    """The stable Service may have been deleted, or lead nowhere on purpose."""
    assert routing.live_of(None, a_route(routing.share(a_route(), None, R1, 100, [R1]))) is None
    assert routing.live_of(a_stable(None), None) is None


def test_a_selector_is_replaced_as_a_whole() -> None:
    """A key of a foreign hand that stayed would lead to no pod."""
    stable = a_stable(R1)
    stable["spec"]["selector"] |= {"app": "other"}

    change = routing.select(stable, R2)

    assert change == {"spec": {"selector": {"app": None, **names.traffic_selector("chat", R2)}}}


@pytest.mark.parametrize("release", [R1, None])
def test_nothing_is_written_when_the_selector_leads_there_already(release: str | None) -> None:
    """Repeating a shift costs a look."""
    assert routing.select(a_stable(release), release) is None


def test_a_share_is_taken_from_the_live_release() -> None:
    """The candidate begins with what it is given, never with a weight of 0."""
    route = a_route(routing.share(a_route(), a_stable(R1), R2, 5, [R1, R2]))

    assert {R1: 95, R2: 5} == routing.weights(route)
    assert R1 == routing.live_of(a_stable(R1), route)


def test_all_traffic_leaves_nobody_else_in_the_route() -> None:
    """A backend with a weight of 0 would be prepared for nothing, or met cold."""
    shared = a_route(routing.share(a_route(), a_stable(R1), R2, 25, [R1, R2]))

    route = a_route(routing.share(shared, a_stable(R1), R2, 100, [R1, R2]))

    assert {R2: 100} == routing.weights(route)
    assert R2 == routing.live_of(a_stable(R1), route)


def test_traffic_to_nobody_goes_to_the_stable_service() -> None:
    """It has no endpoints then, which a gateway answers with 503."""
    route = a_route(routing.share(a_route(), a_stable(R1), None, 100, [R1]))

    assert {"chat": 1} == routing.weights(route)
    assert {} == routing.percents(a_stable(None), route)


def test_each_release_is_reached_by_its_header() -> None:
    """A person may look at one; the rule for everybody comes last."""
    route = a_route(routing.share(a_route(), a_stable(R1), R1, 100, [R1, R2]))

    assert {R1: R1, R2: R2} == headers(route)
    assert "matches" not in route["spec"]["rules"][-1]


def test_the_candidates_header_leads_to_it_while_traffic_is_shared() -> None:
    """Before that it is nobody's, and after it there is no candidate."""
    shared = a_route(routing.share(a_route(), a_stable(R1), R2, 5, [R1, R2]))
    done = a_route(routing.share(shared, a_stable(R1), R2, 100, [R1, R2]))

    assert R2 == headers(shared)["yes"]
    assert "yes" not in headers(done)


def test_a_new_release_changes_no_share() -> None:
    """Its header is all that comes, in the middle of a shift as well."""
    shared = a_route(routing.share(a_route(), a_stable(R1), R2, 25, [R1, R2]))

    route = a_route(routing.kept(shared, a_stable(R1), [R1, R2, "chat-r3"]))

    assert routing.weights(shared) == routing.weights(route)
    assert {R1: R1, R2: R2, "chat-r3": "chat-r3", "yes": R2} == headers(route)


def test_a_gateway_that_comes_later_leads_where_the_service_leads() -> None:
    """A route without rules of ours, as the API server fills it in."""
    route = a_route({"spec": {"rules": [{"matches": [{"path": {"type": "PathPrefix", "value": "/"}}]}]}})

    assert {R1: 100} == routing.weights(a_route(routing.kept(route, a_stable(R1), [R1])))


def test_nothing_is_written_when_the_route_leads_there_already() -> None:
    """What the API server adds, groups and paths, is no difference."""
    route = a_route(routing.share(a_route(), a_stable(R1), R2, 5, [R1, R2]))
    for rule in route["spec"]["rules"]:
        rule.setdefault("matches", [{}])[0]["path"] = {"type": "PathPrefix", "value": "/"}
        for backend in rule["backendRefs"]:
            backend["group"] = ""

    assert routing.share(route, a_stable(R1), R2, 5, [R1, R2]) is None


def served(seconds: float, **annotations: str) -> Parts:
    """Return a release that the live address was led to ``seconds`` ago."""
    marks = {SERVED_SINCE: (NOW - timedelta(seconds=seconds)).isoformat(), **annotations}
    return Parts("", {"metadata": {"annotations": marks}})


def test_a_live_address_that_is_made_again_leads_where_it_led_last() -> None:
    """Never to a candidate, which nobody was led to."""
    candidate = Parts("", {"metadata": {}})

    assert R2 == routing.last_led_to({R1: served(90), R2: served(10), "chat-r3": candidate})
    assert R1 == routing.last_led_to({R1: served(90), R2: served(10, **{names.DRAINING_SINCE: NOW.isoformat()})})
    assert routing.last_led_to({"chat-r3": candidate}) is None
