"""The agent's transfer, carried out under the dial policy, on record, and told to the agent as it really went."""

from collections.abc import Callable

from esl_app import context, replaces
from esl_app.consultation import Attempt, Consultation
from esl_app.context import Carried
from esl_app.dialling import in_words
from esl_app.leg import LAST_EVENTS_S, HungUp, TimedOut
from esl_app.line import BROKEN, AgentHangsUp, ConversationLost, Ending, Line
from esl_app.metrics import DIAL_REFUSED, TRANSFERS, UNHEARD
from esl_app.refer import Referral, refer, refer_to
from esl_app.replaces import Moved
from esl_app.webhooks import notice_of
from tandem import edge, hunting
from tandem.destinations import TransferMethod
from tandem.dial_policy import Allowed, Refused
from tandem.hunting import Plan
from tandem.outcome import Outcome, TransferOutcome
from tandem.rows import TransferRecord
from tandem.seam import Transfer, TransferState
from tandem.webhooks import Context


def carry_out(line: Line, wanted: Transfer) -> Ending | None:
    """None: the caller is still with the agent, who knows why. Raises HungUp, AgentHangsUp."""
    arrival, services = line.arrival, line.services
    row = TransferRecord(
        call=arrival.call,
        id=wanted.id,
        destination=wanted.destination or wanted.number,
        method=TransferMethod.BRIDGE.value,
        heard=wanted.heard,
        reason=wanted.reason,
        summary=wanted.summary,
        started_at=services.now(),
    )
    if not wanted.heard:
        UNHEARD.labels("transfer").inc()
        line.leg.log.warning("transfer to %r although not all that was said has been heard", row.destination)
    plan = hunting.decide(
        line.settings,
        arrival.agent,
        wanted.destination,
        arrival.trunk,
        number=wanted.number,
        tenant=arrival.tenant,
        now=services.now(),
    )
    if isinstance(plan, Refused):
        DIAL_REFUSED.labels(plan.refusal.value).inc()
        line.leg.log.warning("transfer to %r refused: %s", row.destination, plan.refusal.value)
        _over(line, row, plan.outcome, plan.detail)
        return None
    carried = Carried(context.new_key(), arrival.call, arrival.agent, wanted.reason, wanted.summary)
    row = row.model_copy(update={"method": plan.method.value} | _key(line, plan, carried))
    services.recorder.put(row)
    done: Referral | Attempt | None = None
    try:
        if plan.method is TransferMethod.REFER:
            done = _refer(line, plan.targets[0], carried)
            if done.refused:
                line.leg.log.warning("REFER refused (%s), bridging instead", done.sip_status)
                row = row.model_copy(update={"method": TransferMethod.BRIDGE.value})
                done = None
        if done is None:
            done = consult(line, plan, lambda how: line.fork.tell(TransferState(id=wanted.id, detail=how)), carried)
    except HungUp as gone:
        _over(line, row, *_left(gone))
        raise
    except AgentHangsUp:
        _over(line, row, TransferOutcome.FAILED, "the agent hung up")
        raise
    except BROKEN:
        _over(line, row, *_broken(line))
        raise
    if isinstance(done, Referral):
        _over(line, row, done.outcome, done.detail, done.sip_status)
        return _referred(line, done, plan.name)
    row = row.model_copy(update={"answered_by": done.reached})
    if done.target is not None:
        return _put_through(line, row, plan, done, carried)
    _over(line, row, done.outcome, done.detail, done.sip_status)
    if line.lost is None and not line.fork.live:
        # The target was gone when the agent had already left.
        line.lost = ConversationLost("fork", "the transfer failed at its last step")
    return None


def consult(line: Line, plan: Plan, told: Callable[[str], None], carried: Carried | None = None) -> Attempt:
    """Ring and bridge, with the agent, where there is one, until a target answers. Raises HungUp, AgentHangsUp."""
    return Consultation(line, plan, told, carried).run()


