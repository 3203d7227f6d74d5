"""``slipway render``: the objects of a release, without a cluster."""

import json

import pytest
import yaml

from tasks.records import Release, ServiceRecord
from tests.fakes.hubs import MODEL, running_hub, write_model
from tests.flows.command_line import Line, line

__all__ = ["line"]

COMMIT = "0123456789abcdef0123456789abcdef01234567"
SPEC = f"""
service: chat
model: acme/tiny
target: kuberay
kubernetes:
  image: registry.example.com/payload@sha256:{"5" * 64}
"""


@pytest.fixture
def place(line: Line) -> Line:
    """Return a terminal where ``chat`` runs on Kubernetes."""
    where = f"  weights: {{claim: models, path: {line.folder / 'store'}}}\n"
    (line.folder / "services" / "chat.yaml").write_text(SPEC + where)
    return line


def test_a_commit_and_a_number_are_all_that_rendering_needs(place: Line) -> None:
    """A pipeline without a cluster, a Hub or a record gets the objects, and the live address stays where it is."""
    assert 0 == place.slipway("render", "chat", "--ref", COMMIT, "--number", "4", "--namespace", "llm"), place.err

    objects = list(yaml.safe_load_all(place.out))
    assert [
        *[("ServiceAccount", "chat"), ("NetworkPolicy", "chat-serve"), ("NetworkPolicy", "chat-ray")],
        *[("Service", "chat"), ("RayService", "chat-r4"), ("Service", "chat-r4"), ("PodDisruptionBudget", "chat-r4")],
    ] == [(one["kind"], one["metadata"]["name"]) for one in objects]
    assert {"llm"} == {one["metadata"]["namespace"] for one in objects}
    assert "selector" not in objects[3]["spec"]


def test_a_live_release_is_one_list_for_programs(place: Line) -> None:
    """``--json`` prints what kubectl takes as well, and ``--live`` moves the address."""
    assert 0 == place.slipway("render", "chat", "--ref", COMMIT, "--live", "--json"), place.err

    listed = json.loads(place.out)
    stable = next(one for one in listed["items"] if (one["kind"], one["metadata"]["name"]) == ("Service", "chat"))
    assert ("v1", "List", "default") == (listed["apiVersion"], listed["kind"], stable["metadata"]["namespace"])
    assert "chat-r1" == stable["spec"]["selector"]["slipway.dev/release"]


@pytest.mark.slow
def test_a_branch_is_what_the_hub_says_it_is(place: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a commit the Hub is asked, as a release would."""
    with running_hub(place.folder / "hub") as hub:
        commit = hub.publish(write_model(place.folder / "model"))
        monkeypatch.setenv("SLIPWAY_HUB__ENDPOINT", hub.endpoint)
        spec = (place.folder / "services" / "chat.yaml").read_text().replace("acme/tiny", MODEL)
        (place.folder / "services" / "chat.yaml").write_text(spec)

        assert 0 == place.slipway("render", "chat", "--ref", "main"), place.err

    assert {commit} == {
        one["metadata"]["labels"].get("slipway.dev/commit", commit) for one in yaml.safe_load_all(place.out)
    }


def test_a_recorded_release_is_rendered_as_it_was(place: Line) -> None:
    """The spec of today has no say in what an earlier release is."""
    spec = yaml.safe_load((place.folder / "services" / "chat.yaml").read_text())
    earlier = Release(service="chat", number=3, model="acme/tiny", commit=COMMIT, hub="https://hub", spec=spec)
    place.write(ServiceRecord(service="chat", live=earlier))
    (place.folder / "services" / "chat.yaml").unlink()

    assert 0 == place.slipway("render", "chat", "chat-r3"), place.err
    assert "chat-r3" in {one["metadata"]["name"] for one in yaml.safe_load_all(place.out)}


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["chat", "chat-r3"], 3, "no release 'chat-r3' on record"),
        (["chat", "chat-r3", "--number", "2"], 2, "Leave out --ref, --hub and --number."),
        (["other", "--ref", COMMIT], 2, "Set `target: kuberay`"),
    ],
)
def test_what_cannot_be_rendered_is_told(place: Line, arguments: list[str], code: int, said: str) -> None:
    """One sentence says what to do."""
    (place.folder / "services" / "other.yaml").write_text("service: other\nmodel: acme/tiny\n")

    assert code == place.slipway("render", *arguments)
    assert said in place.err
