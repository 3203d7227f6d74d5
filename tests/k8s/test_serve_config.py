"""The Serve document of a release, and its drain switch."""

import yaml

from k8s.serve_config import is_draining, serve_config, with_drain
from tests.k8s.matrix import COMMIT, S3, workload


def test_the_payload_is_told_what_it_serves() -> None:
    """One application on the whole address, with the release's arguments."""
    told = yaml.safe_load(serve_config(workload("tensor")))
    application = told["applications"][0]

    assert ("chat-r7", "/", "serve.app:build") == tuple(
        application[key] for key in ("name", "route_prefix", "import_path")
    )
    assert (COMMIT, S3, {"tensor_parallel_size": 4}) == tuple(
        application["args"][key] for key in ("commit", "weights", "engine")
    )
    assert ("EveryNode", 8000) == (told["proxy_location"], told["http_options"]["port"])


def test_the_drain_switch_changes_nothing_else() -> None:
    """Whatever else changed would start replicas anew."""
    before = serve_config(workload("cpu"))
    on = with_drain(before, on=True)

    told = yaml.safe_load(on)
    assert [{"name": "engine", "user_config": {"drain": True}}] == told["applications"][0].pop("deployments")
    assert yaml.safe_load(before) == told
    assert (False, True, False) == tuple(map(is_draining, (before, on, with_drain(on, on=False))))
