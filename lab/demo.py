"""``make demo``: one call that does the main job on real signalling and real speech, and proves that it did.

A caller speaks; the agent greets, is interrupted in mid-sentence, answers, and puts the caller through to sales; caller and
sales hear each other. Whether each of these happened is read from the caller's RTP, the SIP and the call's record.
"""

import asyncio
import contextlib
import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import typer
from rich.console import Console
from rich.table import Table

from lab import hearing, softphone
from lab.capture import Capture, CaptureUnavailable
from lab.demo_checks import (
    Check,
    judge_announcement,
    judge_answer,
    judge_barge_in,
    judge_media,
    judge_record,
    judge_talk,
    silent_after,
)
from lab.demo_view import DemoView
from lab.hearing import Pcm
from lab.ladder import WireMessage, ladder_text
from lab.phone import Call
from lab.process import ProcessFailed
from lab.site import ROOT, NoFreeNetwork, Site
from lab.switches import NoFreeSwitch, SwitchKind, find_freeswitch
from lab.voice import VoiceError, speak
from lab.wav import write_stereo
from lab.world import World
from tandem.records import CallStory
from tandem.render import RenderError
from tandem.seam import LiveEvent, LiveEventKind
from tandem.settings import ConfigurationError

PREVENTED = (
    CaptureUnavailable,
    ConfigurationError,
    NoFreeNetwork,
    NoFreeSwitch,
    OSError,
    ProcessFailed,
    RenderError,
    TimeoutError,
    VoiceError,
)
"""What can keep the call from being placed; each says what to do about it."""
NUMBER = "+12025550100"
CALLER = "+12025550147"
SALES = "2001"
LISTEN_S = 6.5
"""How long the caller lets the agent greet before interrupting."""
QUESTION = "What are your opening hours?"
REQUEST = "Please put me through to sales."
SALES_SAYS = "Sales department, this is Robert. How can I help you?"
ORDER = "Hello Robert. I would like to order two large blue widgets, please."


class Sales:
    """The sales phone: rings, answers, says its line, and keeps what it heard."""

    def __init__(self, view: DemoView, voice: Pcm) -> None:
        self.call: Call | None = None
        self.rung = asyncio.Event()
        self.answered = asyncio.Event()
        self._view = view
        self._voice = voice

    async def on_invite(self, call: Call) -> None:
        if call.called != SALES:
            await call.reject(404)
            return
        self.call = call
        self.rung.set()
        await call.ringing()
        self._view.note("the sales phone rings")
        await asyncio.sleep(1.2)
        await call.answer()
        self.answered.set()
        await asyncio.sleep(0.6)
        self._view.says("sales", SALES_SAYS)
        await call.audio.play(self._voice)


class Story:
    """The call, step by step, with what was measured on the way."""

    def __init__(self, world: World, view: DemoView, *, patience_s: float) -> None:
        self._world = world
        self._view = view
        self._patience = patience_s
        self.checks: list[Check] = []
        self.measured: dict[str, float] = {}
        self.call: Call | None = None
        self.sales: Call | None = None
        self.record: CallStory | None = None

    async def run(self) -> None:
        question, request, order = (speak(text, "caller") for text in (QUESTION, REQUEST, ORDER))
        sales_voice = speak(SALES_SAYS, "sales")
        sales = Sales(self._view, sales_voice)
        self._world.pbx.on_invite = sales.on_invite

        self._view.note(f"{CALLER} calls {NUMBER}")
        call = self.call = await self._world.carrier.invite(NUMBER, proxy=self._world.site.edge, from_number=CALLER)
        await call.wait_answered(self._patience)
        await call.audio.wait_loud(self._patience)
        await asyncio.sleep(LISTEN_S)
        # Not in a pause: in mid-sentence.
        await call.audio.wait_loud(self._patience)

        interrupted = call.audio.now()
        self._view.says("caller", QUESTION)
        await call.audio.play(question)
        asked = call.audio.now()
        await call.audio.wait_loud(self._patience)
        answer_at = call.audio.now()
        await call.audio.wait_quiet(1200, self._patience)
        requested_at = call.audio.now()
        self.checks += judge_barge_in(call.audio.heard(), interrupted, asked)
        self.checks += judge_answer(call.audio.heard(), asked, requested_at)
        self._measure("caller speaks → agent silent", silent_after(call.audio.heard(), interrupted, asked))
        self._measure("caller done → agent answers", answer_at - asked)

        self._view.says("caller", REQUEST)
        await call.audio.play(request)
        requested = call.audio.now()
        await asyncio.wait_for(sales.rung.wait(), self._patience)
        self.checks += judge_announcement(call.audio.heard(), requested, call.audio.now())
        await asyncio.wait_for(sales.answered.wait(), self._patience)
        self.sales = sales.call
        assert self.sales is not None
        await self._until_heard(call, sales_voice)
        self._view.says("caller", ORDER)
        await call.audio.play(order)
        await self._until_heard(self.sales, order)
        self.checks += judge_talk(call.audio.heard(), self.sales.audio.heard(), sales_voice, order)
        workers = [worker.address for worker in self._world.settings.workers.values()]
        self.checks += judge_media([call.remote_media_address, self.sales.remote_media_address], workers)

        self._view.note("the caller hangs up")
        await call.hangup()
        end = await self.sales.wait_ended(self._patience)
        self.checks.append(Check("hang-up reached the sales phone", end.by == "peer", f"ended by {end.by}"))
        self.record = await self._world.record(lambda row: row.caller == CALLER)
        self.checks += judge_record(self.record)

    def _measure(self, what: str, seconds: float) -> None:
        self.measured[what] = round(seconds, 3)
        self._view.timing(what, f"{seconds * 1000:.0f} ms")

    async def _until_heard(self, call: Call, voice: Pcm) -> None:
        deadline = time.monotonic() + self._patience
        while hearing.likeness(call.audio.heard(), voice) < hearing.ALIKE and time.monotonic() < deadline:
            await asyncio.sleep(0.25)
        await call.audio.wait_quiet(900, self._patience)


