"""sha256 whose state can be saved and taken up by another process.

hashlib's cannot be saved, and without that a killed upload of 50 GB has to be hashed again from its first byte,
which means fetched again: parts of an unfinished S3 upload cannot be read back by anyone.  libcrypto's
``SHA256_CTX`` is a plain structure of 112 bytes (openssl/sha.h: eight words of state, two of length, sixteen of
data, a count and the digest's length), so its bytes are its state.  Those functions are deprecated since
OpenSSL 3.0 and may be missing: they are tried once, against hashlib, and where they do not do what they should, the
state is empty and a file that was on its way begins anew.
"""

import ctypes
import hashlib
from functools import cache
from typing import Protocol

STATE_BYTES = 112


class Sha256(Protocol):
    """A running sha256."""

    def update(self, data: bytes | bytearray | memoryview) -> None:
        """Add the next bytes."""

    def hexdigest(self) -> str:
        """Return the hash of the bytes so far; more may follow."""

    def state(self) -> bytes:
        """Return what ``sha256`` goes on from; empty where that cannot be had."""


def sha256(state: bytes = b"") -> Sha256:
    """Return a running sha256, new or from the ``state`` of another; raises ``ValueError`` if it cannot go on."""
    library = _library()
    if library is not None:
        return _Resumable(library, state)
    if state:
        raise ValueError("No library on this machine takes up a saved state of sha256.")
    return _Plain()


class _Plain:
    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self.update, self.hexdigest = self._hash.update, self._hash.hexdigest

    def state(self) -> bytes:
        return b""


class _Resumable:
    def __init__(self, library: ctypes.CDLL, state: bytes = b"") -> None:
        self._library = library
        self._context = ctypes.create_string_buffer(STATE_BYTES)
        if not state:
            library.SHA256_Init(self._context)
            return
        if len(state) != STATE_BYTES:
            raise ValueError("This is no saved state of sha256.")
        ctypes.memmove(self._context, state, STATE_BYTES)

    def update(self, data: bytes | bytearray | memoryview) -> None:
        size = len(data)
        if not size:
            return
        at = data if isinstance(data, bytes) else (ctypes.c_char * size).from_buffer(data)
        self._library.SHA256_Update(self._context, at, size)

    def hexdigest(self) -> str:
        copy, digest = ctypes.create_string_buffer(self.state(), STATE_BYTES), ctypes.create_string_buffer(32)
        self._library.SHA256_Final(digest, copy)
        return digest.raw.hex()

    def state(self) -> bytes:
        return self._context.raw


@cache
def _library() -> ctypes.CDLL | None:
    """Return libcrypto if its sha256 can be saved in the middle of a block and taken up again."""
    try:
        library = ctypes.CDLL("libcrypto.so.3")
        library.SHA256_Init.argtypes = [ctypes.c_char_p]
        library.SHA256_Update.argtypes = [ctypes.c_char_p, ctypes.c_void_p, ctypes.c_size_t]
        library.SHA256_Final.argtypes = [ctypes.c_char_p, ctypes.c_char_p]
        first = _Resumable(library)
        first.update(b"a" * 100)
        second = _Resumable(library, first.state())
        second.update(bytearray(b"b" * 100))
    except (OSError, AttributeError):
        return None
    expected = hashlib.sha256(b"a" * 100 + b"b" * 100).hexdigest()
    return library if second.hexdigest() == expected else None
