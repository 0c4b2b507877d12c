"""Scenes: REFER."""

import asyncio

from lab.phone import Call
from lab.transferee import answers, reports
from tests.freeswitch.story import Story, over, scene
from tests.lab.esl_client import PATIENCE_S, EventSocket
from tests.lab.switch_rig import Rig


@scene
async def deflects(rig: Rig, story: Story) -> None:
    """``deflect``: the call ends whatever becomes of it; where nothing does, after its ten seconds."""
    listener = await rig.listener()
    calls: dict[str, tuple[str, Call]] = {}
    for label, handler in (
        ("200", reports(100, 200)),
        ("486", reports(100, 486)),
        ("100 only", reports(100, terminates=False)),
        ("refused", answers(603)),
    ):
        call, esl = await rig.answered()
        call.handlers["REFER"] = handler
        await esl.execute("deflect", "sip:2001@192.0.2.1")
        calls[f"a {label}"] = (esl.uuid, call)
    await over(rig, story, listener, calls)
    for label, (identity, _) in calls.items():
        for notice in listener.events:
            if notice.name == "sofia::notify_refer" and notice.get("UniqueID") == identity:
                story.tell(f"{label}: headers", sorted(set(notice.headers)))


@scene
async def deflects_and_continues(rig: Rig, story: Story) -> None:
    """uuid_deflect with sip_refer_continue_after_reply: refused, reported, and the ghost that stays after the BYE."""
    listener = await rig.listener()
    for label, handler in (
        ("603", answers(603)),
        ("active 486", reports(100, 486, terminates=False)),
        ("terminated 486", reports(100, 486)),
        ("terminated 200", reports(180, 200)),
    ):
        call, esl = await rig.answered()
        call.handlers["REFER"] = handler
        await esl.api(f"uuid_setvar {esl.uuid} sip_refer_continue_after_reply true")
        story.tell("replies", await esl.api(f"uuid_deflect {esl.uuid} sip:2001@192.0.2.1"))
        if label == "603":
            story.tell("status", await final_status(esl, "sip_refer_status_code"))
        else:
            await listener.event("sofia::notify_refer", UniqueID=esl.uuid, subscription_substate="active")
            story.tell("status", await final_status(esl, "sip_refer_target_status_code"))
        if label.startswith("terminated"):
            await call.wait_ended(PATIENCE_S)
            story.tell("ghost", await esl.api(f"uuid_exists {esl.uuid}"))
            story.tell("ghost", await esl.api(f"uuid_kill {esl.uuid}"))
        else:
            await asyncio.sleep(0.3)
            story.tell("alive", await esl.api(f"uuid_exists {esl.uuid}"))
            await call.hangup()
        await over(rig, story, listener, {f"a {label}": (esl.uuid, call)})


async def final_status(esl: EventSocket, name: str) -> str:
    """A variable with a SIP status, once it is a final one."""
    async with asyncio.timeout(PATIENCE_S):
        while not (status := await esl.api(f"uuid_getvar {esl.uuid} {name}")).isdigit() or int(status) < 200:
            await asyncio.sleep(0.02)
    return status
