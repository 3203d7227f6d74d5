"""Free ports on 127.0.0.1, and the sentence about a taken one."""

import os
import socket
from collections.abc import Iterator

import pytest

from tasks.errors import MachineError
from tasks.local import ports


@pytest.fixture
def listener() -> Iterator[int]:
    """A port that somebody listens on: this process."""
    with socket.create_server((ports.HOST, 0)) as server:
        yield server.getsockname()[1]


def test_a_port_with_a_listener_is_not_free(listener: int) -> None:
    """Taken is what a server cannot listen on."""
    assert not ports.is_free(listener)


def test_a_chosen_port_can_be_listened_on_and_was_not_taken() -> None:
    """Choosing leaves out what was chosen before, and looks at the neighbour where one is needed."""
    first = ports.choose()
    second = ports.choose(taken=[first], beside=10000)
    assert first not in {second, second + 10000}
    with socket.create_server((ports.HOST, second)), socket.create_server((ports.HOST, second + 10000)):
        pass


def test_a_demanded_port_is_given_or_its_holder_named(listener: int) -> None:
    """The sentence names the port, what it was for, and who holds it."""
    free = ports.choose()
    assert ports.demand("prefect", free) == free
    with pytest.raises(MachineError, match=rf"Port {listener}, asked for prefect, is taken by .*{os.getpid()}"):
        ports.demand("prefect", listener)
