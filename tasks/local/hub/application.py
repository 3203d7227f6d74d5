"""The Hub's own routes, as huggingface_hub 2.4 calls them; every answer is read from disk when asked for.

Routes are matched on the undecoded path: a revision is quoted (``refs%2Fpr%2F1``), and once decoded it could
not be told from the path that follows it.  Like the real Hub, a gated repository shows its metadata and its
file list to everyone and keeps only the bytes back (huggingface.js issue 945, huggingface_hub issue 2457); a
private one shows nothing.  ``X-Error-Code`` says what is wrong; messages never repeat the request.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote, urlencode

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from tasks.errors import BadInput, NotFound
from tasks.local.hub import repositories
from tasks.local.hub.access import AccessTokens, SignedLinks
from tasks.local.hub.cards import card_tags, read_card
from tasks.local.hub.content import Bytes
from tasks.local.hub.repositories import CommitRecord, File, Repository

PAGE_ENTRIES = 1000
"""Entries of one page of a listing, as on the real Hub; ``limit`` may ask for fewer."""


class Hub:
    """The routes of one Hub, over one root on disk."""

    def __init__(self, root: Path, *, endpoint: str, tokens: AccessTokens, links: SignedLinks) -> None:
        self._root = root
        self._endpoint = endpoint
        self._tokens = tokens
        self._links = links

    def application(self) -> ASGIApp:
        """Return the application of the first listener."""
        api = "/api/models/{org}/{name}"
        routes = [
            Route("/healthz", self.healthz),
            Route(api, self.model),
            Route(api + "/revision/{revision}", self.model),
            Route(api + "/tree/{revision}", self.tree),
            Route(api + "/tree/{revision}/{path:path}", self.tree),
            Route(api + "/refs", self.refs),
            Route(api + "/commits/{revision}", self.commits),
            Route(api + "/auth-check", self.auth_check),
            Route("/{org}/{name}/resolve/{revision}/{path:path}", self.resolve),
        ]
        application = Starlette(routes=routes, exception_handlers={HTTPException: _error})
        application.router.redirect_slashes = False
        return _OnRawPath(application)

    def healthz(self, _: Request) -> Response:
        """Answer 200 while the root can be read."""
        healthy = self._root.is_dir()
        return JSONResponse({"status": "ok" if healthy else "no root"}, status_code=200 if healthy else 503)

    def model(self, request: Request) -> Response:
        """Answer ``model_info``: the commit a revision stands for, and its files (``blobs``: with sizes)."""
        repository = self._repository(request)
        commit = self._commit(request, repository)
        blobs = _flag(request, "blobs")
        card = read_card(self._root, commit)
        facts: dict[str, Any] = {
            "id": repository.name,
            "modelId": repository.name,
            "author": repository.name.partition("/")[0],
            "sha": commit.id,
            "lastModified": _iso(commit),
            "createdAt": repository.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "private": repository.private,
            "gated": "manual" if repository.gated else False,
            "disabled": False,
            "tags": card_tags(card),
            "cardData": card,
            "siblings": [_sibling(file, blobs=blobs) for file in commit.files],
        }
        if expand := request.query_params.getlist("expand"):
            facts = {key: value for key, value in facts.items() if key in {"id", *expand}}
        return JSONResponse(facts)

    def tree(self, request: Request) -> Response:
        """Answer ``list_repo_tree``, a page at a time; later pages are of the same commit."""
        repository = self._repository(request)
        commit = self._commit(request, repository)
        folder = _param(request, "path").strip("/")
        if folder and folder not in commit.folders:
            raise _not_found("EntryNotFound", "Entry not found", commit)
        entries = _listing(commit, folder, recursive=_flag(request, "recursive"))
        address = f"tree/{commit.id}" + (f"/{quote(folder)}" if folder else "")
        return self._page(request, repository, address, entries)

    def refs(self, request: Request) -> Response:
        """Answer ``list_repo_refs``."""
        repository = self._repository(request)
        listed: dict[str, list[dict[str, str]]] = {
            "branches": [],
            "converts": [],
            "tags": [],
            "pullRequests": [],
        }
        for ref, commit in sorted(repository.refs.items()):
            _, kind, name = ref.split("/", 2)
            group = {"heads": "branches", "tags": "tags", "pr": "pullRequests"}[kind]
            listed[group].append({"name": name, "ref": ref, "targetCommit": commit})
        return JSONResponse(listed)

    def commits(self, request: Request) -> Response:
        """Answer ``list_repo_commits``, newest first."""
        repository = self._repository(request)
        commit = self._commit(request, repository)
        entries = [
            {
                "id": record.id,
                "title": record.message.partition("\n")[0],
                "message": record.message.partition("\n")[2].strip(),
                "date": _iso(record),
                "authors": [{"user": repository.name.partition("/")[0]}],
            }
            for record in repositories.history(self._root, repository.name, commit)
        ]
        return self._page(request, repository, f"commits/{commit.id}", entries)

    def auth_check(self, request: Request) -> Response:
        """Answer ``auth_check``: 200 when the bytes may be read."""
        self._readable(request)
        return JSONResponse({})

    def resolve(self, request: Request) -> Response:
        """Serve a small file, or send the client to the second host for a large one."""
        repository = self._readable(request)
        commit = self._commit(request, repository)
        file = commit.file(_param(request, "path"))
        if file is None:
            raise _not_found("EntryNotFound", "Entry not found", commit)
        headers = {"X-Repo-Commit": commit.id}
        if file.lfs is None:
            return Bytes(repositories.blob_path(self._root, file), etag=file.etag, headers=headers)
        linked = {"X-Linked-ETag": f'"{file.etag}"', "X-Linked-Size": str(file.size), "ETag": f'"{file.oid}"'}
        return RedirectResponse(self._links.sign(file.etag), status_code=302, headers={**headers, **linked})

    def _repository(self, request: Request) -> Repository:
        """Return the repository if the caller may know of it."""
        name = f"{_param(request, 'org')}/{_param(request, 'name')}"
        token = _bearer(request)
        try:
            repository = repositories.read_repository(self._root, name)
        except BadInput as error:
            raise HTTPException(400, "Invalid repository name") from error
        except NotFound as error:
            # Without a token the real Hub does not say whether a repository is private or missing.
            raise _repo_not_found(404 if token else 401) from error
        if repository.private and not self._tokens.allow(token, name):
            raise _repo_not_found(403 if token else 401)
        return repository

    def _readable(self, request: Request) -> Repository:
        """Return the repository if the caller may read its bytes."""
        repository = self._repository(request)
        token = _bearer(request)
        if repository.gated and not self._tokens.allow(token, repository.name):
            message = "Access to this repository is restricted" + ("" if token else ": no token was sent")
            raise HTTPException(403 if token else 401, message, {"X-Error-Code": "GatedRepo"})
        return repository

    def _commit(self, request: Request, repository: Repository) -> CommitRecord:
        revision = _param(request, "revision") or "main"
        try:
            return repositories.resolve_revision(self._root, repository, revision)
        except NotFound as error:
            raise _not_found("RevisionNotFound", "Invalid rev id") from error

    def _page(
        self, request: Request, repository: Repository, address: str, entries: Sequence[dict[str, Any]]
    ) -> Response:
        limit = min(max(_number(request, "limit", PAGE_ENTRIES), 1), PAGE_ENTRIES)
        start = _number(request, "cursor", 0)
        headers = {}
        if start + limit < len(entries):
            query = urlencode({**request.query_params, "cursor": start + limit})
            link = f"{self._endpoint}/api/models/{repository.name}/{address}?{query}"
            headers["Link"] = f'<{link}>; rel="next"'
        return JSONResponse(entries[start : start + limit], headers=headers)


class _OnRawPath:
    """Hands on the path as it was sent, percent signs and all."""

    def __init__(self, inner: ASGIApp) -> None:
        self._inner = inner

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._inner({**scope, "path": scope["raw_path"].decode("latin-1")}, receive, send)


def _listing(commit: CommitRecord, folder: str, *, recursive: bool) -> list[dict[str, Any]]:
    prefix = f"{folder}/" if folder else ""
    entries: dict[str, dict[str, Any]] = {
        path: {"type": "directory", "path": path, "oid": oid, "size": 0} for path, oid in commit.folders.items()
    }
    entries |= {
        file.path: {"type": "file", "path": file.path, "oid": file.oid, "size": file.size} | _lfs(file, "oid")
        for file in commit.files
    }
    return [
        entries[path]
        for path in sorted(entries)
        if path.startswith(prefix) and (recursive or "/" not in path.removeprefix(prefix))
    ]


def _sibling(file: File, *, blobs: bool) -> dict[str, Any]:
    if not blobs:
        return {"rfilename": file.path}
    return {"rfilename": file.path, "size": file.size, "blobId": file.oid} | _lfs(file, "sha256")


def _lfs(file: File, hash_key: str) -> dict[str, Any]:
    """Return a large file's LFS facts; listings call its hash ``oid``, ``model_info`` ``sha256``."""
    if file.lfs is None:
        return {}
    return {"lfs": {hash_key: file.lfs.sha256, "size": file.size, "pointerSize": file.lfs.pointer_size}}


