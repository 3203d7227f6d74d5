"""The desk: one conversation at a time for each service, shared by those who come meanwhile."""

import asyncio

import pytest

from tasks._receiver.desk import Asked, Desk
from tasks.errors import Unreachable
from tests.fakes.webhooks import Recorder, sha


async def crowd(desk: Desk, prefect: Recorder, *calls: tuple[str, str]) -> list[Asked | BaseException]:
    """Ask for the first call, and for the others while it is being talked about; return all answers."""
    prefect.go_on.clear()
    asked = [asyncio.create_task(desk.ask(*calls[0]))]
    await asyncio.to_thread(prefect.began.wait, 10)
    asked += [asyncio.create_task(desk.ask(*call)) for call in calls[1:]]
    await asyncio.sleep(0.01)
    prefect.go_on.set()
    return await asyncio.gather(*asked, return_exceptions=True)


def test_a_crowd_costs_two_conversations() -> None:
    """The first call begins one, all that come meanwhile share the next, and one of each commit counts as new."""
    prefect = Recorder()
    calls = [("chat", sha(1))] * 50 + [("chat", sha(2))] * 50

    answers = asyncio.run(crowd(Desk(prefect.converse), prefect, *calls))

    assert [("chat", (sha(1),)), ("chat", (sha(1), sha(2)))] == prefect.asked
    assert 2 == len({one.run for one in answers if isinstance(one, Asked)})
    assert 2 == sum(one.new for one in answers if isinstance(one, Asked))


def test_services_do_not_wait_for_each_other() -> None:
    """A conversation about one leaves the others to theirs."""
    prefect = Recorder()

    asyncio.run(crowd(Desk(prefect.converse), prefect, ("chat", sha(1)), ("other", sha(1))))

    assert {"chat", "other"} == {service for service, _ in prefect.asked}


def test_an_error_is_told_to_all_and_the_next_one_is_served() -> None:
    """Whoever waited learns of it; it stays with them."""
    prefect = Recorder(error=Unreachable("Prefect is away."))
    desk = Desk(prefect.converse)

    async def twice() -> Asked:
        with pytest.raises(Unreachable):
            await desk.ask("chat", sha(1))
        prefect.error = None
        return await desk.ask("chat", sha(1))

    assert "chat" == asyncio.run(twice()).service
