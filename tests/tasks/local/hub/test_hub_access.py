"""Tokens and signed links: what opens, what does not, and what never shows."""

from pathlib import Path

import pytest

from tasks.errors import BadInput
from tasks.local.hub.access import AccessTokens, SignedLinks

_SHA256 = "ab" * 32


def _parts(url: str) -> tuple[str, str]:
    expires, signature = (pair.partition("=")[2] for pair in url.partition("?")[2].split("&"))
    return expires, signature


def test_a_token_opens_what_it_names(tmp_path: Path) -> None:
    """A list opens its repositories, ``*`` opens all, an unknown or missing token opens none."""
    file = tmp_path / "tokens.json"
    file.write_text('{"one": ["acme/gated"], "all": "*"}')
    file.chmod(0o600)
    tokens = AccessTokens.from_file(file)
    assert tokens.allow("one", "acme/gated")
    assert not tokens.allow("one", "acme/other")
    assert tokens.allow("all", "acme/other")
    assert not tokens.allow("unknown", "acme/gated")
    assert not tokens.allow(None, "acme/gated")
    assert not tokens.allow("*", "acme/gated")


@pytest.mark.parametrize("body", ["hf_secret", '{"hf_secret": 7}', '["hf_secret"]', '{"hf_secret": "acme/x"}'])
def test_a_malformed_token_file_is_refused_without_quoting_it(tmp_path: Path, body: str) -> None:
    """No part of the file is in the error, nor in what the error came from."""
    file = tmp_path / "tokens.json"
    file.write_text(body)
    file.chmod(0o600)
    with pytest.raises(BadInput) as caught:
        AccessTokens.from_file(file)
    assert "hf_secret" not in str(caught.value)
    assert caught.value.__suppress_context__


def test_a_token_file_others_can_read_is_refused(tmp_path: Path) -> None:
    """Mode 0644 is refused with the command that mends it; a missing file is refused as well."""
    file = tmp_path / "tokens.json"
    file.write_text("{}")
    file.chmod(0o644)
    with pytest.raises(BadInput, match="chmod 600"):
        AccessTokens.from_file(file)
    with pytest.raises(BadInput, match="cannot be read"):
        AccessTokens.from_file(tmp_path / "missing.json")


def test_a_link_holds_for_its_bytes_only_and_until_it_expires() -> None:
    """Another hash, a later expiry or a changed signature does not hold, nor does another process's link."""
    links = SignedLinks("http://cdn", lifetime_s=60)
    expires, signature = _parts(links.sign(_SHA256))
    assert links.hold(_SHA256, expires, signature)
    assert not links.hold("cd" * 32, expires, signature)
    assert not links.hold(_SHA256, str(int(expires) + 1), signature)
    assert not links.hold(_SHA256, expires, signature[::-1])
    assert not links.hold(_SHA256, "never", "é")
    assert not SignedLinks("http://cdn", lifetime_s=60).hold(_SHA256, expires, signature)
    assert not links.hold(_SHA256, *_parts(SignedLinks("http://cdn", lifetime_s=-1).sign(_SHA256)))


def test_an_expired_link_of_this_hub_does_not_hold() -> None:
    """The right signature does not outlive its time."""
    links = SignedLinks("http://cdn", lifetime_s=-1)
    assert not links.hold(_SHA256, *_parts(links.sign(_SHA256)))
