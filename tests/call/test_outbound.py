"""Calls that we place: who is called sees an approved number, people get the agent, machines the message, and nobody else."""

import asyncio

import pytest

from lab import hearing
from lab.phone import Call
from lab.voice import speak
from lab.wav import write_mono
from lab.world import World
from tandem.do_not_call import DoNotCall
from tandem.outcome import Answerer, Outcome
from tests.call.callee import APPROVED, BOB, PERSON, VOICEMAIL, Placed, ask, beep, says, still
from tests.call.caller import BRIEF_GREETING, GUARD, PATIENCE_S, until, until_heard

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def test_a_person_who_answers_has_the_agent_on_the_line(world: World) -> None:
    placed = await Placed.to(world, says("Hello?"))
    phone = await placed.phone()
    invite = phone.dialog.invite
    assert phone.called == PERSON
    assert f"sip:{APPROVED}@" in invite.headers["From"]
    assert "x-tandem" not in " ".join(invite.headers.keys()).lower()
    await until_heard(phone, speak(BRIEF_GREETING, "cedar"))
    # And it is a conversation.
    await phone.audio.wait_quiet(700, PATIENCE_S)
    since = phone.audio.now()
    await phone.audio.play(speak("What are your opening hours?", "caller"))
    await until(
        lambda: hearing.loud_seconds(phone.audio.heard(), since) > 1.0, "the agent's answer", timeout_s=PATIENCE_S
    )
    await phone.hangup()
    state = await placed.over()
    assert (state["outcome"], state["answered_by"], state["answer_rule"]) == ("callee_hung_up", "human", "brief_speech")
    story = await world.record(lambda row: row.id == placed.id)
    call = story.call
    assert (call.direction, call.caller, call.number) == ("out", APPROVED, PERSON)
    assert call.outcome is Outcome.CALLEE_HUNG_UP and call.answered_by is Answerer.HUMAN
    assert call.joined_ms is not None and call.detected_ms is not None and call.joined_ms < call.detected_ms
    assert [turn.who for turn in story.turns][:1] == ["agent"]


async def test_without_detection_the_agent_greets_at_once(world: World) -> None:
    placed = await Placed.to(world, says(), answer_detection=False)
    phone = await placed.phone()
    await until_heard(phone, speak(BRIEF_GREETING, "cedar"))
    status, _ = await ask(world, "DELETE", f"/v1/calls/{placed.id}")
    assert status == 202
    await phone.wait_ended(PATIENCE_S)
    state = await placed.over()
    assert (state["outcome"], state["cause"], state["answered_by"]) == ("agent_hung_up", "cancelled", None)


@pytest.mark.parametrize(
    ("status", "cause", "sip_status"), [(486, "busy", 486), (603, "rejected", 603), (404, "unreachable", 404)]
)
async def test_who_does_not_answer_is_told_by_cause(world: World, status: int, cause: str, sip_status: int) -> None:
    async def refuses(call: Call) -> None:
        await call.ringing()
        await call.reject(status)

    placed = await Placed.to(world, refuses)
    state = await placed.over()
    assert (state["outcome"], state["cause"], state["sip_status"]) == ("not_reached", cause, sip_status)


async def test_a_phone_that_rings_on_is_let_be_after_its_time(world: World) -> None:
    async def rings(call: Call) -> None:
        await call.ringing()

    placed = await Placed.to(world, rings, ring_seconds=5)
    phone = await placed.phone()
    await placed.until(state="ringing")
    state = await placed.over()
    assert (state["outcome"], state["cause"]) == ("not_reached", "no_answer")
    assert (await phone.wait_ended(PATIENCE_S)).cause == "cancel"
    await world.idle(PATIENCE_S)


async def test_a_call_is_called_off_while_it_rings(world: World) -> None:
    async def rings(call: Call) -> None:
        await call.ringing()

    placed = await Placed.to(world, rings)
    phone = await placed.phone()
    await placed.until(state="ringing")
    await ask(world, "DELETE", f"/v1/calls/{placed.id}")
    state = await placed.over()
    assert (state["outcome"], state["cause"]) == ("not_reached", "cancelled")
    assert (await phone.wait_ended(PATIENCE_S)).cause == "cancel"
    await world.idle(PATIENCE_S)


