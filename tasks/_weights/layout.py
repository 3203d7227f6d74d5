"""Where things lie in a store.

models/<org>/<name>/<commit>/<file>...          the files of a commit, never written to again once published
models/<org>/<name>/<commit>/hash               the commit's id, which Ray Serve's own mirror reads
models/<org>/<name>/<commit>/.manifest.json     written last: without it the commit is not there
models/<org>/<name>/<commit>/.manifest.sig      an optional signature over the files
models/<org>/<name>/refs/<ref>.json             what a ref meant when it was last followed
mirroring/<org>/<name>/<commit>.json            the claim and journal of a mirror that is not finished
gc.json                                         what garbage collection has marked, and since when
services/<service>/...                          records

No other module puts a key together.
"""

import re
from urllib.parse import quote

MODELS = "models"
MIRRORING = "mirroring"
MANIFEST = ".manifest.json"
SIGNATURE = ".manifest.sig"
HASH = "hash"
MARKS = "gc.json"

RESERVED = frozenset({MANIFEST, SIGNATURE, HASH})
"""Names that a commit's folder uses itself."""


def weights_key(model: str, commit: str) -> str:
    """Return the key of the folder that holds ``commit`` of ``model``; joined to the store's URL, its address."""
    return f"{MODELS}/{model}/{commit}"


def weights_url(store: str, model: str, commit: str) -> str:
    """Return the URL of the folder of one commit's files in the store at the URL ``store``."""
    return f"{store}/{weights_key(model, commit)}"


def manifest_key(model: str, commit: str) -> str:
    """Return the key of the commit's manifest."""
    return f"{weights_key(model, commit)}/{MANIFEST}"


def claim_key(model: str, commit: str) -> str:
    """Return the key of the claim and journal of a mirror of the commit."""
    return f"{MIRRORING}/{model}/{commit}.json"


def channel_key(model: str, ref: str) -> str:
    """Return the key of the pointer that says what ``ref`` meant; a ref may hold slashes, its key does not."""
    return f"{MODELS}/{model}/refs/{quote(ref, safe='')}.json"


def split_weights_key(key: str) -> tuple[str, str, str] | None:
    """Return model, commit and path of a key within a commit's folder, or None for any other key."""
    match = re.fullmatch(rf"{MODELS}/([^/]+/[^/]+)/([0-9a-f]{{40}})/(.+)", key)
    return (match[1], match[2], match[3]) if match else None
