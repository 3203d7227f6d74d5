"""Images that containerd takes, and the service whose pods are made of one."""

import hashlib
import json
import tarfile
from pathlib import Path

import pytest

from tasks._spec_file import load_spec
from tests.cluster import __main__ as command
from tests.cluster import machine, payload
from tests.cluster.images import Entry, Image


def test_an_image_is_one_layer_and_what_it_says_of_it(tmp_path: Path) -> None:
    """The layer's digest is what the configuration names; links, owners and modes are kept."""
    entries = {"tmp": Entry(mode=0o1777, owner=7), "bin/run": Entry(b"#!"), "run": Entry(link="bin/run")}

    Image("here.test/one:1", entries, ("/run",), {"PATH": "/bin"}).write(tmp_path / "image.tar")

    with tarfile.open(tmp_path / "image.tar") as archive:
        files = {member.name: archive.extractfile(member).read() for member in archive}  # type: ignore[union-attr]
    (manifest,) = json.loads(files["manifest.json"])
    configuration = json.loads(files[manifest["Config"]])
    layer = files[manifest["Layers"][0]]
    assert ["here.test/one:1"] == manifest["RepoTags"]
    assert [f"sha256:{hashlib.sha256(layer).hexdigest()}"] == configuration["rootfs"]["diff_ids"]
    assert {"Cmd": ["/run"], "Env": ["PATH=/bin"]} == configuration["config"]
    (tmp_path / "layer.tar").write_bytes(layer)
    with tarfile.open(tmp_path / "layer.tar") as archive:
        members = {member.name: member for member in archive}
    assert (0o1777, 7, True) == (members["tmp"].mode, members["tmp"].uid, members["tmp"].isdir())
    assert ("bin/run", True) == (members["run"].linkname, members["run"].issym())


def test_the_service_of_a_whole_cluster_has_a_spec_that_holds(tmp_path: Path) -> None:
    """Every folder that the skeleton lacks is there, once."""
    spec = load_spec(tmp_path, payload.write_service(tmp_path, "http://198.18.0.2:8333"))

    assert spec.kubernetes
    places = [mount.path for mount in spec.kubernetes.mounts]
    assert {"/usr", "/app/serve"} < set(places)
    assert len(places) == len(set(places))
    assert (tmp_path / spec.checks.prompts).is_file()


def test_what_the_machine_lacks_is_named_by_its_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """And on another system that it is another."""
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("platform.system", lambda: "Linux")
    monkeypatch.setattr("shutil.which", lambda name: None if name in {"runc", "nsenter", "setpriv"} else "/bin/any")
    monkeypatch.setattr(machine, "PLUGINS", ())
    monkeypatch.setattr(machine, "BUSYBOX", Path("/"))

    assert machine.lacking().endswith("Debian's packages are containernetworking-plugins runc util-linux.")

    monkeypatch.setattr("platform.system", lambda: "Darwin")
    assert "needs Linux and root" in machine.lacking()


def test_a_command_without_an_operator_is_told_what_to_name(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Nothing is brought up for it."""
    monkeypatch.setattr(machine, "lacking", lambda: "")
    monkeypatch.delenv("RAY_OPERATOR", raising=False)

    assert 2 == command.main(["true"])
    assert "RAY_OPERATOR" in capfd.readouterr().err