def _iso(commit: CommitRecord) -> str:
    return commit.created_at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _param(request: Request, name: str) -> str:
    return unquote(request.path_params.get(name, ""))


def _flag(request: Request, name: str) -> bool:
    return request.query_params.get(name, "").lower() in {"true", "1"}


def _number(request: Request, name: str, default: int) -> int:
    text = request.query_params.get(name, str(default))
    if not (text.isascii() and text.isdigit() and len(text) < 10):  # noqa: PLR2004 - nine digits always fit
        raise HTTPException(400, f"{name} is not a number")
    return int(text)


def _bearer(request: Request) -> str | None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None


def _repo_not_found(status: int) -> HTTPException:
    message = "Repository not found" if status == 404 else "Invalid username or password."  # noqa: PLR2004
    return HTTPException(status, message, {"X-Error-Code": "RepoNotFound"})


def _not_found(code: str, message: str, commit: CommitRecord | None = None) -> HTTPException:
    """Return a 404; with the commit it was looked up in, which clients use to remember the absence."""
    headers = {"X-Error-Code": code} | ({"X-Repo-Commit": commit.id} if commit else {})
    return HTTPException(404, message, headers)


async def _error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for this class alone
    headers = {**(error.headers or {}), "X-Error-Message": error.detail}
    return JSONResponse({"error": error.detail}, status_code=error.status_code, headers=headers)
