"""Secrets of the receiver: any of several opens it, and a reading that fails changes nothing."""

import pytest
from pydantic import SecretStr

from tasks._receiver.keys import Keys
from tasks.errors import BadInput
from tasks.settings import ReceiverSettings, receiver_secrets
from tests.fakes.webhooks import NEXT_SECRET, SECRET

SEVERAL = (SecretStr(SECRET), SecretStr(NEXT_SECRET))


@pytest.mark.parametrize(
    ("headers", "fits"),
    [
        ([(b"x-webhook-secret", SECRET.encode())], True),
        ([(b"x-webhook-secret", NEXT_SECRET.encode())], True),
        ([(b"authorization", b"Bearer " + SECRET.encode())], True),
        ([(b"authorization", b"bearer " + SECRET.encode())], True),
        ([(b"authorization", b"Basic " + SECRET.encode())], False),
        ([], False),
        ([(b"x-webhook-secret", b"")], False),
        ([(b"x-webhook-secret", b"wrong")], False),
        ([(b"x-webhook-secret", SECRET[:-1].encode())], False),
        ([(b"x-webhook-secret", SECRET.encode() + b"x")], False),
        ([(b"x-webhook-secret", f"{SECRET} {NEXT_SECRET}".encode())], False),
        ([(b"x-webhook-secret", b"\xff\x00")], False),
        ([(b"x-webhook-secret", b"wrong"), (b"authorization", b"Bearer " + SECRET.encode())], False),
    ],
)
def test_a_whole_secret_opens(headers: list[tuple[bytes, bytes]], *, fits: bool) -> None:
    """Nothing less does, in either header."""
    assert fits is Keys(lambda: SEVERAL).fit(headers)


def test_secrets_are_replaced_while_it_runs() -> None:
    """First both are good, then the new one alone; where reading fails, the last good ones stay."""
    read: list[tuple[SecretStr, ...]] = [SEVERAL[:1], SEVERAL, SEVERAL[1:]]

    def next_ones() -> tuple[SecretStr, ...]:
        if not read:
            raise BadInput("The file is away.")
        return read.pop(0)

    keys, opens = Keys(next_ones), []
    for _ in range(4):
        opens.append([keys.fit([(b"x-webhook-secret", one.encode())]) for one in (SECRET, NEXT_SECRET)])
        keys.look()

    assert [[True, False], [True, True], [False, True], [False, True]] == opens
    assert keys.trouble


@pytest.mark.parametrize("secret", [None, SecretStr("short"), SecretStr("a" * 16 + " short"), SecretStr("ä" * 16)])
def test_a_secret_that_could_be_guessed_or_not_sent_is_refused(secret: SecretStr | None) -> None:
    """A receiver without one would be open to everybody; the message does not show what was set."""
    with pytest.raises(BadInput, match="SLIPWAY_RECEIVER__SECRET") as caught:
        receiver_secrets(ReceiverSettings(secret=secret))

    assert secret is None or secret.get_secret_value() not in str(caught.value)
