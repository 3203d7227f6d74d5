"""What is published of a commit, as it lies in the store.

No manifest means not there.  One that cannot be read, or is of another commit, is an error and never nothing: a
mirror that took it for nothing would write into a folder that somebody may be serving from.
"""

from pydantic import ValidationError

from tasks._stores.store import Store
from tasks._weights.layout import manifest_key, weights_key
from tasks.errors import IntegrityError
from tasks.records import Manifest


def read_manifest(store: Store, model: str, commit: str) -> Manifest | None:
    """Return what is published of ``commit``, or None; raises ``IntegrityError`` if it makes no sense."""
    found = store.get(manifest_key(model, commit))
    if found is None:
        return None
    remedy = f"Delete {store.url}/{weights_key(model, commit)} and mirror the commit again."
    try:
        manifest = Manifest.from_json(found[0])
    except ValidationError as error:
        raise IntegrityError(
            f"The manifest of {model}@{commit} in {store.url} cannot be read ({error.error_count()} faults).",
            remedy=remedy,
        ) from error
    if (manifest.model, manifest.commit) != (model, commit):
        raise IntegrityError(
            f"The manifest of {model}@{commit} in {store.url} is that of {manifest.model}@{manifest.commit}.",
            remedy=remedy,
        )
    return manifest
