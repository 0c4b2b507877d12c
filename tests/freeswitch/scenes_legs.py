"""Scenes: two legs: originate, bridge, transfers."""

import asyncio
import re
import uuid

from lab.phone import Call
from tests.freeswitch.story import TONE, Story, over, scene
from tests.lab.esl_client import PATIENCE_S, EventSocket
from tests.lab.switch_rig import Rig


async def originate(rig: Rig, esl: EventSocket, **variables: str) -> tuple[str, str]:
    """A leg's UUID and the reply."""
    identity = str(uuid.uuid4())
    wanted = {
        "origination_uuid": identity,
        "origination_caller_id_number": "+12025550100",
        "origination_caller_id_name": "Tandem",
        "ignore_early_media": "true",
        "sip_h_X-Tandem-Trunk": "pbx",
    } | variables
    return identity, await esl.api(f"originate {rig.dial_string(**wanted)} &park()")


@scene
async def originate_fails(rig: Rig, story: Story) -> None:
    """Refused for many reasons, and impossible destinations."""
    listener = await rig.listener()
    socket = await rig.event_socket()
    called: list[Call] = []

    for status, headers in (
        (486, ()),
        (486, (("Reason", 'Q.850;cause=21;text="CALL_REJECTED"'),)),
        (404, ()),
        (480, ()),
        (503, ()),
        (603, ()),
        (403, ()),
        (503, (("X-Tandem-Refused", "too_many_calls"),)),
        (408, ()),
    ):

        async def refuse(call: Call, status: int = status, headers: tuple = headers) -> None:
            called.append(call)
            await call.ringing()
            await call.reject(status, headers=headers)

        rig.edge.on_invite = refuse
        identity, reply = await originate(rig, socket)
        story.tell("replies", reply)
        await over(rig, story, listener, {f"b {status}{headers}": (identity, called[-1])})
    call = called[0]
    for name in ("X-Tandem-Trunk", "From", "P-Asserted-Identity", "Remote-Party-ID", "Max-Forwards"):
        value = re.sub(r"tag=\w+", "tag=T", call.header(name) or "")
        story.tell("INVITE", f"{name}: {value}")
    for target in ("user/2001", "sofia/nobody/sip:2001@127.0.0.1", "sofia/tandem", "nonsense"):
        story.tell("replies", await socket.api(f"originate {target} &park()"))
    for command in (
        "originate",
        "uuid_kill",
        "uuid_kill 1",
        "uuid_bridge",
        "uuid_exists 1",
        "uuid_getvar 1 x",
        "nonsense",
    ):
        story.tell("replies", await socket.api(command))


@scene
async def originate_unanswered(rig: Rig, story: Story) -> None:
    """A ringing leg is killed, and one is given up by ``originate`` itself."""
    listener = await rig.listener()
    called: list[Call] = []

    async def ring(call: Call) -> None:
        called.append(call)
        await call.ringing()

    rig.edge.on_invite = ring
    identity, job = story.name(str(uuid.uuid4()), "b"), story.name(str(uuid.uuid4()), "JOB")
    command = f"bgapi originate {rig.dial_string(origination_uuid=identity)} &park()"
    story.tell("replies", await listener.send(f"{command}\nJob-UUID: {job}"))
    await listener.event("CHANNEL_PROGRESS", Unique_ID=identity)
    story.tell("replies", await listener.api(f"uuid_kill {identity} NO_ANSWER"))
    over_event = await listener.event("BACKGROUND_JOB", Job_UUID=job)
    story.tell("job", f"{over_event['Job-Command']} {over_event['Job-Command-Arg']} {over_event.body}")
    await over(rig, story, listener, {"b": (identity, called[0])})
    # FreeSWITCH says PROGRESS_TIMEOUT now and then, although it rings.
    identity, reply = await originate(rig, listener, originate_timeout="2")
    story.tell("given up", reply in ("-ERR NO_ANSWER\n", "-ERR PROGRESS_TIMEOUT\n"))
    story.tell("given up", (await called[1].wait_ended(PATIENCE_S)).cause)
    identity = str(uuid.uuid4())
    await listener.send(f"bgapi originate {rig.dial_string(origination_uuid=identity)} &park()")
    await listener.event("CHANNEL_PROGRESS", Unique_ID=identity)
    await listener.api(f"uuid_kill {identity} LOSE_RACE")
    story.tell("another was quicker", (await called[2].wait_ended(PATIENCE_S)).reason_header)


