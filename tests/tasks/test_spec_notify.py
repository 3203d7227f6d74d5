"""Receivers in a spec: a slug, or a block with what it is told of; and that they are no part of a release."""

import pytest

from tasks._release.wishes import wanted
from tasks._spec_file import parse_spec
from tasks._spec_notify import Event, Receiver
from tasks.errors import BadInput
from tasks.spec import ServiceSpec

SMALLEST = "service: chat\nmodel: org/name\n"
NOTIFY = "notify: [slack-webhook/ops, {block: custom-webhook/night, events: [failed, rolled_back]}]\n"


def test_a_bare_slug_is_told_of_everything() -> None:
    """Whoever writes one line hears of every end and every question."""
    spec = parse_spec(SMALLEST + NOTIFY, "chat.yaml")

    assert (
        Receiver(block="slack-webhook/ops", events=tuple(Event)),
        Receiver(block="custom-webhook/night", events=(Event.FAILED, Event.ROLLED_BACK)),
    ) == spec.notify
    assert spec == ServiceSpec.model_validate(spec.model_dump(mode="json", exclude_defaults=True))


@pytest.mark.parametrize(
    ("notify", "fault"),
    [
        pytest.param("[https://hooks.slack.com/services/T0/B0/x]", "line 3: notify.0", id="an address"),
        pytest.param("[ops]", "line 3: notify.0", id="no type"),
        pytest.param("[{block: slack-webhook/ops, events: [died]}]", "line 3: notify.0.events.0", id="no event"),
        pytest.param("[{block: slack-webhook/ops, events: []}]", "line 3: notify.0.events", id="never"),
    ],
)
def test_what_is_no_receiver_is_told_with_its_line(notify: str, fault: str) -> None:
    """An address, which may open a channel to whoever has it, is refused in a file that is kept in the open."""
    with pytest.raises(BadInput, match=fault):
        parse_spec(f"{SMALLEST}notify: {notify}\n", "chat.yaml")


def test_who_is_told_is_no_part_of_a_release() -> None:
    """Another receiver makes no other release, so that nothing is released anew for it."""
    plain, told = (parse_spec(text, "chat.yaml") for text in (SMALLEST, SMALLEST + NOTIFY))

    assert wanted(plain, "1" * 40, "https://hub.example") == wanted(told, "1" * 40, "https://hub.example")


def test_the_schema_knows_both_ways_to_name_a_receiver() -> None:
    """An editor that is given `slipway schema` accepts a slug."""
    schema = ServiceSpec.model_json_schema()

    kinds = schema["properties"]["notify"]["items"]["anyOf"]
    assert {"string"} == {kind["type"] for kind in kinds if "type" in kind}
    assert ["#/$defs/Receiver"] == [kind["$ref"] for kind in kinds if "$ref" in kind]
