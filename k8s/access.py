"""The way to one API server: address and credentials from the official client's loaders, requests by its transport.

What the official client leaves open is closed here.  Nothing global is set.  A 401 makes the credentials be read
again, once for each request, which covers what its loaders read only once (a token file, a client certificate, an
exec plugin that names no expiry); when that fails, it may only be late.  An exec plugin that fails is an error
instead of a line in the log and a request without credentials.  The transport retries nothing, since ``k8s.api``
decides that.  Each request has a timeout for connecting and one for every wait on the socket.

No text of the loaders is passed on: it may quote the kubeconfig, tokens and all.
"""

import ssl
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import urllib3
import yaml
from kubernetes.client import Configuration
from kubernetes.client.exceptions import ApiException
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config

from k8s.errors import ApiError, Reason, refusal

CONNECT_S = 5.0
"""Seconds for a connection, TLS included; an API server is near."""
READ_S = 30.0
"""Seconds without a byte before an answer is given up; an admission webhook may take 30 by itself.

https://kubernetes.io/docs/reference/access-authn-authz/extensible-admission-controllers/#timeouts
"""
CONNECTIONS = 16
"""Connections kept for later use; more are opened and closed as threads need them."""
UNUSABLE = (ConfigException, yaml.YAMLError, OSError, ValueError, TypeError, LookupError, AttributeError)
"""What the official loaders raise on a file that is not as they expect it."""


@dataclass(frozen=True)
class Access:
    """Which API server and which namespace; without a kubeconfig the one of the cluster that this process runs in."""

    namespace: str
    kubeconfig: Path | None = None
    context: str = ""


@dataclass(frozen=True)
class Question:
    """One request; ``doing`` names it in errors, ``content_type`` is that of ``body``."""

    doing: str
    method: str
    path: str
    query: Mapping[str, str]
    body: Mapping[str, Any] | None = None
    content_type: str = "application/json"


class Connection:
    """Requests to the API server that ``access`` leads to, from any number of threads."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._lock = threading.Lock()
        self._line = _Line(access)

    def ask(self, question: Question) -> bytes:
        """Return the whole answer; raises ``ApiError`` where none came, or one that is no success."""
        response = self.stream(question, READ_S)
        with _translated(self._line.server):
            return response.data

    def stream(self, question: Question, read_s: float) -> urllib3.BaseHTTPResponse:
        """Return the answer unread, whoever reads it closes it; ``read_s`` bounds each wait.  Raises as ``ask``."""
        line = self._line
        response = line.send(question, read_s)
        if response.status == 401:  # noqa: PLR2004
            response.close()
            line = self._renewed(line)
            response = line.send(question, read_s)
        if 200 <= response.status < 300:  # noqa: PLR2004
            return response
        with _translated(self._line.server):
            raise refusal(question.doing, response.status, line.masked(response.data), response.headers)

    def close(self) -> None:
        """Let go of idle connections; streams go on until their readers end them."""
        self._line.close()

    def _renewed(self, old: "_Line") -> "_Line":
        with self._lock:
            if self._line is old:
                try:
                    self._line = _Line(self._access)
                except ApiError as error:
                    raise _passing(error) from error
                old.close()
            return self._line


class _Line:
    """One reading of the credentials and the connections opened with it."""

    def __init__(self, access: Access) -> None:
        self._configuration = _configuration(access)
        self._rest = RESTClientObject(self._configuration)
        self.server = urlsplit(self._configuration.host).netloc.rpartition("@")[2]

    def send(self, question: Question, read_s: float) -> urllib3.BaseHTTPResponse:
        url = f"{self._configuration.host}{question.path}?{urlencode(question.query)}"
        headers = {"Accept": "application/json", "User-Agent": "slipway", **self._authorization()}
        if question.body is not None:
            headers["Content-Type"] = question.content_type
        with _translated(self.server):
            response: urllib3.BaseHTTPResponse = self._rest.request(
                question.method, url, headers=headers, body=question.body, _request_timeout=(CONNECT_S, read_s)
            ).response
        return response

    def masked(self, answer: bytes) -> bytes:
        """Return an answer without the token: a careless gateway repeats what it refuses."""
        token = self._authorization().get("Authorization", "").rpartition(" ")[2].encode()
        return answer.replace(token, b"***") if token else answer

    def close(self) -> None:
        self._rest.close()

    def _authorization(self) -> dict[str, str]:
        """Return the header with the token, which the library renews shortly before the time that it was told."""
        try:
            token = self._configuration.get_api_key_with_prefix("BearerToken")
        except UNUSABLE:
            raise _passing(_unusable("The token cannot be renewed.")) from None
        return {"Authorization": token.strip()} if token else {}


def _configuration(access: Access) -> Configuration:
    configuration = Configuration()
    configuration.retries = False
    configuration.connection_pool_maxsize = CONNECTIONS
    if access.kubeconfig is None:
        _load_own(configuration)
    else:
        _load_file(access.kubeconfig, access.context, configuration)
    return configuration


def _load_own(configuration: Configuration) -> None:
    try:
        load_incluster_config(client_configuration=configuration)
    except UNUSABLE:
        raise _unusable("This process does not run in a pod with a service account.") from None


def _load_file(path: Path, context: str, configuration: Configuration) -> None:
    user = _user(path, context)
    try:
        load_kube_config(str(path), context=context or None, client_configuration=configuration, persist_config=False)
    except UNUSABLE:
        raise _unusable(f"The kubeconfig {path} cannot be used as it is written.") from None
    if "exec" in user and not (configuration.api_key or configuration.cert_file):
        raise _unusable(f"{user['exec']['command']}, which {path} asks for credentials, gave none.")


def _user(path: Path, context: str) -> dict[str, Any]:
    """Return what the kubeconfig says of the user of the context; raises ``ApiError`` that names what is missing."""
    try:
        content = yaml.safe_load(path.read_bytes())
        contexts = {item["name"]: item["context"] for item in content["contexts"]}
        users = {item["name"]: item["user"] for item in content.get("users") or ()}
        chosen = context or content.get("current-context")
    except OSError as error:
        raise _unusable(f"The kubeconfig {path} cannot be read: {error.strerror}.") from None
    except UNUSABLE:
        raise _unusable(f"{path} is not a kubeconfig.") from None
    if not chosen:
        raise _unusable(f"The kubeconfig {path} has no current context.")
    if chosen not in contexts:
        raise _unusable(f"The kubeconfig {path} has no context {chosen}, only {', '.join(sorted(contexts))}.")
    return users.get(contexts[chosen].get("user")) or {}


def _unusable(message: str) -> ApiError:
    return ApiError(Reason.MISCONFIGURED, message, remedy="Name a kubeconfig and a context that kubectl works with.")


def _passing(error: ApiError) -> ApiError:
    """Return the error for credentials that were good before: what renews them may only be late."""
    return ApiError(Reason.UNREACHABLE, str(error), remedy=error.remedy)


@contextmanager
def _translated(server: str) -> Iterator[None]:
    try:
        yield
    except (urllib3.exceptions.HTTPError, ApiException) as error:
        cause = error.__context__ if isinstance(error, ApiException) else error
        if cause and isinstance(cause.args[0], ssl.SSLCertVerificationError):
            raise _unusable(f"The certificate of the API server at {server} is not one we trust.") from error
        message = f"The API server at {server} does not answer ({type(cause or error).__name__})."
        raise ApiError(Reason.UNREACHABLE, message) from error
