"""The manifest of the webhook receiver: it fits the settings, and a cluster's strict rules."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks._receiver.bounds import GRACE_S
from tasks.settings import read_settings

DOCUMENTS: dict[str, dict[str, Any]] = {
    document["kind"]: document
    for document in yaml.safe_load_all((Path(__file__).parents[2] / "k8s" / "receiver.yaml").read_text())
}
POD = DOCUMENTS["Deployment"]["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


def test_its_variables_are_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are read under these names, and the port is the one that is probed."""
    for variable in CONTAINER["env"]:
        monkeypatch.setenv(variable["name"], variable["value"])
    told = read_settings().receiver
    (mount,) = (one for one in CONTAINER["volumeMounts"] if one["name"] == "webhook")

    assert ("0.0.0.0", CONTAINER["ports"][0]["containerPort"]) == (told.host, told.port)  # noqa: S104
    assert str(told.secret_file).startswith(mount["mountPath"])
    assert DOCUMENTS["Service"]["spec"]["selector"] == DOCUMENTS["Deployment"]["spec"]["selector"]["matchLabels"]


def test_it_may_do_nothing_and_is_bounded() -> None:
    """No account, no root, no writing but to its scratch folder, memory within a limit, time to end in good order."""
    assert POD["automountServiceAccountToken"] is False
    assert POD["securityContext"]["runAsNonRoot"]
    assert CONTAINER["securityContext"]["readOnlyRootFilesystem"]
    assert CONTAINER["resources"]["limits"]["memory"]
    assert POD["terminationGracePeriodSeconds"] > GRACE_S
