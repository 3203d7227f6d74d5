"""A control plane for tests: etcd and kube-apiserver, the real ones, on this machine's loopback.

    with control_plane(folder) as plane:
        Api(Access(kubeconfig=plane.kubeconfig("system:serviceaccount:team:slipway", "team"), ...))

Authorisation is RBAC, every request is in the audit log, and each control plane has a /16 of 127.0.0.0/8 to itself,
so that several can run at once and an address of a Service is one to listen on: half of it is for Services, half for
pods.  (The API server takes such an address for both, but in no EndpointSlice.)  There is no controller manager, no
scheduler and no kubelet: nothing happens to an object that nobody does.  A namespace therefore has no service
accounts but those that are asked for, never goes, and what belongs to a deleted object stays.
"""

import ipaddress
import json
import os
import secrets
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx

from tasks.local import ports
from tests.kube import audit, authority, processes
from tests.kube.binaries import find

ADMIN, OPERATOR, STRANGER = "admin", "ray-operator", "stranger"
"""The users known from the start: of ``system:masters``, and two who may do nothing until a test lets them."""

ACCOUNT = "system:serviceaccount:"
START_DEADLINE_S = 90.0
Command = list[str | Path]
_POLL_S = 0.05
_TOKEN_S = 24 * 3600
_CLAIM_PORT = 19999