async def test_a_voicemail_gets_the_message_after_its_beep_and_nothing_else(world: World) -> None:
    message = speak("This is Widgets with a message for you, please call us back.", "sales")
    folder = world.settings.outbound.messages
    folder.mkdir(exist_ok=True)
    write_mono(folder / "callback.wav", message)
    placed = await Placed.to(world, says(*VOICEMAIL), on_machine="message", message="callback")
    phone = await placed.phone()
    await phone.wait_answered(PATIENCE_S)
    state = await placed.over()
    assert (state["outcome"], state["answered_by"], state["answer_rule"]) == ("message_left", "machine", "long_speech")
    await phone.wait_ended(PATIENCE_S)
    heard = phone.audio.heard()
    assert hearing.likeness(heard, message) > hearing.ALIKE, (hearing.spans(heard), len(message) / hearing.RATE)
    begins_s = hearing.spans(heard)[0].start
    # Greeting and beep are over by then.
    spoken = hearing.spans(phone.audio.spoken())
    assert begins_s >= spoken[-1].end - 0.05
    assert hearing.loud_seconds(heard) == pytest.approx(hearing.loud_seconds(message), abs=0.5)


async def test_a_machine_is_hung_up_on_where_nothing_else_is_wanted(world: World) -> None:
    placed = await Placed.to(world, says(still(0.2), beep(), still(3)))
    state = await placed.over()
    assert (state["outcome"], state["cause"], state["answer_rule"]) == ("machine_answered", "machine", "beep")
    assert hearing.loud_seconds((await placed.phone()).audio.heard()) == 0


async def test_a_fax_is_hung_up_on(world: World) -> None:
    placed = await Placed.to(world, says(beep(2100, 2500), still(2)), on_machine="agent")
    state = await placed.over()
    assert (state["outcome"], state["cause"], state["answer_rule"]) == ("machine_answered", "fax", "fax_tone")


async def test_without_a_model_nobody_is_rung(world: World) -> None:
    await world.model_faults(refuse=503)
    rung: list[Call] = []

    async def answers(call: Call) -> None:
        rung.append(call)

    placed = await Placed.to(world, answers)
    state = await placed.over()
    assert (state["outcome"], state["cause"]) == ("refused", "model_unavailable")
    assert rung == []


@pytest.mark.parametrize(
    ("asked", "status", "cause"),
    [
        ({"to": "911"}, 403, "emergency"),
        ({"to": "9911"}, 403, "emergency"),
        ({"to": "+1911"}, 403, "emergency"),
        ({"to": "112"}, 403, "emergency"),
        ({"to": "+19005550199"}, 403, "premium_number"),
        ({"to": "+442079460000"}, 403, "international_number"),
        ({"to": "+12025550101"}, 403, "own_number"),
        ({"to": "+12025550141,1=2"}, 403, "not_a_number"),
        ({"to": "+12025550141@evil.example"}, 403, "not_a_number"),
        ({"agent": "nobody"}, 422, "unknown_agent"),
        ({"trunk": "nowhere"}, 422, "unknown_trunk"),
        ({"caller_id": "+12025550199"}, 403, "caller_id_not_approved"),
        ({"tenant": "other"}, 403, "trunk_of_another_tenant"),
        ({"on_machine": "message", "message": "never-recorded"}, 422, "unknown_message"),
        ({"ring_seconds": 3600}, 422, "invalid"),
        ({"dial_string": "sofia/x"}, 422, "invalid"),
    ],
)
async def test_what_may_not_be_is_refused_by_name_and_nothing_rings(
    world: World, asked: dict[str, str], status: int, cause: str
) -> None:
    rung: list[Call] = []

    async def on_invite(call: Call) -> None:
        rung.append(call)

    world.carrier.on_invite = on_invite
    answer, reply = await ask(world, "POST", "/v1/calls", {"to": PERSON, "agent": "brief"} | asked)
    assert (answer, reply["error"]) == (status, cause), reply
    assert await ask(world, "GET", "/v1/calls") == (200, [])
    assert rung == []


async def test_a_number_on_the_do_not_call_list_is_not_called_but_by_those_on_call(world: World) -> None:
    with DoNotCall(world.settings.records.url) as list:
        list.add(PERSON, reason="asked us in May")
        try:
            status, reply = await ask(world, "POST", "/v1/calls", {"to": PERSON, "agent": "brief"})
            assert (status, reply["error"]) == (403, "do_not_call")
            assert "asked us in May" in reply["message"]
            placed = await Placed.to(world, says(), purpose="on_call", answer_detection=False)
            await (await placed.phone()).hangup()
            await placed.over()
        finally:
            assert list.remove(PERSON)


