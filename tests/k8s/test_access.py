"""Kubeconfigs that lead nowhere: one clear sentence, and nothing of what they hold."""

import json
import traceback
from pathlib import Path
from typing import Any

import pytest

from k8s.access import Access, Connection
from k8s.errors import ApiError, Reason

USER = {"name": "me", "user": {"token": "CANARY"}}
CLUSTER = {"name": "here", "cluster": {"server": "http://127.0.0.1:1"}}
CONTEXT = {"name": "first", "context": {"cluster": "here", "user": "me"}}


def written(folder: Path, **parts: Any) -> Path:
    """Write a kubeconfig that would do, but for the parts given."""
    whole = {"clusters": [CLUSTER], "users": [USER], "contexts": [CONTEXT], "current-context": "first", **parts}
    path = folder / "config"
    path.write_text(json.dumps(whole))
    return path


@pytest.mark.parametrize(
    ("parts", "context", "words"),
    [
        ({"contexts": []}, "", "no context first"),
        ({"current-context": ""}, "", "no current context"),
        ({}, "second", "no context second, only first"),
        ({"contexts": None}, "", "is not a kubeconfig"),
        ({"users": [{"name": "me", "token": "CANARY"}]}, "", "is not a kubeconfig"),
        ({"clusters": []}, "", "cannot be used"),
        ({"clusters": [{**CLUSTER, "cluster": {"server": "https://x", "certificate-authority": "/none"}}]}, "",
         "cannot be used"),
        ({"users": [{"name": "me", "user": {"exec": {"command": "/bin/false", "apiVersion": "CANARY"}}}]}, "",
         "/bin/false, which .* gave none"),
    ],
)  # fmt: skip
def test_a_kubeconfig_that_does_not_do_is_one_clear_error(
    tmp_path: Path, parts: dict[str, Any], context: str, words: str
) -> None:
    """The message says what is missing; not even a traceback shows a token."""
    with pytest.raises(ApiError, match=words) as caught:
        Connection(Access("llm", written(tmp_path, **parts), context))

    assert Reason.MISCONFIGURED is caught.value.reason
    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("content", ["token: {CANARY", "- CANARY", "", "\x00CANARY"])
def test_a_file_that_is_no_kubeconfig_is_not_quoted(tmp_path: Path, content: str) -> None:
    """YAML's errors quote the place that they do not understand; ours do not."""
    path = tmp_path / "config"
    path.write_text(content)

    with pytest.raises(ApiError, match="is not a kubeconfig") as caught:
        Connection(Access("llm", path))

    assert "CANARY" not in "".join(traceback.format_exception(caught.value))


def test_a_kubeconfig_that_is_not_there_is_named(tmp_path: Path) -> None:
    """Whoever set the path finds it in the message."""
    with pytest.raises(ApiError, match=f"{tmp_path}/none cannot be read: No such file"):
        Connection(Access("llm", tmp_path / "none"))


def test_without_a_kubeconfig_and_a_service_account_there_is_no_access(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside a pod nothing says where the API server is."""
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)

    with pytest.raises(ApiError, match="does not run in a pod") as caught:
        Connection(Access("llm"))

    assert Reason.MISCONFIGURED is caught.value.reason
