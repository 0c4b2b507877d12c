"""On-call escalation: one after the other until one takes it, and however many do at once, one has it."""

import threading
from typing import Any

import pytest

from tandem.client import ClientError
from tests.dialler.conftest import ANN, BOB, ON_SQLITE, Dialler
from tests.tandem.conftest import wait_for


def wake(dialler: Dialler, **options: Any) -> str:
    alert = {"on_call": "platform", "text": "The database is down."} | options
    return str(dialler.ask("POST", "/v1/escalations", alert)["id"])


def over(dialler: Dialler, id: str) -> dict[str, Any]:
    return dialler.until(f"/v1/escalations/{id}", lambda state: state["state"] != "waking")


@ON_SQLITE
def test_the_first_who_acknowledges_has_it_and_nobody_else_is_woken(dialler: Dialler) -> None:
    dialler.worker.lasts_s[ANN] = 30
    id = wake(dialler)
    wait_for(lambda: f"{id}.0" in dialler.worker.calls, "Ann to be rung")
    dialler.worker.acknowledge(f"{id}.0")
    state = over(dialler, id)
    assert (state["acknowledged_by"], state["woken"]) == ("Ann", 1)
    ((_, number, asked),) = dialler.worker.placed
    assert number == ANN
    assert asked["purpose"] == "on_call" and asked["acknowledge"] is True
    assert "The database is down." in asked["context"]
    assert [word["contact"] for word in dialler.worker.webhook] == ["Ann"]
    assert dialler.worker.webhook[0] == {
        "escalation": id, "on_call": "platform", "contact": "Ann", "sms": ANN, "text": "The database is down.",
    }  # fmt: skip
    assert dialler.worker.told == [(f"{id}.0", "Ann has taken it. Tell them that it is theirs now, and hang up.")]
    assert dialler.worker.deleted == []


@ON_SQLITE
def test_the_next_is_woken_when_the_first_does_not_acknowledge_in_time(dialler: Dialler) -> None:
    dialler.worker.endings[ANN] = [{"outcome": "not_reached", "cause": "no_answer"}]
    dialler.worker.lasts_s[BOB] = 30
    id = wake(dialler)
    wait_for(lambda: f"{id}.1" in dialler.worker.calls, "Bob to be rung")
    (first, _, _), (second, number, _) = dialler.worker.placed
    assert number == BOB and second - first >= 1.9
    dialler.worker.acknowledge(f"{id}.1")
    assert over(dialler, id)["acknowledged_by"] == "Bob"


def test_two_who_acknowledge_at_once_are_one_and_the_other_is_told_who(dialler: Dialler) -> None:
    dialler.worker.lasts_s |= {ANN: 30, BOB: 30}
    id = wake(dialler)
    wait_for(lambda: f"{id}.1" in dialler.worker.calls, "both to be on the line")
    for call in (f"{id}.0", f"{id}.1"):
        dialler.worker.acknowledge(call)
    holder = over(dialler, id)["acknowledged_by"]
    assert holder in ("Ann", "Bob")
    wait_for(lambda: len(dialler.worker.told) >= 2, "both to be told")
    told = dict(dialler.worker.told)
    mine, other = (f"{id}.0", f"{id}.1") if holder == "Ann" else (f"{id}.1", f"{id}.0")
    assert told[mine].startswith(f"{holder} has taken it. ")
    assert told[other].startswith(f"{holder} has taken it already.")


def test_many_who_acknowledge_over_the_api_at_once_learn_of_the_same_holder(dialler: Dialler) -> None:
    dialler.worker.lasts_s[ANN] = 30
    id = wake(dialler)
    replies: list[dict[str, Any]] = []

    def acknowledge(name: str) -> None:
        replies.append(dialler.ask("POST", f"/v1/escalations/{id}/acknowledge", {"by": name}))

    threads = [threading.Thread(target=acknowledge, args=(f"person {number}",)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({reply["acknowledged_by"] for reply in replies}) == 1
    assert sum(reply["yours"] for reply in replies) == 1
    assert over(dialler, id)["acknowledged_by"] == replies[0]["acknowledged_by"]

    def is_let_be() -> bool:
        done_with = {call for call, _ in dialler.worker.told} | set(dialler.worker.deleted)
        return {asked["call"] for _, _, asked in dialler.worker.placed} <= done_with

    wait_for(is_let_be, "Ann to be told, or not rung any more")


@ON_SQLITE
def test_when_nobody_takes_it_that_is_how_it_ends(dialler: Dialler) -> None:
    for number in (ANN, BOB):
        dialler.worker.endings[number] = [{"outcome": "machine_answered", "cause": "machine"}]
    id = wake(dialler)
    state = over(dialler, id)
    assert (state["acknowledged_by"], state["woken"]) == (None, 2)
    with pytest.raises(ClientError) as refused:
        dialler.ask("POST", f"/v1/escalations/{id}/acknowledge", {"by": "Ann"})
    assert refused.value.status == 409


@ON_SQLITE
def test_an_escalation_goes_on_after_the_diallers_death(dialler: Dialler) -> None:
    dialler.worker.lasts_s |= {ANN: 1.0, BOB: 30}
    id = wake(dialler)
    wait_for(lambda: f"{id}.0" in dialler.worker.calls, "Ann to be rung")
    dialler.kill()
    dialler.start()
    wait_for(lambda: f"{id}.1" in dialler.worker.calls, "Bob to be rung")
    dialler.worker.acknowledge(f"{id}.1")
    assert over(dialler, id)["acknowledged_by"] == "Bob"
    assert [number for _, number, _ in dialler.worker.placed] == [ANN, BOB]
    assert [word["contact"] for word in dialler.worker.webhook] == ["Ann", "Bob"]


@ON_SQLITE
def test_an_unknown_rota_is_told_by_name(dialler: Dialler) -> None:
    with pytest.raises(ClientError) as refused:
        wake(dialler, on_call="nobody")
    assert (refused.value.status, refused.value.cause) == (422, "unknown_on_call")