async def watch(world: World, view: DemoView) -> None:
    """Show what the media planes tell, until cancelled."""
    await asyncio.gather(*(_watch(world, worker, view) for worker in world.site.workers))


async def _watch(world: World, worker: str, view: DemoView) -> None:
    url = f"http://{world.settings.workers[worker].loopback}:{world.settings.media_fork.http_port}/v1/events"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=None)) as http, http.get(url) as response:
        async for line in response.content:
            if line.startswith(b"data:"):
                _show(view, LiveEvent.model_validate_json(line[5:]))


def _show(view: DemoView, event: LiveEvent) -> None:
    match event.event:
        case LiveEventKind.AGENT_SAID:
            heard, length = event.data.get("heard_ms"), event.data.get("duration_ms")
            view.says("agent", f"{event.text} ✂ {heard} of {length} ms" if heard != length else event.text, event.at)
        case LiveEventKind.CALLER_SAID:
            view.note(f"the model heard: “{event.text}”", event.at)
        case LiveEventKind.BARGE_IN:
            view.timing("speech_started → killAudio", f"{event.data.get('cut_ms', 0)} ms")
            view.timing("truncated at", f"{event.data.get('heard_ms', 0)} ms heard")
        case LiveEventKind.TURN:
            view.timing("turn: speech end → first audio out", f"{event.data.get('response_ms', 0)} ms")
        case LiveEventKind.TOOL_CALL | LiveEventKind.TOOL_RESULT:
            view.note(f"{event.event.value.replace('_', ' ')}: {event.text}", event.at)
        case LiveEventKind.MODEL_LOST:
            view.note(f"the model is lost: {event.text}")


def _show_sip(view: DemoView, wire: WireMessage) -> None:
    """All but the edge's probing of its workers."""
    if wire.message is not None and not (wire.message.headers.get("CSeq") or "").endswith("OPTIONS"):
        view.sip(wire.source, wire.target, wire.label, wire.time)


@contextlib.asynccontextmanager
async def capturing(world: World, view: DemoView, file: Path) -> AsyncIterator[Capture]:
    capture = Capture(
        file,
        network=world.site.network,
        names=world.site.names,
        on_message=lambda message: _show_sip(view, message),
    )
    await capture.start()
    try:
        yield capture
    finally:
        await capture.stop()


def write_folder(folder: Path, story: Story, capture: Capture) -> None:
    """conversation.wav, ladder.txt, transcript.txt, timings.json, record.json (and sip.pcapng, written on the way)."""
    if story.call is not None:
        write_stereo(folder / "conversation.wav", story.call.audio.spoken(), story.call.audio.heard())
    calls = [wire for wire in capture.messages if "OPTIONS" not in wire.label]
    (folder / "ladder.txt").write_text(ladder_text(calls), encoding="utf-8")
    timings: dict[str, Any] = {"on_the_callers_rtp": story.measured}
    if story.record is not None:
        record = story.record.model_dump(mode="json")
        (folder / "record.json").write_text(json.dumps(record, indent=2), encoding="utf-8")
        timings["recorded"] = record["timings"]
        lines = [
            f"{turn.started_at - story.record.call.started_at:7.2f} {turn.who:<7} {turn.text}"
            + (f"   [cut off after {turn.heard_ms} ms]" if turn.interrupted else "")
            for turn in sorted(story.record.turns, key=lambda turn: turn.started_at)
        ]
        (folder / "transcript.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    (folder / "timings.json").write_text(json.dumps(timings, indent=2), encoding="utf-8")
    (folder / "checks.json").write_text(
        json.dumps([asdict(check) for check in story.checks], indent=2), encoding="utf-8"
    )


def left_running(world: World) -> list[str]:
    """Processes of the world that are still there: those whose command line names its folder or its addresses."""
    marks = [str(world.site.folder).encode(), world.site.address(0)[:-1].encode()]
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) not in _ancestors():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                if any(mark in command for mark in marks):
                    found.append(f"{entry.name}: {command.replace(bytes(1), b' ').decode(errors='replace')[:120]}")
    return found


