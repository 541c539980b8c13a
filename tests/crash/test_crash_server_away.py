"""PostgreSQL goes away under a running gateway: nothing is called good, and everything heals without a restart."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.testing import PostgresServer
from tests.crash.ledger import Answer, Client, Message, message
from tests.crash.scene import Scene, scene
from tests.peers.gateway_process import wait_for

pytestmark = [pytest.mark.peer, pytest.mark.slow, pytest.mark.xdist_group("crash"), pytest.mark.timeout(300)]


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    """A server that only this test stops and starts."""
    with PostgresServer() as server:
        yield server


def attempt(stage: Scene, one: Message) -> Answer | None:
    """The answer to a message; None where the gateway hung up."""
    try:
        client = Client(stage.gateway.address, stage.gateway.port)
    except OSError:
        return None
    try:
        return client.send(one)
    except OSError:
        return None
    finally:
        client.close()


@pytest.mark.parametrize("how", ["stopped", "killed"])
def test_without_its_server_the_gateway_answers_451_and_heals(
    tmp_path: Path, own_server: PostgresServer, how: str
) -> None:
    store = {"url": own_server.url(own_server.create_database())}
    with scene(tmp_path, settings={"store": store}) as stage:
        stage.gateway.start()
        first = attempt(stage, message("first", large=False))
        assert first is not None
        assert first.accepted, first
        wait_for("the first is delivered", lambda: "first" in stage.record.tokens())
        (own_server.stop if how == "stopped" else own_server.kill)()
        wait_for("it is not ready", lambda: stage.gateway.probe("/readyz") == 503)
        assert stage.gateway.probe("/healthz") == 200
        for number in range(3):
            answer = attempt(stage, message(f"away{number}", large=number == 2))
            assert answer is not None
            assert answer.code == 451, answer
        wait_for("the alarm", lambda: "store_away" in alarms(stage, "alarm"))
        own_server.start()
        wait_for("it is ready again", lambda: stage.gateway.probe("/readyz") == 200)
        wait_for("the end of the alarm", lambda: "store_away" in alarms(stage, "alarm_over"))
        again = wait_for("mail is taken again", lambda: accepted(stage, message("again", large=True)))
        assert again
        wait_for("it is delivered", lambda: "again" in stage.record.tokens())
        assert stage.gateway.starts == 1
        assert stage.record.tokens() <= {"first", "again"}
        assert "hush" not in stage.gateway.log_path.read_text()


def accepted(stage: Scene, one: Message) -> bool:
    answer = attempt(stage, one)
    return answer is not None and answer.accepted


def alarms(stage: Scene, kind: str) -> set[str]:
    return {event["alarm"] for event in stage.gateway.events() if event.get("event") == kind}