async def test_a_tenant_has_five_calls_at_a_time_and_each_id_one(world: World) -> None:
    async def rings(call: Call) -> None:
        await call.ringing()

    placed = [await Placed.to(world, rings, call=f"load-test-{number}") for number in range(5)]
    status, reply = await ask(world, "POST", "/v1/calls", {"to": PERSON, "agent": "brief"})
    assert (status, reply["error"]) == (429, "tenant_at_capacity")
    again = await ask(world, "POST", "/v1/calls", {"to": PERSON, "agent": "brief", "call": "load-test-0"})
    assert again[0] == 200 and again[1]["call"] == "load-test-0"
    await asyncio.gather(*(ask(world, "DELETE", f"/v1/calls/{one.id}") for one in placed))
    for one in placed:
        await one.over()


async def test_what_the_edge_refuses_by_a_cap_is_told_by_its_name(world: World) -> None:
    async def rings(call: Call) -> None:
        await call.ringing()

    first = await Placed.to(world, rings, number=GUARD)
    await first.until(state="ringing")
    second = await Placed.to(world, rings, number=GUARD)
    state = await second.over()
    assert (state["outcome"], state["cause"]) == ("refused", "too_many_calls")
    await ask(world, "DELETE", f"/v1/calls/{first.id}")
    await first.over()


async def test_a_person_acknowledges_by_voice_and_the_agent_speaks_of_what_it_is_told(world: World) -> None:
    placed = await Placed.to(world, says("Hello?"), acknowledge=True)
    phone = await placed.phone()
    await until_heard(phone, speak(BRIEF_GREETING, "cedar"))
    await phone.audio.wait_quiet(700, PATIENCE_S)
    await phone.audio.play(speak("I will take care of it.", "caller"))
    await placed.until(acknowledged="voice")
    status, _ = await ask(
        world,
        "POST",
        f"/v1/calls/{placed.id}/tell",
        {"text": "Bob has taken it. Tell them that it is theirs now, and hang up."},
    )
    assert status == 204
    state = await placed.over()
    assert state["outcome"] == "agent_hung_up"
    assert hearing.likeness(phone.audio.heard(), speak("It is yours now, thank you and good bye.", "cedar")) > 0.5


async def test_people_on_call_are_woken_in_turn_until_one_takes_it_by_key(world: World) -> None:
    phones: dict[str, Call] = {}

    async def on_invite(call: Call) -> None:
        phones[call.called] = call
        await call.ringing()
        if call.called == BOB:
            await call.answer()
            await call.audio.play(speak("Hello?", "sales"))

    world.carrier.on_invite = on_invite
    if "dialler" not in world.processes:
        await world.start_process("dialler")
    alert = {"on_call": "night", "text": "The database is down."}
    status, reply = await ask(world, "POST", "/v1/escalations", alert, of="dialler")
    assert status == 202, reply
    await until(lambda: BOB in phones, "the second to be rung")
    # The first still rings beside the second.
    assert phones[PERSON].end is None
    await until_heard(phones[BOB], speak(BRIEF_GREETING, "cedar"))
    await phones[BOB].dtmf("1")
    await until_heard(phones[BOB], speak("It is yours now, thank you and good bye.", "cedar"))
    await phones[BOB].wait_ended(PATIENCE_S)
    assert (await phones[PERSON].wait_ended(PATIENCE_S)).cause == "cancel"
    state: dict[str, object] = {}

    async def over() -> bool:
        state.update((await ask(world, "GET", f"/v1/escalations/{reply['id']}", of="dialler"))[1])
        return state["state"] == "over"

    await world.until(over, PATIENCE_S, "the escalation to be over")
    assert state["acknowledged_by"] == "Bob"


async def test_esl_app_dies_while_it_rings_and_who_answers_is_not_kept_on_a_dead_line(world: World) -> None:
    pick_up = asyncio.Event()

    async def answers(call: Call) -> None:
        await call.ringing()
        await pick_up.wait()
        await call.answer()

    placed = await Placed.to(world, answers, answer_detection=False)
    phone = await placed.phone()
    await placed.until(state="ringing")

    async def on_record() -> bool:
        return world.records().call(placed.id) is not None

    await world.until(on_record, PATIENCE_S, "the call to be on record")
    await world.kill("esl_app@worker-1")
    pick_up.set()
    await phone.wait_ended(PATIENCE_S)
    await world.start_process("esl_app@worker-1")
    story = await world.record(lambda row: row.id == placed.id)
    assert story.call.outcome is Outcome.CONTROLLER_LOST
    again = {"to": PERSON, "agent": "brief", "call": placed.id}
    status, reply = await ask(world, "POST", "/v1/calls", again)
    assert (status, reply["error"]) == (409, "already_placed")