class ControlPlane:
    """A running control plane; ``admin`` is an HTTP client of it that may do everything, for any thread."""

    host = ports.HOST
    """Where the API server listens."""
    groups: Mapping[str, tuple[str, ...]] = {ADMIN: ("system:masters",), OPERATOR: (), STRANGER: ()}
    """The groups of every user with a token of its own."""

    def __init__(self, folder: Path) -> None:
        """Start it, with its state in ``folder``; raises ``MissingProgram`` where it cannot be had."""
        self._programs = find("etcd"), find("kube-apiserver")
        self._folder = folder
        self._claim, self.services, self.pods = self._networks()
        self._etcd_ports = etcd, peer = ports.choose(), ports.choose()
        self.port = ports.choose(taken={etcd, peer})
        self.url = f"https://{self.host}:{self.port}"
        self._tokens = {name: secrets.token_hex(16) for name in self.groups}
        self._write_files()
        self.audit = audit.Audit(folder / "audit.log")
        self.trust = ssl.create_default_context(cafile=folder / "ca.crt")
        self.admin = httpx.Client(base_url=self.url, headers=self._headers(), verify=self.trust, timeout=30)
        # A program that is started by a thread dies with it, and tests stop and start from threads of their own.
        self._starter = ThreadPoolExecutor(1, "control plane")
        self._etcd = self._run(self._etcd_command(), "etcd")
        self._apiserver: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the API server, the first time or after ``stop``, and wait until it is ready."""
        self._apiserver = self._run(self._apiserver_command(), "kube-apiserver")
        deadline = time.monotonic() + START_DEADLINE_S
        while not self._is_ready():
            assert self._apiserver.poll() is None, f"the API server ended: {self._last_words('kube-apiserver')}"
            assert self._etcd.poll() is None, f"etcd ended: {self._last_words('etcd')}"
            assert time.monotonic() < deadline, f"the API server is not ready: {self._last_words('kube-apiserver')}"
            time.sleep(_POLL_S)

    def stop(self) -> None:
        """Kill the API server: connections to it are reset or refused until ``start``."""
        if self._apiserver is not None:
            processes.kill(self._apiserver)

    def pause(self) -> None:
        """Let the API server be silent: connections to it stay open, and nothing comes."""
        assert self._apiserver is not None
        self._apiserver.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._apiserver.pid, os.WSTOPPED)  # every thread of it

    def resume(self) -> None:
        """Let it go on after ``pause``."""
        assert self._apiserver is not None
        self._apiserver.send_signal(signal.SIGCONT)

    def close(self) -> None:
        """End everything and remove its state."""
        self.stop()
        processes.kill(self._etcd)
        self._starter.shutdown()
        self.admin.close()
        self._claim.close()
        shutil.rmtree(self._folder)

    def create_namespace(self) -> str:
        """Make a namespace of a name that nobody has, and return the name."""
        name = f"test-{secrets.token_hex(4)}"
        self.admin.post("/api/v1/namespaces", json={"metadata": {"name": name}}).raise_for_status()
        return name

    def token(self, user: str) -> str:
        """Return the token of a user: a known one, or ``system:serviceaccount:NAMESPACE:NAME``, made if need be."""
        if user.startswith(ACCOUNT):
            namespace, name = user.removeprefix(ACCOUNT).split(":")
            accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
            self._create(accounts, {"metadata": {"name": name}})
            asked = {"spec": {"expirationSeconds": _TOKEN_S}}
            reply = self.admin.post(f"{accounts}/{name}/token", json=asked).raise_for_status()
            return str(reply.json()["status"]["token"])
        return self._tokens[user]

    def kubeconfig(self, user: str, namespace: str = "default", *, url: str | None = None) -> Path:
        """Write a kubeconfig of a user, its context named ``test``; ``url`` is where a proxy of the API server is."""
        cluster = {"server": url or self.url, "certificate-authority": str(self._folder / "ca.crt")}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": user, "user": {"token": self.token(user)}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": user, "namespace": namespace}}],
            "current-context": "test",
        }
        path = self._folder / f"kubeconfig-{secrets.token_hex(4)}.yaml"
        path.write_text(json.dumps(content, indent=2))
        return path

    def install(self, definitions: Iterable[Path]) -> None:
        """Create custom resource definitions, each in a file ``GROUP_PLURAL.yaml``; they are served then."""
        installed = []
        for path in definitions:
            group, plural = path.stem.split("_")
            self._create("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", path.read_bytes())
            installed.append(f"{plural}.{group}")
        deadline = time.monotonic() + START_DEADLINE_S
        while not all(map(self._is_served, installed)):
            assert time.monotonic() < deadline, f"not all of these are served: {', '.join(installed)}"
            time.sleep(_POLL_S)

    def _is_served(self, definition: str) -> bool:
        place = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{definition}"
        found = self.admin.get(place).raise_for_status().json()
        served = next(version["name"] for version in found["spec"]["versions"] if version["storage"])
        objects = f"/apis/{found['spec']['group']}/{served}/{found['spec']['names']['plural']}?limit=1"
        return self.admin.get(objects).is_success

    def _create(self, place: str, content: dict[str, object] | bytes) -> None:
        """Create an object from JSON or YAML, unless it is there."""
        written = content if isinstance(content, bytes) else json.dumps(content).encode()
        reply = self.admin.post(place, content=written, headers={"Content-Type": "application/yaml"})
        if reply.status_code != httpx.codes.CONFLICT:
            reply.raise_for_status()

    def _is_ready(self) -> bool:
        try:
            return self.admin.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._tokens[ADMIN]}"}

    def _networks(self) -> tuple[socket.socket, ipaddress.IPv4Network, ipaddress.IPv4Network]:
        """Return what holds the networks until it is closed, that of Services and that of pods."""
        claim, network = _claim_network()
        return (claim, *network.subnets())

    def _run(self, command: Command, name: str) -> "subprocess.Popen[bytes]":
        return self._starter.submit(processes.start, command, self._folder / f"{name}.log").result()

    def _last_words(self, name: str) -> str:
        return (self._folder / f"{name}.log").read_text(errors="replace")[-2000:]

    def _write_files(self) -> None:
        authority.write(self._folder, self.host, str(self.services[1]))
        (self._folder / "audit.yaml").write_text(audit.POLICY)
        users = [f'{token},{name},{name},"{",".join(self.groups[name])}"' for name, token in self._tokens.items()]
        (self._folder / "tokens.csv").write_text("\n".join(users))

    def _etcd_command(self) -> Command:
        client, peer = (f"http://{ports.HOST}:{port}" for port in self._etcd_ports)
        return [
            self._programs[0], f"--data-dir={self._folder / 'etcd'}", "--unsafe-no-fsync", "--log-level=warn",
            f"--listen-client-urls={client}", f"--advertise-client-urls={client}", f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}", f"--initial-cluster=default={peer}",
        ]  # fmt: skip

    def _apiserver_command(self) -> Command:
        at = self._folder
        return [
            self._programs[1], f"--etcd-servers=http://{ports.HOST}:{self._etcd_ports[0]}",
            f"--bind-address={self.host}", f"--secure-port={self.port}", f"--advertise-address={self.host}",
            f"--service-cluster-ip-range={self.services}",
            f"--tls-cert-file={at / 'server.crt'}", f"--tls-private-key-file={at / 'server.key'}",
            f"--token-auth-file={at / 'tokens.csv'}", "--anonymous-auth=false",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={at / 'accounts.key'}",
            f"--service-account-signing-key-file={at / 'accounts.key'}",
            "--allow-privileged=true",
            f"--audit-log-path={at / 'audit.log'}", f"--audit-policy-file={at / 'audit.yaml'}",
            "--audit-log-maxsize=0", *self._flags(),
        ]  # fmt: skip

    def _flags(self) -> Command:
        """Return what of the API server is so because nothing else runs."""
        return [
            "--authorization-mode=RBAC", "--endpoint-reconciler-type=none",
            "--disable-admission-plugins=ServiceAccount",
        ]  # fmt: skip


@contextmanager
def control_plane(folder: Path) -> Iterator[ControlPlane]:
    """Run a control plane until the block is left; ``folder``, which is there and empty, is gone then."""
    plane = ControlPlane(folder)
    try:
        plane.start()
        yield plane
    finally:
        plane.close()


def _claim_network() -> tuple[socket.socket, ipaddress.IPv4Network]:
    """Return a network of the loopback that no other control plane has, and what holds it until it is closed."""
    for second in secrets.SystemRandom().sample(range(16, 255), 239):
        claim = socket.socket()
        try:
            claim.bind((f"127.{second}.255.254", _CLAIM_PORT))
        except OSError:
            claim.close()
        else:
            return claim, ipaddress.IPv4Network(f"127.{second}.0.0/16")
    raise AssertionError("239 control planes run on this machine")
