"""What servers say is quoted, and what they were shown is not."""

import base64

import httpx
import pytest

from tasks._quoting import LONGEST, quoted

BASIC = base64.b64encode(b"ops:correct-horse").decode()


@pytest.mark.parametrize(
    ("shown", "body", "told"),
    [
        pytest.param(f"Bearer {'a' * 20}", f"token {'a' * 20} is wrong", "token *** is wrong", id="a token"),
        pytest.param(f"Basic {BASIC}", f"no {BASIC} nor correct-horse", "no *** nor ***", id="a password"),
        pytest.param("Basic !", "no ! here", "no ! here", id="nothing to speak of"),
        pytest.param("", "no such application", "no such application", id="nothing shown"),
    ],
)
def test_an_answer_is_quoted_without_what_it_was_shown(shown: str, body: str, told: str) -> None:
    """The value of the header is masked, and the password that a basic one holds."""
    request = httpx.Request("GET", "http://ray.example", headers={"Authorization": shown} if shown else {})

    assert told == quoted(httpx.Response(500, text=body, request=request))


def test_a_page_is_quoted_by_its_beginning() -> None:
    """A record is no place for a gateway's page."""
    request = httpx.Request("GET", "http://ray.example")

    assert LONGEST == len(quoted(httpx.Response(500, text="x" * 1000, request=request)))
