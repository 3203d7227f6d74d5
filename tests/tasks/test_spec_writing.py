"""The first spec of a service: read back by the rules for any spec, and never over a person's work."""

from pathlib import Path

import pytest

from tasks._checks.prompts import load_prompts
from tasks._spec_file import load_spec
from tasks._spec_writing import Wish, write
from tasks.errors import BadInput, Conflict
from tasks.spec import Policy, TargetKind

IMAGE = "registry.example.com/payload@sha256:" + "0" * 64


def test_what_is_written_is_what_was_wished(tmp_path: Path) -> None:
    """Its prompts judge something, and lie beside it under the name that it gives."""
    wish = Wish(
        service="bot", model="acme/tiny", policy=Policy.AUTO, gpus=2, engine={"tensor_parallel_size": 2}, ref="v1"
    )

    write(tmp_path / "services", wish, force=False)

    spec = load_spec(tmp_path / "services", "bot")
    assert ("acme/tiny", "v1", Policy.AUTO, 2) == (spec.model, spec.ref, spec.policy, spec.resources.gpus)
    assert {"tensor_parallel_size": 2} == spec.engine
    assert load_prompts(tmp_path / "services" / spec.checks.prompts).golden
    assert ["bot.prompts.yaml", "bot.yaml"] == sorted(path.name for path in (tmp_path / "services").iterdir())


def test_a_service_on_kubernetes_has_an_image(tmp_path: Path) -> None:
    """And room for the engine beside the GPU."""
    wish = Wish(service="bot", model="acme/tiny", target=TargetKind.KUBERAY, gpus=1, image=IMAGE, memory=40)

    write(tmp_path, wish, force=False)

    kubernetes = load_spec(tmp_path, "bot").kubernetes
    assert kubernetes is not None
    assert (IMAGE, "40Gi") == (kubernetes.image, kubernetes.worker.memory)


def test_a_service_that_is_described_is_left_alone(tmp_path: Path) -> None:
    """Unless it is forced; prompts stay in any case, for they are the person's judgement."""
    wish = Wish(service="bot", model="acme/tiny")
    write(tmp_path, wish, force=False)
    (tmp_path / "bot.prompts.yaml").write_text("mine")

    with pytest.raises(Conflict, match="is there already"):
        write(tmp_path, wish, force=False)
    write(tmp_path, wish.model_copy(update={"model": "acme/other"}), force=True)

    assert "acme/other" == load_spec(tmp_path, "bot").model
    assert "mine" == (tmp_path / "bot.prompts.yaml").read_text()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [({"service": "Bot"}, "service"), ({"model": "tiny"}, "model"), ({"target": TargetKind.KUBERAY}, "image")],
)
def test_a_wish_that_is_no_spec_leaves_nothing(tmp_path: Path, wrong: dict[str, str], said: str) -> None:
    """What is wrong is named, and no file lies there."""
    wish = Wish.model_validate({"service": "bot", "model": "acme/tiny", **wrong})

    with pytest.raises(BadInput, match=said):
        write(tmp_path, wish, force=False)

    assert [] == list(tmp_path.iterdir())
