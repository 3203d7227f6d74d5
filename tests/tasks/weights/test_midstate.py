"""A saved state of sha256 goes on exactly where it was, and nothing else is taken for one."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks._weights import midstate
from tasks._weights.midstate import STATE_BYTES, sha256


@given(before=st.binary(max_size=300), after=st.binary(max_size=300))
def test_a_saved_state_goes_on_where_it_was(before: bytes, after: bytes) -> None:
    """Whatever was hashed before and after, in whichever kind of buffer, the digest is hashlib's."""
    first = sha256()
    first.update(before)
    second = sha256(first.state())
    second.update(memoryview(bytearray(after)))

    assert second.hexdigest() == hashlib.sha256(before + after).hexdigest()
    assert first.hexdigest() == hashlib.sha256(before).hexdigest()


def test_what_is_no_state_is_refused() -> None:
    """A state of another length is a mistake, not a hash."""
    with pytest.raises(ValueError, match="no saved state"):
        sha256(b"x" * (STATE_BYTES - 1))


def test_without_the_library_nothing_is_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where libcrypto is missing the digest is the same, the state empty, and another's state of no use."""
    saved = sha256().state()
    monkeypatch.setattr(midstate, "_library", lambda: None)

    plain = sha256()
    plain.update(b"abc")

    assert (plain.hexdigest(), plain.state()) == (hashlib.sha256(b"abc").hexdigest(), b"")
    with pytest.raises(ValueError, match="No library"):
        sha256(saved)
