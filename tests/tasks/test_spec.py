"""The service spec: what fits is read, what does not is told with its line."""

from pathlib import Path

import pytest

from tasks._spec_file import load_spec, parse_spec, service_names
from tasks.errors import BadInput, NotFound
from tasks.spec import ServiceSpec

SMALLEST = "service: chat\nmodel: org/name\n"


def test_two_lines_are_a_spec() -> None:
    """Everything but the name and the model has a default that works."""
    spec = parse_spec(SMALLEST, "chat.yaml")

    assert ("main", 1, 900) == (spec.ref, spec.resources.replicas, spec.deadlines.ready)


def test_a_spec_is_equal_after_a_round_trip() -> None:
    """What a release keeps of its spec can be read back."""
    spec = parse_spec(SMALLEST + "bake: {seconds: 5}\n", "chat.yaml")

    assert spec == ServiceSpec.model_validate(spec.model_dump(mode="json", exclude_defaults=True))


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        pytest.param(
            SMALLEST + "checks:\n  min_fact: 0.3\n",
            r"line 4: unknown key 'checks.min_fact', did you mean 'min_facts'\?",
            id="misspelt",
        ),
        pytest.param(
            SMALLEST + "resources:\n  autoscaling: {max_replica: 2}\n",
            r"line 4: unknown key 'resources.autoscaling.max_replica', did you mean 'max_replicas'\?",
            id="misspelt in a section that may be absent",
        ),
        pytest.param("service: chat\n", "'model' is missing", id="missing"),
        pytest.param(SMALLEST + "bake:\n  seconds: -1\n", "line 4: bake.seconds: .* not -1", id="range"),
        pytest.param("service: Chat!\nmodel: org/name\n", "line 1: service", id="name"),
        pytest.param("service: chat\nmodel: ../etc\n", "line 2: model", id="traversal"),
        pytest.param("service: [\n", "is not YAML", id="syntax"),
        pytest.param("- chat\n", "holds no mapping", id="list"),
        pytest.param("", "holds no mapping", id="empty"),
        pytest.param(SMALLEST + "target: mars\n", "line 3: target", id="target"),
        pytest.param(
            SMALLEST + "resources:\n  autoscaling: {min_replicas: 3, max_replicas: 2}\n",
            "line 4: resources.autoscaling: .*max_replicas 2 is below min_replicas 3",
            id="upside down",
        ),
        pytest.param(
            SMALLEST + "resources: {replicas: 2, autoscaling: {max_replicas: 2}}\n",
            "line 3: resources: .*`replicas` and `autoscaling` exclude each other",
            id="two numbers",
        ),
        pytest.param(
            SMALLEST + "resources: {gpus: 2}\nengine: {tensor_parallel_size: 4}\n",
            "resources.gpus 2 does not fit tensor_parallel_size 4 times pipeline_parallel_size 1: set it to 4",
            id="shards",
        ),
        pytest.param(SMALLEST + "limits:\n  licences: [MIT]\n", "line 4: limits.licences.0: .* not 'MIT'", id="case"),
    ],
)
def test_a_spec_that_does_not_fit_is_told_with_its_line(text: str, fault: str) -> None:
    """One sentence names the file, the line, and the nearest known key."""
    with pytest.raises(BadInput, match=fault):
        parse_spec(text, "chat.yaml")


def test_licences_are_those_of_the_hub() -> None:
    """A list of licences is kept as the Hub writes them; without one, any will do."""
    spec = parse_spec(SMALLEST + "limits: {licences: [apache-2.0, openrail++, llama3.1]}\n", "chat.yaml")

    assert ("apache-2.0", "openrail++", "llama3.1") == spec.limits.licences
    assert () == parse_spec(SMALLEST, "chat.yaml").limits.licences


def test_a_release_starts_with_the_least_replicas() -> None:
    """With autoscaling those are its own; without, all there will be."""
    scaled = parse_spec(SMALLEST + "resources: {autoscaling: {min_replicas: 2, max_replicas: 8}}\n", "chat.yaml")
    fixed = parse_spec(SMALLEST + "resources: {replicas: 3}\n", "chat.yaml")

    assert (2, 3) == (scaled.resources.at_first, fixed.resources.at_first)


def test_an_unknown_service_is_told_with_its_neighbour(tmp_path: Path) -> None:
    """A misspelt service finds the one that was meant."""
    (tmp_path / "chat.yaml").write_text(SMALLEST)

    with pytest.raises(NotFound, match=r"no service 'chta'.*Did you mean 'chat'"):
        load_spec(tmp_path, "chta")


def test_a_file_must_be_named_after_its_service(tmp_path: Path) -> None:
    """Two names for one service would be two records."""
    (tmp_path / "talk.yaml").write_text(SMALLEST)

    with pytest.raises(BadInput, match="describes the service 'chat'"):
        load_spec(tmp_path, "talk")


def test_prompt_files_are_no_services(tmp_path: Path) -> None:
    """The folder holds specs and their prompts side by side."""
    for name in ("chat.yaml", "chat.prompts.yaml", "b.yaml"):
        (tmp_path / name).write_text(SMALLEST)

    assert ("b", "chat") == service_names(tmp_path)