def _key(line: Line, plan: Plan, carried: Carried) -> dict[str, object]:
    """What is kept of a key that goes to at least one of those who are to be rung."""
    trunks = [line.settings.trunks[allowed.trunk] for allowed in plan.targets]
    if all(trunk.context is Context.NONE for trunk in trunks):
        return {}
    expires_at = line.services.now() + 60 * line.settings.transfers.context_minutes
    return {"key_digest": context.digest(carried.key), "key_expires_at": expires_at}


def _put_through(line: Line, row: TransferRecord, plan: Plan, attempt: Attempt, carried: Carried) -> Ending:
    """Caller and target are connected. Returns when they are done with each other, or with us."""
    assert attempt.target is not None
    line.note(transferred_to=plan.name)
    moved = Moved.NOT
    if plan.method is TransferMethod.REPLACES:
        line.services.recorder.put(row.model_copy(update={"outcome": attempt.outcome}))
        allowed = next(allowed for allowed in plan.targets if allowed.name == attempt.reached)
        moved = replaces.move(line.leg, line.services.inbound, attempt.target, _uri(line, allowed, carried))
        if moved is not Moved.AWAY:
            row = row.model_copy(update={"method": TransferMethod.BRIDGE.value})
    _over(line, row, attempt.outcome, attempt.detail)
    if moved is Moved.NOT:
        line.talk(attempt.target, plan.name)
    else:
        line.hang_up()
        line.services.inbound.end(attempt.target)
    return Ending(Outcome.TRANSFERRED, transferred_to=plan.name)


def _refer(line: Line, allowed: Allowed, carried: Carried) -> Referral:
    return refer(line.leg, line.services.inbound, _uri(line, allowed, carried), line.meanwhile)


def _uri(line: Line, allowed: Allowed, carried: Carried) -> str:
    """What the caller's peer is asked to call."""
    trunk = line.settings.trunks[allowed.trunk]
    return refer_to(allowed.dial, edge.gateways(allowed.trunk, trunk)[0].host, carried.refer_to(trunk.context))


def _referred(line: Line, referral: Referral, name: str) -> Ending | None:
    """The peer took the REFER. Where that ended the call, it ends here too, and FreeSWITCH's ghost of it is killed."""
    if not referral.ended:
        return None
    line.hang_up()
    if referral.outcome in (TransferOutcome.ANSWERED, TransferOutcome.NOT_CONFIRMED):
        return Ending(Outcome.TRANSFERRED, transferred_to=name)
    return Ending(Outcome.FAILED, "refer_failed", referral.sip_status)


def _left(gone: HungUp) -> tuple[TransferOutcome, str]:
    if gone.lost:
        return TransferOutcome.FAILED, "the connection to FreeSWITCH was lost"
    return TransferOutcome.CALLER_HUNG_UP, "the caller hung up"


def _broken(line: Line) -> tuple[TransferOutcome, str]:
    """A command that failed may have failed because the caller was going."""
    try:
        line.leg.until_hung_up(LAST_EVENTS_S)
    except HungUp as gone:
        return _left(gone)
    except TimedOut:
        pass
    return TransferOutcome.FAILED, in_words(TransferOutcome.FAILED)


def _over(
    line: Line, row: TransferRecord, outcome: TransferOutcome, detail: str, sip_status: int | None = None
) -> None:
    TRANSFERS.labels(row.method, outcome.value).inc()
    line.leg.log.info("transfer to %r: %s (%s)", row.destination, outcome.value, detail)
    over = {"outcome": outcome, "detail": detail, "sip_status": sip_status, "ended_at": line.services.now()}
    row = row.model_copy(update=over)
    line.services.recorder.put(row)
    line.services.tell(notice_of(row, line.arrival, line.services.worker))
    if not line.leg.over:
        line.fork.tell(TransferState(id=row.id, outcome=outcome, detail=detail))
