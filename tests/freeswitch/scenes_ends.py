"""Scenes: how calls begin and end."""

import asyncio

from tests.freeswitch.story import Story, over, scene
from tests.lab.esl_client import PATIENCE_S
from tests.lab.switch_rig import Rig

REFUSALS = (
    ("hangup", "USER_BUSY"),
    ("hangup", "CALL_REJECTED"),
    ("hangup", "NO_ANSWER"),
    ("hangup", "UNALLOCATED_NUMBER"),
    ("hangup", "NORMAL_TEMPORARY_FAILURE"),
    ("hangup", "NORMAL_CLEARING"),
    ("respond", "503 Service Unavailable"),
    ("respond", "486"),
    ("respond", "603 Decline"),
    ("redirect", "sip:elsewhere@192.0.2.1"),
)


@scene
async def refusals(rig: Rig, story: Story) -> None:
    """Calls that are refused before they are answered."""
    listener = await rig.listener()
    for number, (application, argument) in enumerate(REFUSALS):
        call, esl = await rig.call()
        story.name(esl.uuid, f"a{number}")
        await esl.execute(application, argument)
        await over(rig, story, listener, {f"a{number} {application} {argument}": (esl.uuid, call)})


@scene
async def ringing(rig: Rig, story: Story) -> None:
    """180, 183 and 200 in turn; then a BYE from the caller, with linger."""
    listener = await rig.listener()
    call, esl = await rig.call()
    for command in ("linger 1", "myevents", "divine", "getvar sip_call_id"):
        story.tell("replies", (await esl.send(command)).replace(call.call_id, "CALL-ID"))
    await esl.run("ring_ready")
    await esl.run("pre_answer")
    await esl.run("answer")
    await call.wait_answered(PATIENCE_S)
    await call.hangup(headers=[("Reason", 'Q.850;cause=16;text="Terminated"')])
    await esl.closed.wait()
    story.tell("notices", [f"{notice.head.decode()!r} {notice.body!r}" for notice in esl.notices])
    await over(rig, story, listener, {"a": (esl.uuid, call)})


@scene
async def kills(rig: Rig, story: Story) -> None:
    """uuid_kill of answered calls: the cause goes into the BYE's Reason."""
    listener = await rig.listener()
    for number, cause in enumerate(
        ("NORMAL_CLEARING", "USER_BUSY", "MEDIA_TIMEOUT", "ALLOTTED_TIMEOUT", "NONSENSE", "LOSE_RACE")
    ):
        call, esl = await rig.answered()
        story.tell("replies", await esl.api(f"uuid_kill {esl.uuid} {cause}"))
        await over(rig, story, listener, {f"a{number} {cause}": (esl.uuid, call)})


@scene
async def cancelled(rig: Rig, story: Story) -> None:
    """The caller gives up while it rings."""
    listener = await rig.listener()
    call, esl = await rig.call()
    await esl.execute("ring_ready", event_lock="true")
    await call.wait_ringing(PATIENCE_S)
    await call.cancel()
    await over(rig, story, listener, {"a": (esl.uuid, call)})


@scene
async def controller_lost(rig: Rig, story: Story) -> None:
    """The controller closes its socket: without connecting, before the answer; and there is none."""
    listener = await rig.listener()
    rig.controller.connects = False
    call = await rig.invite()
    esl = await rig.controller.next_call()
    esl.close()
    created = await listener.event("CHANNEL_CREATE")
    await over(rig, story, listener, {"unconnected": (created["Unique-ID"], call)})
    rig.controller.connects = True
    call, esl = await rig.call()
    await listener.event("CHANNEL_PARK", Unique_ID=esl.uuid)
    esl.close()
    await over(rig, story, listener, {"unanswered": (esl.uuid, call)})
    rig.controller.refuse()
    before = len(listener.events)
    call = await rig.invite()
    created = await listener.event("CHANNEL_CREATE", after=before)
    await over(rig, story, listener, {"no controller": (created["Unique-ID"], call)})
    await rig.controller.start()


@scene
async def adrift(rig: Rig, story: Story) -> None:
    """The controller of an answered call closes its socket: the fork goes on, another controller takes the call and is lost
    too.
    """
    listener = await rig.listener()
    call, esl = await rig.answered()
    fork = await rig.fork(esl)
    before = len(listener.events)
    esl.close()
    await listener.event("CHANNEL_PARK", after=before, Unique_ID=esl.uuid)
    await fork.heard(0.2)
    commands = await rig.event_socket()
    for variable in ("tandem_answered", "tandem_adrift"):
        story.tell("replies", await commands.api(f"uuid_getvar {esl.uuid} {variable}"))
    story.tell("replies", await commands.api(f"uuid_transfer {esl.uuid} controller XML tandem"))
    another = await rig.controller.next_call()
    assert another.uuid == esl.uuid
    await listener.event("CHANNEL_EXECUTE", after=before, Unique_ID=esl.uuid, Application="socket")
    for name in ("Answer-State", "variable_tandem_answered", "variable_tandem_adrift"):
        story.tell("connect", f"{name}: {another.info.get(name)}")
    story.tell("replies", await another.api(f"uuid_audio_fork {esl.uuid} send_text audio_fork once-more"))
    await fork.heard(0.2)
    story.tell("replies", await another.api(f"uuid_getvar {esl.uuid} park_timeout"))
    before = len(listener.events)
    another.close()
    await listener.event("CHANNEL_PARK", after=before, Unique_ID=esl.uuid)
    story.tell("replies", await commands.api(f"uuid_kill {esl.uuid}"))
    await over(rig, story, listener, {"a": (esl.uuid, call)})
    await asyncio.wait_for(fork.closed.wait(), PATIENCE_S)
    story.tell("fork", fork.texts)


OFFERS = {
    "PCMA": (8, "PCMA/8000"),
    "G729": (18, "G729/8000"),
}


@scene
async def offers(rig: Rig, story: Story) -> None:
    """A-law; a codec that is not ours, answered and pre-answered; no offer; an offer that is none."""
    listener = await rig.listener()
    host = rig.edge.address
    bodies = {
        label: (
            f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
            f"m=audio 40000 RTP/AVP {number}\r\na=rtpmap:{number} {name}\r\n"
        ).encode()
        for label, (number, name) in OFFERS.items()
    } | {"none": b"", "garbage": b"hello\r\n"}
    for label, body in bodies.items():
        before = len(listener.events)
        call = await rig.invite(body=body)
        if label in OFFERS:
            esl = await rig.controller.next_call()
            await esl.execute("answer")
            if label == "PCMA":
                await call.wait_answered(PATIENCE_S)
                await call.hangup()
        await call.wait_ended(PATIENCE_S)
        created = [event for event in listener.events[before:] if event.name == "CHANNEL_CREATE"]
        if created:
            await over(rig, story, listener, {f"a {label}": (created[0]["Unique-ID"], call)})
        else:
            story.sip(f"a {label}", call)
