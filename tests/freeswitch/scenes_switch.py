"""Scenes: what the switch says of calls and of itself."""

import asyncio
import json
import re

from tests.freeswitch.story import Story, over, scene
from tests.lab.esl_client import PATIENCE_S
from tests.lab.switch_rig import NUMBER, Rig

VARYING = re.compile(
    r"variable_(rtp_(audio|use|auto|last|local|2833|secure|manual|adv)|sip_(via|reply|invite_stamp|full_via|allow|user_agent"
    r"|acl|auth|authorized|local_sdp|contact|looking|original|gateway|nat|session|recover)|switch_|media_webrtc|DP_|advertised|"
    r"zrtp|presence|rfc2822|start_|end_|answer_|profile_start|progress_stamp|original_|write_|read_|digits_|text_|video_|remote_)"
)
"""Header names that are not compared: statistics of RTP, times, and what Sofia says of its own configuration."""


@scene
async def header_names(rig: Rig, story: Story) -> None:
    """Which headers an inbound call's connect answer and its principal events have."""
    listener = await rig.listener()
    call, esl = await rig.answered(headers=[("X-Tandem-Call", "abc %41"), ("X-Tandem-Trunk", "carrier")])
    await call.hangup()
    await over(rig, story, listener, {"a": (esl.uuid, call)})
    for name in ("variable_sip_h_X-Tandem-Call", "variable_sip_call_id", "Channel-Name", "Caller-Caller-ID-Name"):
        story.tell("connect", f"{name}: {esl.info.get(name).replace(call.call_id, 'CALL-ID')}")
    wanted = ("CHANNEL_ANSWER", "CHANNEL_PARK", "CHANNEL_HANGUP_COMPLETE")
    events = {event.name: event for event in listener.events if event.get("Unique-ID") == esl.uuid}
    for what, message in [("connect", esl.info), *((name, events[name]) for name in wanted)]:
        for header in sorted(message.headers):
            if not VARYING.match(header):
                story.tell(f"{what}: headers", header)


@scene
async def switch_commands(rig: Rig, story: Story) -> None:
    """Pause, OPTIONS, hold, REFER from outside."""
    listener = await rig.listener()
    story.tell("OPTIONS", await rig.edge.options(rig.sip))
    story.tell("replies", await listener.api("fsctl pause"))
    story.tell("OPTIONS", await rig.edge.options(rig.sip))
    call = await rig.invite()
    await call.wait_ended(PATIENCE_S)
    story.sip("paused", call)
    story.tell("replies", await listener.api("fsctl resume"))
    call, esl = await rig.answered()
    row: dict[str, str] = {}
    async with asyncio.timeout(PATIENCE_S):
        while not row:
            # FreeSWITCH keeps the list in a database that it updates when it finds the time.
            rows = json.loads(await listener.api("show channels as json")).get("rows", [])
            row = next((row for row in rows if row["uuid"] == esl.uuid and row["callstate"] == "ACTIVE"), {})
    story.tell("show channels", sorted(row))
    story.tell("show channels", [row[name] for name in ("direction", "name", "state", "cid_num", "dest", "read_codec")])
    before = len(listener.events)
    await call.hold()
    await listener.event("CHANNEL_HOLD", after=before)
    await call.resume()
    await listener.event("CHANNEL_UNHOLD", after=before)
    referral = await call.refer("sip:2001@192.0.2.1")
    story.tell("REFER", referral.response_status)
    story.tell("INFO", (await call.info(b"Signal=5\r\nDuration=160\r\n", "application/dtmf-relay")).code)
    await call.hangup()
    await over(rig, story, listener, {"a": (esl.uuid, call)})


@scene
async def transfers(rig: Rig, story: Story) -> None:
    """uuid_transfer to an inline extension, uuid_park, and back to the controller."""
    listener = await rig.listener()
    call, esl = await rig.answered()
    before = len(listener.events)
    # FreeSWITCH shows the extension as the number dialled, for a moment.
    inline = story.name("set:x=1,park:", NUMBER)
    story.tell("replies", await esl.api(f"uuid_transfer {esl.uuid} '{inline}' inline"))
    await listener.event("CHANNEL_UNPARK", after=before)
    await listener.event("CHANNEL_PARK", after=before)
    before = len(listener.events)
    story.tell("replies", await listener.api(f"uuid_transfer {esl.uuid} again"))
    again = await rig.controller.next_call()
    story.tell("again", f"{again.uuid} {again.info['Caller-Destination-Number']} {again.info['Answer-State']}")
    await listener.event("CHANNEL_PARK", after=before)
    story.tell("replies", await listener.api(f"uuid_park {esl.uuid}"))
    await asyncio.sleep(0.2)
    await call.hangup()
    await over(rig, story, listener, {"a": (esl.uuid, call)})
