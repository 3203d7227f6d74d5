"""Hubs and signing keys, opened as the settings say: who gets which token, and what signs new mirrors."""

from collections.abc import Callable

from tasks._weights.hub import Hub
from tasks.records import Manifest
from tasks.settings import Settings, SigningSettings, hub_token, signing_password


def open_hub(settings: Settings, endpoint: str | None = None) -> Hub:
    """Return the Hub at ``endpoint``, or the configured one, asked with the token that is meant for it, if any."""
    where = endpoint or settings.hub.endpoint
    return Hub(where, hub_token(settings.hub, where), xet=settings.hub.xet)


def signer(settings: SigningSettings) -> Callable[[Manifest], bytes] | None:
    """Return what signs the manifests of new mirrors; None when no key is configured."""
    key = settings.key
    if key is None:
        return None
    password = signing_password(settings)

    def sign(manifest: Manifest) -> bytes:
        from tasks._weights import signatures  # noqa: PLC0415 - most of a second that mirrors without a key do not pay

        return signatures.sign(manifest, key, password)

    return sign
