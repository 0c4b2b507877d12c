"""The agent's transfer, carried out under the dial policy, on record, and told to the agent as it really went."""

from collections.abc import Callable

from esl_app.consultation import LAST_EVENTS_S, Attempt, Consultation
from esl_app.dialling import caller_id, in_words
from esl_app.leg import HungUp, TimedOut
from esl_app.line import BROKEN, AgentHangsUp, ConversationLost, Ending, Line
from esl_app.metrics import TRANSFERS
from esl_app.refer import Referral, refer, refer_to
from tandem import dial_policy, edge
from tandem.dial_policy import Allowed
from tandem.outcome import Outcome, TransferOutcome
from tandem.rows import TransferRecord
from tandem.seam import Ended, Transfer, TransferState
from tandem.settings import TransferMethod


def carry_out(line: Line, wanted: Transfer) -> Ending | None:
    """None: the caller is still with the agent, who knows why. Raises HungUp, AgentHangsUp."""
    arrival, services = line.arrival, line.services
    row = TransferRecord(
        call=arrival.call,
        id=wanted.id,
        destination=wanted.destination or wanted.number,
        method=TransferMethod.BRIDGE.value,
        started_at=services.now(),
    )
    decision = dial_policy.decide(
        line.settings,
        arrival.agent,
        wanted.destination,
        arrival.trunk,
        number=wanted.number,
        tenant=arrival.tenant,
        now=services.now(),
    )
    if isinstance(decision, dial_policy.Refused):
        line.leg.log.warning("transfer to %r refused: %s", row.destination, decision.refusal.value)
        _over(line, row, decision.outcome, decision.detail)
        return None
    row = row.model_copy(update={"method": decision.method.value})
    services.recorder.put(row)
    done: Referral | Attempt | None = None
    try:
        if decision.method is TransferMethod.REFER:
            done = _refer(line, decision)
            if done.refused:
                line.leg.log.warning("REFER refused (%s), bridging instead", done.sip_status)
                row = row.model_copy(update={"method": TransferMethod.BRIDGE.value})
                done = None
        if done is None:
            done = consult(line, decision, lambda: line.fork.tell(TransferState(id=wanted.id, detail="ringing")))
    except HungUp as gone:
        _over(line, row, *_left(gone))
        raise
    except AgentHangsUp:
        _over(line, row, TransferOutcome.FAILED, "the agent hung up")
        raise
    except BROKEN:
        _over(line, row, *_broken(line))
        raise
    _over(line, row, done.outcome, done.detail, done.sip_status)
    if isinstance(done, Referral):
        return _referred(line, done, decision)
    if done.target is not None:
        line.talk(done.target, decision.name)
        return Ending(Outcome.TRANSFERRED, transferred_to=decision.name)
    if line.lost is None and not line.fork.live:
        # The target was gone when the agent had already left.
        line.lost = ConversationLost("fork", "the transfer failed at its last step")
    return None


def consult(line: Line, allowed: Allowed, ringing: Callable[[], None]) -> Attempt:
    """Dial and bridge, with the agent, where there is one, until the target answers. Raises HungUp, AgentHangsUp."""
    consultation = Consultation(
        line.leg,
        line.services.inbound,
        line.settings.edge,
        home_country=line.settings.policy.home_country,
        meanwhile=line.meanwhile,
        ringing=ringing,
        hand_over=lambda: line.fork.stop(Ended(why="transferred")),
    )
    presented = caller_id(line.settings.trunks[allowed.trunk], line.arrival.number, line.arrival.caller)
    return consultation.run(allowed, line.arrival.call, line.arrival.tenant, presented)


def _refer(line: Line, allowed: Allowed) -> Referral:
    host = edge.gateways(allowed.trunk, line.settings.trunks[allowed.trunk])[0].host
    return refer(line.leg, line.services.inbound, refer_to(allowed.dial, host), line.meanwhile)


def _referred(line: Line, referral: Referral, allowed: Allowed) -> Ending | None:
    """The peer took the REFER. Where that ended the call, it ends here too, and FreeSWITCH's ghost of it is killed."""
    if not referral.ended:
        return None
    line.hang_up()
    if referral.outcome in (TransferOutcome.ANSWERED, TransferOutcome.NOT_CONFIRMED):
        return Ending(Outcome.TRANSFERRED, transferred_to=allowed.name)
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
    line.services.recorder.put(row.model_copy(update=over))
    if not line.leg.over:
        line.fork.tell(TransferState(id=row.id, outcome=outcome, detail=detail))
