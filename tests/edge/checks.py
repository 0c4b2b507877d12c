"""What a scenario looks at: a message, counters, the dispatcher, the log, the answer to an RPC. Each raises Unmet."""

import json
import re

from lab.message import REASONS
from tests.edge import scenario as form
from tests.edge import trace
from tests.edge.message import Message
from tests.edge.row import Row, Unmet

PHRASES = {**REASONS, 416: "Unsupported URI Scheme", 513: "Message Too Large"}
"""RFC 3261 section 21. What the edge answers by itself must have them."""


def message(row: Row, receive: form.Receive, name: str, message: Message) -> None:
    wrong = list(_faults(row, receive, message))
    if wrong:
        head = message.raw.decode("utf-8", "replace").replace("\r\n", "\n  ")
        raise Unmet(f"{name} received\n  {head}\n" + "\n".join(wrong))


def _faults(row: Row, receive: form.Receive, message: Message) -> list[str]:
    lines = [message.start, *message.lines]
    wrong = []
    if receive.uri is not None and not re.search(row.pattern(receive.uri), message.uri):
        wrong.append(f"Request-URI {message.uri} does not match {receive.uri}")
    for header, value in receive.header.items():
        wanted = [] if value is None else [row.text(value)]
        if message.all(header) != wanted:
            wrong.append(f"{header} is {message.all(header)}, expected {wanted}")
    for pattern in receive.has:
        if not any(re.search(row.pattern(pattern), line) for line in lines):
            wrong.append(f"no line matches {pattern!r}")
    for pattern in receive.lacks:
        found = [line for line in lines if re.search(row.pattern(pattern), line, re.IGNORECASE)]
        wrong += [f"{line!r} matches {pattern!r}" for line in found]
    described = message.body.decode("utf-8", "replace").splitlines()
    for pattern in receive.sdp:
        if not any(re.search(row.pattern(pattern), line) for line in described):
            wrong.append(f"no line of its SDP matches {pattern!r}")
    for pattern in receive.sdp_lacks:
        found = [line for line in described if re.search(row.pattern(pattern), line)]
        wrong += [f"{line!r} of its SDP matches {pattern!r}" for line in found]
    if receive.reason is not None and message.reason != receive.reason:
        wrong.append(f"the text of its Reason is {message.reason!r}, expected {receive.reason!r}")
    if receive.reason is not None and _sent(row, message) is None:
        expected = f"SIP/2.0 {message.status} {PHRASES.get(message.status)}"
        if message.start != expected:
            wrong.append(f"it is {message.start!r}, expected {expected!r}")
    if receive.over is not None and message.over != receive.over:
        wrong.append(f"it came over {message.over}, expected {receive.over}")
    if receive.body is not None:
        content = _sent_body(row, message) if receive.body == "same" else row.body(receive.body)[0]
        if message.body != content:
            wrong.append(f"its body is {message.body!r}, expected {content!r}")
    if receive.flow is not None:
        entered = flow(row, message)
        if entered != receive.flow:
            wrong.append(f"its flow is {entered}, expected {receive.flow}")
    if receive.after is not None and receive.within is not None:
        late = message.at - row.message(receive.after)[1].at
        if late > receive.within:
            wrong.append(f"it came {late:.3f} s after {receive.after}, expected {receive.within} s")
    return wrong


def _sent(row: Row, message: Message) -> Message | None:
    """What somebody sent that arrived as ``message``; None where the edge made it."""
    for endpoint in row.stage.parties.values():
        for sent in reversed(endpoint.sent):
            if (sent.call_id, sent["CSeq"], sent.status) == (message.call_id, message["CSeq"], message.status):
                return sent
    return None


def _sent_body(row: Row, message: Message) -> bytes:
    sent = _sent(row, message)
    if sent is None:
        raise Unmet("nobody sent what arrived")
    return sent.body


