"""What a server said, quoted without the credentials that it was shown: careless gateways repeat what they refuse."""

import base64
import binascii

import httpx

LONGEST = 256
"""Characters of an answer that are quoted."""
LEAST = 4
"""Characters below which a password is not looked for: a text would lose more than the password is worth."""


def quoted(response: httpx.Response) -> str:
    """Return the beginning of an answer's body, in which the credentials of its request are masked."""
    text = response.text
    for secret in _credentials(response.request.headers.get("authorization", "")):
        if len(secret) >= LEAST:
            text = text.replace(secret, "***")
    return text[:LONGEST]


def _credentials(authorization: str) -> tuple[str, ...]:
    """Return what is secret of a header, the longest first: its value and, of a basic one, what that says."""
    scheme, _, value = authorization.partition(" ")
    if scheme.lower() != "basic":
        return (value,)
    try:
        said = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return (value,)
    return value, said, said.partition(":")[2]