def _ancestors() -> set[int]:
    """This process and those that started it, whose command lines may well name the folder."""
    pid, found = os.getpid(), set[int]()
    while pid > 0 and pid not in found:
        found.add(pid)
        pid = int((Path("/proc") / str(pid) / "stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])
    return found


async def demo(folder: Path, switch: SwitchKind, key: str, console: Console, keep: bool) -> int:
    site = Site(folder, openai_key=key, change=softphone.allow if keep else None)
    model = f"the model is {site.model_name} at {site.model_url}" if key else "the model is the lab's"
    title = f"Tandem demo: {switch_name(switch)}, {model}, record in {folder}"
    console.print(title, highlight=False)
    world = World(site, switch=switch, say=lambda line: console.print(line, style="dim"))
    story: Story
    async with world:
        with DemoView(console, title=title) as view:
            async with capturing(world, view, folder / "sip.pcapng") as capture:
                watching = asyncio.ensure_future(watch(world, view))
                story = Story(world, view, patience_s=40.0 if key else 20.0)
                try:
                    await story.run()
                except (TimeoutError, AssertionError, OSError) as error:
                    story.checks.append(Check("the story ran to its end", False, str(error) or type(error).__name__))
                finally:
                    watching.cancel()
                    with contextlib.suppress(asyncio.CancelledError, aiohttp.ClientError):
                        await watching
                    if story.call is not None:
                        await story.call.hangup()
            write_folder(folder, story, capture)
        if keep:
            await _stay(world, console)
    remaining = left_running(world)
    story.checks.append(
        Check("nothing is left running", not remaining, "; ".join(remaining) or "no process of the demo is there")
    )
    (folder / "checks.json").write_text(
        json.dumps([asdict(check) for check in story.checks], indent=2), encoding="utf-8"
    )
    return _report(folder, story, console)


def switch_name(switch: SwitchKind) -> str:
    if switch is SwitchKind.FREESWITCH:
        return f"the workers are FreeSWITCH ({find_freeswitch().prefix})"
    return "the workers are the lab's switch"


async def _stay(world: World, console: Console) -> None:
    host, port = world.site.edge
    console.print(
        f"\nStaying up. From a softphone on this machine, without registration, call [bold]sip:{NUMBER}@{host}:{port}[/bold]\n"
        f"  baresip: [bold]{shlex.join(softphone.baresip(NUMBER, world.site.edge))}[/bold]\n"
        f"  sales is extension {SALES} of the PBX at {world.pbx.address}; logs are in {world.site.folder / 'logs'}. Ctrl-C ends it.",
        highlight=False,
        soft_wrap=True,
    )
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await stop.wait()


def _report(folder: Path, story: Story, console: Console) -> int:
    table = Table(title="What really happened", title_justify="left")
    table.add_column("")
    table.add_column("check")
    table.add_column("measured", overflow="fold")
    for check in story.checks:
        table.add_row("[green]✔[/green]" if check.ok else "[red]✘[/red]", check.what, check.measured)
    console.print(table)
    for name in (
        "conversation.wav",
        "ladder.txt",
        "sip.pcapng",
        "transcript.txt",
        "timings.json",
        "record.json",
        "logs",
    ):
        if (folder / name).exists():
            console.print(f"  {folder / name}", highlight=False)
    failed = [check for check in story.checks if not check.ok]
    console.print(
        f"[red]{len(failed)} of {len(story.checks)} checks failed[/red]"
        if failed
        else "[green]all of it happened[/green]"
    )
    return 1 if failed else 0


def choose_switch(wanted: SwitchKind | None) -> SwitchKind:
    """The switch asked for, or FreeSWITCH where there is one, else the lab's. Raises NoFreeSwitch where it was asked for in vain."""
    if wanted is SwitchKind.FREESWITCH:
        find_freeswitch()
    if wanted is not None:
        return wanted
    try:
        find_freeswitch()
    except NoFreeSwitch:
        return SwitchKind.LAB
    return SwitchKind.FREESWITCH


def main(
    keep: Annotated[bool, typer.Option(help="Stay up afterwards, to be rung from a softphone.")] = False,
    switch: Annotated[SwitchKind | None, typer.Option(help="Which switch; FreeSWITCH if the machine has one.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for what the demo leaves.")] = None,
) -> None:
    """Place the demonstration call and check what happened."""
    console = Console()
    folder = (out or ROOT / "out" / f"demo-{datetime.now():%Y%m%d-%H%M%S}").resolve()
    if not shutil.which("kamailio"):
        sys.exit("tandem: kamailio is not installed; run: make setup")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        kind = choose_switch(switch)
        code = asyncio.run(demo(folder, kind, os.environ.get("OPENAI_API_KEY", ""), console, keep))
    except PREVENTED as error:
        sys.exit(f"tandem: {error}")
    except KeyboardInterrupt:
        code = 130
    sys.exit(code)


if __name__ == "__main__":
    typer.run(main)
