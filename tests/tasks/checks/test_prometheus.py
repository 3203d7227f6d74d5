"""One number of Prometheus is read; nothing, NaN, several numbers and no server at all are errors."""

import socket
from collections.abc import Iterator

import pytest

from tasks._checks.prometheus import instant
from tasks.errors import BadInput, NotFound, SlipwayError, Unreachable
from tests.fakes.prometheus import Prometheus, serving

pytestmark = pytest.mark.slow

QUERY = 'sum(rate(errors{service="chat"}[1m])) / sum(rate(requests[1m]))'


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[Prometheus, str]]:
    """One server for all tests, with its address."""
    prometheus = Prometheus()
    with serving(prometheus) as url:
        yield prometheus, url


@pytest.mark.parametrize(
    ("scalar", "text", "value"), [(False, "0.015", 0.015), (True, "1e-3", 0.001), (False, "0", 0)]
)
def test_one_number_is_read(shared: tuple[Prometheus, str], scalar: bool, text: str, value: float) -> None:
    """A vector of one series and a scalar are each a number, and the query arrives as it was written."""
    prometheus, url = shared
    vars(prometheus).update(vars(Prometheus(values=[text], scalar=scalar)))

    assert value == instant(f"{url}/", QUERY, timeout_s=2)
    assert [QUERY] == prometheus.asked


@pytest.mark.parametrize(
    ("state", "error", "text"),
    [
        (Prometheus(values=[]), NotFound, "no sample"),
        (Prometheus(values=["NaN"]), NotFound, "NaN"),
        (Prometheus(values=["+Inf"]), NotFound, "infinite"),
        (Prometheus(values=["0", "0"]), BadInput, "gives 2 series"),
        (Prometheus(values=["many"]), BadInput, "is no number"),
        (Prometheus(body=b"<html>"), BadInput, "is no number"),
        (Prometheus(body=b'{"status": "success", "data": {"resultType": "matrix"}}'), BadInput, "is no number"),
        (Prometheus(status=400), BadInput, "refuses the query"),
        (Prometheus(status=503), Unreachable, "status 503"),
        (Prometheus(status=302), Unreachable, "status 302"),
    ],
    ids=["empty", "NaN", "infinite", "two", "text", "page", "matrix", "query", "down", "elsewhere"],
)
def test_what_is_not_one_number_is_an_error(
    shared: tuple[Prometheus, str], state: Prometheus, error: type[SlipwayError], text: str
) -> None:
    """Each way of not saying the number has an error of its own kind."""
    prometheus, url = shared
    vars(prometheus).update(vars(state))

    with pytest.raises(error, match=text):
        instant(url, QUERY, timeout_s=2)


def test_nobody_there() -> None:
    """A Prometheus that is down is unreachable."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    with pytest.raises(Unreachable, match="ConnectError"):
        instant(f"http://127.0.0.1:{port}", QUERY, timeout_s=2)