def flow(row: Row, message: Message) -> list[str] | None:
    """The routes entered for a message that arrived, or None where the log has nothing of it."""
    flows = trace.flows(row.stage.edge.log, row.stage.config)
    entered = flows.that_sent(message.raw)
    if entered is not None:
        return entered
    # Made by the edge itself: a reply, or the CANCEL that follows one. The flow of the request that it is of.
    for endpoint in row.stage.parties.values():
        for sent in endpoint.sent:
            if sent.is_request and (sent.call_id, sent["CSeq"]) == (message.call_id, message["CSeq"]):
                entered = flows.that_received(sent.raw) or entered
    return entered


def copies(row: Row, step: form.Copies) -> None:
    name, message = row.message(step.of)
    count = sum(seen.raw == message.raw for seen in row.stage.parties[name].seen)
    if count != step.are:
        raise Unmet(f"{name} received {message.start!r} {count} times, expected {step.are}")


def rpc(row: Row, step: form.Rpc) -> None:
    params = [row.text(item) if isinstance(item, str) else item for item in step.params]
    answer = row.stage.edge.rpc_answer(step.method, *params)
    if step.fails is not None:
        if not re.search(row.pattern(step.fails), json.dumps(answer.get("error", ""))):
            raise Unmet(f"{step.method} answered {answer}, expected an error that matches {step.fails!r}")
        return
    if "error" in answer:
        raise Unmet(f"{step.method} failed: {answer['error']}")
    text = json.dumps(answer.get("result"))
    if step.has is not None and not re.search(row.pattern(step.has), text):
        raise Unmet(f"{step.method} answered {text}, which does not match {step.has!r}")
    if step.lacks is not None and re.search(row.pattern(step.lacks), text):
        raise Unmet(f"{step.method} answered {text}, which matches {step.lacks!r}")


def metric(row: Row, step: form.Metric, before: dict[tuple[str, str], float]) -> None:
    counters = row.stage.edge.counters()
    key = (step.name, row.text(step.label))
    if key not in counters:
        raise Unmet(f"there is no series {key}, only {sorted(counters)}")
    wanted = step.is_ if step.is_ is not None else before.get(key, 0.0) + (step.rises or 0)
    if counters[key] != wanted:
        raise Unmet(f"{key} is {counters[key]}, expected {wanted}")


def media(row: Row, step: form.Media) -> None:
    engines = row.stage.engines
    if step.at is not None and step.at not in engines:
        raise row.error(f"{step.at}: there is no such rtpengine, only {sorted(engines)}")
    names = [step.at] if step.at is not None else [name for name, engine in engines.items() if engine.running]
    calls = {name: len(engines[name].calls) for name in names}
    if sum(calls.values()) != step.calls:
        raise Unmet(f"calls of the rtpengines are {calls}, expected {step.calls}")


def log(row: Row, step: form.Log) -> None:
    lines = row.stage.log_from(row.log_begin)
    if step.lacks is not None:
        if found := [line for line in lines if re.search(row.pattern(step.lacks), line)]:
            raise Unmet("the log has\n" + "\n".join(found))
        return
    count = sum(bool(re.search(row.pattern(step.has or ""), line)) for line in lines)
    if not count or (step.times is not None and count != step.times):
        raise Unmet(f"{count} lines of the log match {step.has!r}, expected {step.times or 'some'}")


def target(row: Row, step: form.Target) -> None:
    states, loads = row.stage.edge.worker_states(), row.stage.edge.worker_loads()
    names = list(states) if step.worker == "all" else [row.name(step.worker)]
    if missing := [name for name in names if name not in states]:
        raise Unmet(f"the dispatcher has no {missing}, only {sorted(states)}")
    if step.state is not None and any(not states[name].startswith(step.state) for name in names):
        raise Unmet(f"the states are {states}, expected {step.state} of {names}")
    if step.load is not None and sum(loads[name] for name in names) != step.load:
        raise Unmet(f"the loads are {loads}, expected {step.load} of {names}")
