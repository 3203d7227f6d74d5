"""What a release may ask of the payload, and how it is told what is wrong."""

from pathlib import Path
from typing import Any

import pytest

from serve.arguments import RESERVED, check_engine, known_arguments, read_arguments

COMMIT = "0123456789abcdef0123456789abcdef01234567"
KNOWN = frozenset({"max_num_seqs", "max_model_len", "load_format", "trust_remote_code", "dtype", *RESERVED})


@pytest.fixture
def vllm(tmp_path: Path) -> Path:
    """Return the folder of a vLLM package that declares a few arguments."""
    engine, frontend = tmp_path / "engine" / "arg_utils.py", tmp_path / "entrypoints" / "launchers" / "cli_args.py"
    for file in (engine, frontend):
        file.parent.mkdir(parents=True)
    engine.write_text(
        "import torch\nclass EngineArgs:\n    dtype: str = 'auto'\n    max_num_seqs: int | None = None\n"
        "    load_format: str = 'auto'\n"
        "    def f(self): ...\nclass AsyncEngineArgs(EngineArgs):\n    enable_log_requests: bool = False\n"
    )
    frontend.write_text(
        "class BaseFrontendArgs:\n    chat_template: str\nclass FrontendArgs(BaseFrontendArgs):\n    pass\n"
    )
    return tmp_path


def release(**changes: Any) -> dict[str, Any]:
    """Return arguments that fit, with changes."""
    return {
        "service": "chat",
        "release": "chat-r1",
        "commit": COMMIT,
        "model": "org/name",
        "served_model_name": "chat",
        "weights": f"s3://bucket/prefix/models/org/name/{COMMIT}",
        "engine": {"dtype": "float32"},
        "resources": {"replicas": 2, "cpus": 4, "gpus": 0},
        "longest_request_s": 60,
        **changes,
    }


def test_arguments_that_fit_are_read(vllm: Path) -> None:
    """Numbers may come as JSON writes them, whole or not."""
    arguments = read_arguments(release(), vllm)

    assert arguments.resources.cpus == 4.0
    assert arguments.resources.replicas == 2
    assert arguments.longest_request_s == 60.0


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"commit": "main"}, "commit: "),
        ({"weights": f"https://host/{COMMIT}"}, "weights: "),
        ({"weights": f"s3://bucket/models/{'f' * 40}"}, "are not those of commit"),
        ({"longest_request_s": 0}, "longest_request_s: "),
        ({"resources": {"replicas": 0}}, "resources.replicas: "),
        ({"resources": {"gpu": 1}}, "resources.gpu: "),
        ({"replicas": 1}, "replicas: "),
        (
            {"engine": {"load_format": "runai_streamer"}, "weights": f"file:///models/{COMMIT}"},
            "load_format 'runai_streamer' reads from s3://, not from file:///models/",
        ),
        ({"resources": {"autoscaling": {"max_replicas": 0}}}, "resources.autoscaling.max_replicas: "),
        (
            {"resources": {"autoscaling": {"min_replicas": 3, "max_replicas": 2}}},
            "resources.autoscaling: Value error, max_replicas 2 is below min_replicas 3",
        ),
        (
            {"resources": {"replicas": 2, "autoscaling": {"max_replicas": 2}}},
            "replicas and autoscaling exclude each other",
        ),
        (
            {"resources": {"gpus": 2}, "engine": {"tensor_parallel_size": 4}},
            "resources.gpus 2 does not fit tensor_parallel_size 4 times pipeline_parallel_size 1: set it to 4",
        ),
        (
            {"resources": {"gpus": 8}, "engine": {"tensor_parallel_size": 2, "pipeline_parallel_size": 2}},
            "set it to 4",
        ),
        ({"engine": {"max_num_seqs": "48"}}, "engine.max_num_seqs is a whole number from 1, not '48'"),
        ({"engine": {"dtyp": "float32"}}, "vLLM has no engine argument 'dtyp'. Did you mean 'dtype'?"),
    ],
)
def test_what_does_not_fit_is_named(vllm: Path, changes: dict[str, Any], said: str) -> None:
    """A refusal names the field, so that nobody searches a traceback for it."""
    with pytest.raises(ValueError, match=r"^[A-Z].*\.|\?$") as caught:
        read_arguments(release(**changes), vllm)

    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("engine", "said"),
    [
        ({"trust_remote_code": True}, "would run code"),
        ({"load_format": "pt"}, "safetensors files only"),
        ({"load_format": "dummy"}, "safetensors files only"),
        ({"tokenizer": "other/model"}, "set by Slipway"),
        ({"hf_token": "x"}, "set by Slipway"),
        ({"model_weights": "s3://elsewhere"}, "set by Slipway"),
        ({"quux": 1}, "no engine argument 'quux'."),
    ],
)
def test_engine_arguments_that_undo_the_promises_are_refused(engine: dict[str, Any], said: str) -> None:
    """Nothing but the verified safetensors of one commit is ever loaded."""
    with pytest.raises(ValueError, match=said):
        check_engine(engine, KNOWN)


def test_harmless_engine_arguments_pass() -> None:
    """Saying what is so anyway is no error."""
    check_engine({"trust_remote_code": False, "load_format": "safetensors", "max_num_seqs": 4}, KNOWN)


def test_streaming_needs_a_package_that_an_image_may_lack(vllm: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Said in the build step: vLLM itself asks for it after everything else was loaded."""
    streamed = release(engine={"load_format": "runai_streamer"})

    with pytest.raises(ValueError, match=r"needs runai_model_streamer and runai_model_streamer_s3, which this image"):
        read_arguments(streamed, vllm)
    monkeypatch.setattr("serve.arguments.STREAMERS", ("json",))
    assert read_arguments(streamed, vllm).streamed
    assert not read_arguments(release(), vllm).streamed


def test_names_are_read_without_importing(vllm: Path) -> None:
    """Fields of every declaring class count, methods do not, and nothing is executed."""
    assert known_arguments(vllm) == {"dtype", "max_num_seqs", "load_format", "enable_log_requests", "chat_template"}


def test_another_layout_of_vllm_is_an_error(vllm: Path) -> None:
    """A vLLM that declares its arguments elsewhere is not checked against an empty list."""
    (vllm / "engine" / "arg_utils.py").write_text("class Other: ...\n")

    with pytest.raises(RuntimeError, match="does not declare EngineArgs, AsyncEngineArgs"):
        known_arguments(vllm)


@pytest.mark.slow
def test_the_installed_vllm_is_understood() -> None:
    """The payload's own vLLM declares what services use, and what Slipway reserves is spelt as vLLM spells it."""
    root = Path(__file__).parents[2] / "serve" / ".venv" / "lib"
    known = known_arguments(next(root.glob("python3*/site-packages/vllm")))

    assert {"dtype", "max_num_seqs", "kv_cache_memory_bytes", "enforce_eager", "chat_template"} <= known
    assert RESERVED - known == {"model_tag"}
