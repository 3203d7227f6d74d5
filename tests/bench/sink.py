"""``python -m tests.bench.sink``: an S3 server that throws large bodies away, to measure the pipe itself.

A real server costs several times the pipe's own time.  This one keeps names, sizes, checksums, uploads and the bodies
of small objects, with S3's conditions on writes, and lets the kernel drop every other byte before it is copied.  What
it does not keep or know it refuses, so that nothing measured against it rests on a lie.

Requests are counted by operation; ``/-/stats`` tells them.
"""

import json
import mmap
import socket
import sys
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qsl, unquote, urlsplit
from xml.sax.saxutils import escape

from tests.bench.hub import HOST, Counts, QuickServer
from tests.bench.sink_state import Bucket, Kept, Refusal

KEPT_BYTES = 2**20
"""Bodies of up to this many bytes are kept."""

DROPPED_AT_ONCE = 8 * 2**20
NAMESPACE = 'xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
_KEPT_HEADERS = ("x-amz-meta-", "x-amz-checksum-crc", "x-amz-checksum-sha", "x-amz-checksum-type")


class SinkHandler(BaseHTTPRequestHandler):
    """Speaks S3 with path-style addresses, for one bucket of any name."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    bucket: Bucket
    counts: Counts

    def handle_one_request(self) -> None:
        """Take one request and answer it, with an error of S3's kind where it is refused."""
        self.raw_requestline = self.rfile.readline(65_537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        try:
            self._serve()
        except Refusal as refusal:
            self._answer(refusal.status, f"<Error><Code>{refusal.code}</Code></Error>".encode())

    def log_message(self, *_: object) -> None:
        """Write no log."""

    def _serve(self) -> None:
        url = urlsplit(self.path)
        if url.path == "/-/stats":
            self._answer(HTTPStatus.OK, self.counts.to_json())
            return
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        key = unquote(url.path.lstrip("/").partition("/")[2])
        body, size = self._receive()
        name = _operation(self.command, key, query, self._lowered)
        self.counts.add(name, requests=1, size=size)
        operation = getattr(self, f"_{name}", None)
        if operation is None:
            raise Refusal(HTTPStatus.NOT_IMPLEMENTED, "NotImplemented")
        operation(key, query, body, size)

    @property
    def _lowered(self) -> dict[str, str]:
        return {name.lower(): value for name, value in self.headers.items()}

    def _receive(self) -> tuple[bytes, int]:
        """Return the request's body, empty where it is too large to be kept, and its size."""
        size = int(self.headers.get("content-length") or 0)
        if self.headers.get("x-amz-content-sha256", "").startswith("STREAMING-"):
            raise Refusal(HTTPStatus.NOT_IMPLEMENTED, "NotImplemented")
        if size <= KEPT_BYTES:
            return self.rfile.read(size), size
        left = size - len(self.rfile.read(min(size, len(self.rfile.peek()))))  # type: ignore[attr-defined]
        while left:
            dropped = self.connection.recv_into(self.server.void, min(left, DROPPED_AT_ONCE), socket.MSG_TRUNC)  # type: ignore[attr-defined]
            if not dropped:
                raise ConnectionResetError
            left -= dropped
        return b"", size

    def _kept(self, body: bytes, size: int) -> Kept:
        facts = {name: value for name, value in self._lowered.items() if name.startswith(_KEPT_HEADERS)}
        return Kept(size, body if len(body) == size else None, facts)

    def _put_object(self, key: str, _query: dict[str, str], body: bytes, size: int) -> None:
        kept = self._kept(body, size)
        etag = self.bucket.put(key, kept, self._lowered)
        self._answer(HTTPStatus.OK, b"", {"ETag": etag} | kept.checksums)

    def _copy_object(self, key: str, _query: dict[str, str], _body: bytes, _size: int) -> None:
        etag = self.bucket.copy(self._source(), key, self._lowered)
        self._answer(HTTPStatus.OK, _document("CopyObjectResult", f"<ETag>{escape(etag)}</ETag>"))

    def _get_object(self, key: str, _query: dict[str, str], _body: bytes, _size: int) -> None:
        kept = self.bucket.get(key)
        if kept.body is None:
            raise Refusal(HTTPStatus.NOT_IMPLEMENTED, "BodyWasThrownAway")
        self._answer(HTTPStatus.OK, kept.body, kept.described())

    def _head_object(self, key: str, _query: dict[str, str], _body: bytes, _size: int) -> None:
        kept = self.bucket.get(key)
        self._answer(HTTPStatus.OK, b"", kept.described(), length=kept.size)

    def _delete_object(self, key: str, _query: dict[str, str], _body: bytes, _size: int) -> None:
        self.bucket.delete(key)
        self._answer(HTTPStatus.NO_CONTENT, b"")

    def _delete_objects(self, _key: str, _query: dict[str, str], body: bytes, _size: int) -> None:
        for element in _elements(body, "Key"):
            self.bucket.delete(element)
        self._answer(HTTPStatus.OK, _document("DeleteResult", ""))

    def _head_bucket(self, _key: str, _query: dict[str, str], _body: bytes, _size: int) -> None:
        self._answer(HTTPStatus.OK, b"")

    def _list_objects_v2(self, _key: str, query: dict[str, str], _body: bytes, _size: int) -> None:
        found = self.bucket.under(query.get("prefix", ""))
        contents = "".join(
            f"<Contents><Key>{escape(key)}</Key><Size>{kept.size}</Size><ETag>{escape(kept.etag)}</ETag>"
            f"<LastModified>{kept.modified}</LastModified></Contents>"
            for key, kept in found
        )
        text = f"<IsTruncated>false</IsTruncated><KeyCount>{len(found)}</KeyCount>{contents}"
        self._answer(HTTPStatus.OK, _document("ListBucketResult", text))

    def _create_multipart_upload(self, key: str, _query: dict[str, str], _body: bytes, _size: int) -> None:
        upload = self.bucket.begin(key, self._kept(b"", 0).facts)
        self._answer(HTTPStatus.OK, _document("InitiateMultipartUploadResult", f"<UploadId>{upload}</UploadId>"))

    def _upload_part(self, key: str, query: dict[str, str], body: bytes, size: int) -> None:
        kept = self._kept(body, size)
        etag = self.bucket.add_part(key, query["uploadId"], int(query["partNumber"]), kept)
        self._answer(HTTPStatus.OK, b"", {"ETag": etag} | kept.checksums)

    def _upload_part_copy(self, key: str, query: dict[str, str], _body: bytes, _size: int) -> None:
        source = self.bucket.source(self._source(), self._lowered)
        span = self.headers.get("x-amz-copy-source-range", f"bytes=0-{source.size - 1}")
        first, last = map(int, span.removeprefix("bytes=").split("-"))
        part = Kept(last - first + 1, None, {})
        etag = self.bucket.add_part(key, query["uploadId"], int(query["partNumber"]), part)
        self._answer(HTTPStatus.OK, _document("CopyPartResult", f"<ETag>{escape(etag)}</ETag>"))

    def _list_parts(self, key: str, query: dict[str, str], _body: bytes, _size: int) -> None:
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(part.etag)}</ETag><Size>{part.size}</Size>"
            f"<LastModified>{part.modified}</LastModified></Part>"
            for number, part in self.bucket.parts(key, query["uploadId"])
        )
        self._answer(HTTPStatus.OK, _document("ListPartsResult", f"<IsTruncated>false</IsTruncated>{parts}"))

    def _complete_multipart_upload(self, key: str, query: dict[str, str], body: bytes, _size: int) -> None:
        wanted = list(zip(map(int, _elements(body, "PartNumber")), _elements(body, "ETag"), strict=True))
        facts = self._kept(b"", 0).facts
        kept = self.bucket.complete(key, query["uploadId"], wanted, facts, self._lowered)
        known = {"ETag": kept.etag, "Key": key}
        for header, value in kept.checksums.items():
            name = header.removeprefix("x-amz-checksum-")
            known[f"Checksum{'Type' if name == 'type' else name.upper()}"] = value
        text = "".join(f"<{name}>{escape(value)}</{name}>" for name, value in known.items())
        self._answer(HTTPStatus.OK, _document("CompleteMultipartUploadResult", text))

    def _abort_multipart_upload(self, key: str, query: dict[str, str], _body: bytes, _size: int) -> None:
        self.bucket.abort(key, query["uploadId"])
        self._answer(HTTPStatus.NO_CONTENT, b"")

    def _list_multipart_uploads(self, _key: str, query: dict[str, str], _body: bytes, _size: int) -> None:
        uploads = "".join(
            f"<Upload><Key>{escape(key)}</Key><UploadId>{upload}</UploadId><Initiated>{begun}</Initiated></Upload>"
            for key, upload, begun in self.bucket.open_uploads(query.get("prefix", ""))
        )
        text = f"<IsTruncated>false</IsTruncated>{uploads}"
        self._answer(HTTPStatus.OK, _document("ListMultipartUploadsResult", text))

    def _source(self) -> str:
        return unquote(self.headers["x-amz-copy-source"]).lstrip("/").partition("/")[2]

    def _answer(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, *, length: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


_OPERATIONS = {
    ("GET", False, "list-type"): "list_objects_v2",
    ("GET", False, "uploads"): "list_multipart_uploads",
    ("HEAD", False, ""): "head_bucket",
    ("POST", False, "delete"): "delete_objects",
    ("GET", True, "uploadId"): "list_parts",
    ("GET", True, ""): "get_object",
    ("HEAD", True, ""): "head_object",
    ("PUT", True, "uploadId"): "upload_part",
    ("PUT", True, ""): "put_object",
    ("POST", True, "uploads"): "create_multipart_upload",
    ("POST", True, "uploadId"): "complete_multipart_upload",
    ("DELETE", True, "uploadId"): "abort_multipart_upload",
    ("DELETE", True, ""): "delete_object",
}


_PARAMETERS = frozenset(
    {"delete", "encoding-type", "list-type", "partNumber", "prefix", "uploadId", "uploads", "x-id"}
)


def _operation(method: str, key: str, query: Mapping[str, str], headers: Mapping[str, str]) -> str:
    """Return S3's name of what a request asks for; one that is not known here has no method of the handler."""
    if set(query) - _PARAMETERS:
        return "unknown"
    telling = next((name for name in ("uploadId", "uploads", "delete", "list-type") if name in query), "")
    name = _OPERATIONS.get((method, bool(key), telling), "unknown")
    if "x-amz-copy-source" in headers:
        return {"put_object": "copy_object", "upload_part": "upload_part_copy"}.get(name, name)
    return name


def _document(root: str, text: str) -> bytes:
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<{root} {NAMESPACE}>{text}</{root}>'.encode()


def _elements(body: bytes, name: str) -> list[str]:
    tree = ET.fromstring(body)  # noqa: S314 - from clients on this machine that the benchmark starts
    return [element.text or "" for element in tree.iter() if element.tag.rpartition("}")[2] == name]


def sink_server() -> QuickServer:
    """Return an empty sink on a free port, not yet serving."""
    handler = type("Handler", (SinkHandler,), {"bucket": Bucket(), "counts": Counts()})
    server = QuickServer((HOST, 0), handler)
    server.void = mmap.mmap(-1, DROPPED_AT_ONCE)  # type: ignore[attr-defined]  # never written to: the kernel drops
    return server


def main() -> None:
    """Serve until killed, after one line of JSON that says where."""
    server = sink_server()
    where = f"http://{HOST}:{server.server_port}"
    sys.stdout.write(json.dumps({"endpoint": where, "stats": f"{where}/-/stats"}) + "\n")
    sys.stdout.flush()
    server.serve_forever()


if __name__ == "__main__":
    main()