ENDS = ("caller", "callee", "callee, hangup_after_bridge", "killed caller", "killed callee", "park_after_bridge")


@scene
async def bridge(rig: Rig, story: Story) -> None:
    """A leg is dialled, answered, and bridged to the caller; DTMF and sound pass; then one of them leaves."""
    listener = await rig.listener()
    for number, end in enumerate(ENDS):
        called: list[Call] = []

        async def pick_up(call: Call, called: list[Call] = called) -> None:
            called.append(call)
            await call.ringing()
            await call.answer()

        rig.edge.on_invite = pick_up
        call, esl = await rig.answered()
        identity, reply = await originate(rig, esl)
        b = called[0]
        story.name(identity, f"b{number}")
        story.tell("replies", reply)
        if end == "callee, hangup_after_bridge":
            await esl.api(f"uuid_setvar {esl.uuid} hangup_after_bridge true")
        if end == "park_after_bridge":
            await esl.api(f"uuid_setvar {esl.uuid} park_after_bridge true")
        before = len(listener.events)
        story.tell("replies", await esl.api(f"uuid_bridge {esl.uuid} {identity}"))
        await listener.event("CHANNEL_BRIDGE", after=before)
        b.audio.play(TONE)
        call.audio.play(TONE)
        await asyncio.gather(call.audio.wait_loud(PATIENCE_S), b.audio.wait_loud(PATIENCE_S))
        await call.dtmf("7")
        await b.audio.wait_digits("7", PATIENCE_S)
        match end:
            case "caller":
                await call.hangup()
            case "killed caller":
                await esl.api(f"uuid_kill {esl.uuid}")
            case "killed callee":
                await esl.api(f"uuid_kill {identity} USER_BUSY")
            case _:
                await b.hangup()
        if end in ("callee", "killed callee", "park_after_bridge"):
            await listener.event("CHANNEL_PARK", after=before, Unique_ID=esl.uuid)
            await esl.api(f"uuid_kill {esl.uuid}")
        await over(rig, story, listener, {f"a{number} {end}": (esl.uuid, call), f"b{number} {end}": (identity, b)})


@scene
async def bridge_application(rig: Rig, story: Story) -> None:
    """The ``bridge`` application: answered, and refused as busy."""
    listener = await rig.listener()
    called: list[Call] = []

    async def on_invite(call: Call) -> None:
        called.append(call)
        await call.ringing()
        if call.called == "2001":
            await call.answer()
        else:
            await asyncio.sleep(0.3)
            await call.reject(486)

    rig.edge.on_invite = on_invite
    for label, number, answer in (
        ("answered", "2001", True),
        ("busy", "2002", True),
        ("busy unanswered", "2002", False),
    ):
        called.clear()
        before = len(listener.events)
        call, esl = await (rig.answered() if answer else rig.call())
        await esl.execute("bridge", rig.dial_string(number, ignore_early_media="true"))
        if number == "2001":
            await listener.event("CHANNEL_BRIDGE", after=before)
            await called[0].hangup()
        await listener.event("CHANNEL_EXECUTE_COMPLETE", after=before, Application="bridge")
        story.tell("replies", await listener.api(f"uuid_kill {esl.uuid}"))
        out = await listener.event("CHANNEL_OUTGOING", after=before)
        await over(rig, story, listener, {f"a {label}": (esl.uuid, call), f"b {label}": (out["Unique-ID"], called[0])})
