"""Plays a scenario: its steps, row by row, and what everybody must have seen at the end of each."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tests.edge import checks
from tests.edge import scenario as form
from tests.edge.endpoints import PATIENCE_S, SDP, Calling, Endpoint, callee_dialog, caller_dialog
from tests.edge.message import Message, reply
from tests.edge.row import Call, Row, Unmet, kind
from tests.edge.stage import Stage

_TAIL = 40
Result = TypeVar("Result")


class Failed(AssertionError):
    """A scenario that did not go as it says; the message is all that is known of it."""


def play(scenario: form.Scenario, folder: Path, *, sources: Path | None = None, patience_s: float = PATIENCE_S) -> None:
    """Play a scenario with everything it needs in ``folder``. Raises Failed or ScenarioError.

    ``sources`` are *.cfg files to take the place of the rendered ones; ``patience_s`` is waited for what must come.
    """
    stage = Stage(scenario, folder, sources=sources)
    try:
        Player(stage, patience_s).play()
    finally:
        stage.close()


class Player:
    """Has a method for each verb: ``do_VERB``."""

    def __init__(self, stage: Stage, patience_s: float) -> None:
        self.stage, self.scenario = stage, stage.scenario
        self._patience_s = patience_s
        self._step = "before the first step"
        self._row: Row
        self._counters: dict[tuple[str, str], float] = {}

    def play(self) -> None:
        edge = self.stage.edge
        try:
            self.stage.start()
            for number, (row, play) in enumerate(self.scenario.plays):
                self._play_row(row, play, number)
            edge.stop()
        except (Unmet, AssertionError) as error:
            raise Failed(self._report(str(error))) from error
        except (OSError, KeyError) as error:
            raise Failed(self._report(f"{type(error).__name__}: {error}")) from error
        if unexpected := edge.unexpected_errors():
            what = "Kamailio logged errors that the scenario does not expect:\n"
            raise Failed(self._report(what + "\n".join(unexpected)))

    def _play_row(self, row: dict[str, Any], play: form.Play, number: int) -> None:
        self._row = Row(self.stage)
        if any(step.metric or (step.until and step.until.metric) for step in play.steps):
            self._counters = self.stage.edge.counters()
        shown = f" of row {number + 1} {row}" if row else ""
        for index, step in enumerate(play.steps):
            self._step = f"step {index + 1}{shown}: {step.model_dump_json(by_alias=True, exclude_unset=True)}"
            getattr(self, f"do_{step.verb}")(getattr(step, step.verb))
        self._step = f"what everybody has seen{shown}"
        self._soon(lambda: self._check_seen(play))
        self.stage.settle()
        self._check_seen(play)

    def _soon(self, check: Callable[[], Result]) -> Result:
        """The result of ``check`` once it raises Unmet no longer."""
        deadline = time.monotonic() + self._patience_s
        while True:
            try:
                return check()
            except Unmet:
                if time.monotonic() > deadline:
                    raise
            time.sleep(0.003)

    # Messages

    def do_send(self, send: form.Send) -> None:
        phone = self._row.party(send.from_)
        for number in range(send.times):
            label = send.call if number == 0 else f"{send.call} {number + 1}"
            if send.raw is not None:
                self._send_raw(send.raw, send.over or "udp", phone, label)
            elif send.again:
                self._placed(label).retransmit()
            elif send.within is not None:
                self._send_within(send, phone)
            else:
                self._send_request(send, phone, label)

    def _send_raw(self, file: str, over: str, phone: Endpoint, label: str) -> None:
        text = (self.scenario.folder / file).read_bytes().decode("utf-8", "surrogateescape")
        data = self._row.text(text).encode("utf-8", "surrogateescape")
        message = phone.send(data, self.stage.edge_at(over), over)
        self._row.calls.setdefault(label, Call(message.call_id))

    def _send_within(self, send: form.Send, phone: Endpoint) -> None:
        sides = self._row.dialog(send.within or "")
        side = next((dialog for dialog in sides if dialog.phone is phone), sides[0])
        body, content_type = self._body(send)
        side.send(
            send.method or "",
            headers=self._row.headers(send.headers),
            body=body,
            content_type=content_type,
            without=send.without,
            target=self._row.text(send.uri) if send.uri is not None else None,
            phone=phone,
        )

    def _send_request(self, send: form.Send, phone: Endpoint, label: str) -> None:
        method = send.method or ""
        if label not in self._row.calls:
            if send.uri is None:
                raise self._row.error(f"{method}: call {label} was not placed")
            over = send.over or "udp"
            at, uri, caller = self.stage.edge_at(over), self._row.text(send.uri), self._row.text(send.caller)
            calling = Calling(phone, at, uri, caller, over)
            self._row.calls[label] = Call(calling.call_id, calling)
        elif method not in ("CANCEL", "ACK"):
            raise self._row.error(f"call {label} was placed before")
        body, content_type = self._body(send)
        sent = self._placed(label).send(
            method,
            headers=self._row.headers(send.headers),
            body=body,
            content_type=content_type,
            without=send.without,
        )
        self._row.calls[label].call_id = sent.call_id

    def _placed(self, label: str) -> Calling:
        calling = self._row.call(label).calling
        if calling is None:
            raise self._row.error(f"call {label}: it was sent as raw bytes")
        return calling

    def _body(self, send: form.Send) -> tuple[bytes, str]:
        return self._row.body(send.body or ("sdp" if send.method == "INVITE" else "none"))

    def do_receive(self, receive: form.Receive) -> None:
        name, message = self._soon(lambda: self._find(receive))
        if receive.at == "any worker" and name not in self._row.takers:
            self._row.takers.append(name)
        if receive.as_:
            self._row.labelled[receive.as_] = (name, message)
        checks.message(self._row, receive, name, message)

    def _find(self, receive: form.Receive) -> tuple[str, Message]:
        names = self.stage.workers if receive.at == "any worker" else [self._row.name(receive.at)]
        wanted = receive.request or receive.reply or ""
        call_id = self._row.call(receive.call).call_id if receive.call is not None else None
        for name in names:
            try:
                return name, self._row.take(name, wanted, call_id, receive.to)
            except Unmet:
                continue
        raise Unmet(f"{receive.at} did not receive {wanted}")

    def do_reply(self, step: form.Reply) -> None:
        name, request = self._row.message(step.to)
        body, content_type = self._row.body(step.body)
        headers = [*self._row.headers(step.headers), *([("Content-Type", content_type)] if content_type else [])]
        if step.from_ is None:
            self.stage.parties[name].reply(request, step.status, step.phrase, headers=headers, body=body)
            return
        phone = self._row.party(step.from_)
        phone.send(
            reply(request, step.status, step.phrase, headers=headers, body=body, contact=phone.host), request.peer
        )

    def do_answer(self, step: form.Answer) -> None:
        name, request = self._row.message(step.to)
        call = next((call for call in self._row.calls.values() if call.call_id == request.call_id), None)
        if call is None or call.calling is None:
            raise self._row.error(f"{step.to} is of no call that a step placed")
        callee, caller, call_id = self.stage.parties[name], self._row.name_of(call.calling.phone), call.call_id
        headers = [*self._row.headers(step.headers), ("Content-Type", "application/sdp")]
        callee.reply(request, 200, headers=headers, body=SDP)
        answer = self._soon(lambda: self._row.take(caller, 200, call_id))
        call.near = caller_dialog(call.calling, answer)
        call.near.send("ACK")
        call.far = callee_dialog(callee, self.stage.edge_at(request.over), request)
        self._soon(lambda: self._row.take(name, "ACK", call_id))

    def do_hangup(self, step: form.Hangup) -> None:
        near, far = self._row.dialog(step.call)
        side, other = (near, far) if near.phone is self._row.party(step.from_) else (far, near)
        side.send("BYE")
        bye = self._soon(lambda: self._row.take(self._row.name_of(other.phone), "BYE", side.call_id))
        other.phone.reply(bye, 200)
        self._soon(lambda: self._row.take(self._row.name_of(side.phone), 200, side.call_id, "BYE"))

    # What is looked at

    def do_rpc(self, step: form.Rpc) -> None:
        checks.rpc(self._row, step)

    def do_metric(self, step: form.Metric) -> None:
        self.stage.settle()
        self._soon(lambda: checks.metric(self._row, step, self._counters))

    def do_log(self, step: form.Log) -> None:
        self.stage.settle()
        if step.lacks is not None:
            checks.log(self._row, step)
        else:
            self._soon(lambda: checks.log(self._row, step))

    def do_target(self, step: form.Target) -> None:
        self.stage.settle()
        self._soon(lambda: checks.target(self._row, step))

    def do_media(self, step: form.Media) -> None:
        self._soon(lambda: checks.media(self._row, step))

    def do_copies(self, step: form.Copies) -> None:
        self.stage.settle()
        checks.copies(self._row, step)

    def do_until(self, step: form.Until) -> None:
        if step.rpc is not None:
            asked = step.rpc
            self._soon(lambda: checks.rpc(self._row, asked))
        for verb in ("metric", "log", "target"):
            if (wanted := getattr(step, verb)) is not None:
                getattr(self, f"do_{verb}")(wanted)

    # The world

    def do_open(self, name: str) -> None:
        if name in self.stage.engines:
            self.stage.engines[name].start()
            return
        self._row.party(name).transport.open()

    def do_close(self, name: str) -> None:
        if name in self.stage.engines:
            self.stage.engines[name].kill()
            return
        self._row.party(name).transport.close()

    def do_options(self, step: form.Options) -> None:
        self._row.party(step.of).options_status = step.status

    def do_wait(self, step: form.Wait) -> None:
        time.sleep(step.seconds)

    def do_render(self, step: form.Render) -> None:
        self.stage.change_site(step.site)

    def do_edge(self, what: str) -> None:
        if what in ("stop", "restart"):
            self.stage.edge.stop()
        if what in ("start", "restart"):
            self.stage.start()

    # The end

    def _check_seen(self, play: form.Play) -> None:
        wanted = self._wanted(play)
        wrong = []
        for name in self.stage.parties:
            kinds = [kind(message) for message in self._row.arrived(name)]
            if kinds != wanted.get(name, []):
                wrong.append(f"{name} has seen {kinds}, expected {wanted.get(name, [])}")
        if wrong:
            raise Unmet("\n".join(wrong))

    def _wanted(self, play: form.Play) -> dict[str, list[form.Entry]]:
        wanted = {}
        for name, entries in play.seen.items():
            own = name
            if name == "worker" and not self._row.takers:
                busy = [worker for worker in self.stage.workers if self._row.arrived(worker)]
                if len(busy) != 1:
                    raise Unmet(f"{busy or 'no workers'} have seen something: there is no one worker")
                own = busy[0]
            wanted[self._row.name(own)] = entries
        return wanted

    def _report(self, what: str) -> str:
        started = hasattr(self, "_row")
        return "\n".join(
            [
                f"rule: {self.scenario.document.rule}",
                str(self.scenario.file),
                self._step,
                "",
                what,
                "",
                "messages:",
                *(self._ladder() if started else ()),
                "",
                "end of Kamailio's log:",
                *self.stage.log_from(self._row.log_begin if started else 0)[-_TAIL:],
            ]
        )

    def _ladder(self) -> list[str]:
        labels = {call.call_id: label for label, call in self._row.calls.items()}
        rows = []
        for name, endpoint in self.stage.parties.items():
            rows += [(message, f"{name} →") for message in endpoint.sent if message.at >= self._row.began]
            rows += [(message, f"{name} ←") for message in endpoint.seen if message.at >= self._row.began]
        return [
            f"  {message.at - self._row.began:7.3f} {party:15} {message.over:4}{message.start[:100]}  "
            f"({message['CSeq']}, call {labels.get(message.call_id, message.call_id)})"
            for message, party in sorted(rows, key=lambda row: row[0].at)
        ]
