"""``/v1/calls``: calls that we place. Each tenant has so many at a time, and each trunk so many a second."""

import time
import uuid
from collections import OrderedDict
from collections.abc import Callable

import gevent
from gevent import get_hub
from pydantic import BaseModel, ConfigDict, Field

from esl_app.api import Api, ApiError, Reply, Request
from esl_app.inbound import SwitchAway
from esl_app.line import Services
from esl_app.metrics import PLACING_REFUSED
from esl_app.placed_call import PlacedCall, State
from esl_app.placement import Asked, Placement, Purpose, judge, refusal
from esl_app.session import Session
from tandem.do_not_call import DoNotCall, DoNotCallError, Listed
from tandem.outcome import PlacingRefusal
from tandem.records import Records, RecordsError
from tandem.seam import MAX_TEXT

MAX_REMEMBERED = 1000
"""Calls that are over and can still be asked for; the newest."""
LONGEST_TURN_S = 5.0
"""A call that would wait longer for its turn on a trunk is refused."""


class Told(BaseModel):
    """The body of ``POST /v1/calls/{call}/tell``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    text: str = Field(min_length=1, max_length=MAX_TEXT)


class Placing:
    """``begin`` runs a call's ``run`` in a greenlet that counts among the worker's; it raises ApiError where there is no room."""

    def __init__(self, services: Services, begin: Callable[[Callable[[], None]], None]) -> None:
        self._services = services
        self._begin = begin
        self._calls: OrderedDict[str, PlacedCall] = OrderedDict()
        self._asked: dict[str, str] = {}
        """Ids that are being looked up, and whose calls they will be."""
        self._turns: dict[str, float] = {}
        """When each trunk's last turn was, or will be."""

    def serve(self, api: Api) -> None:
        api.route("POST", "/v1/calls", self._post)
        api.route("GET", "/v1/calls", lambda _: Reply(200, [_shown(call) for call in self._live()]))
        api.route("GET", "/v1/calls/{call}", lambda request: Reply(200, _shown(self._find(request))))
        api.route("DELETE", "/v1/calls/{call}", self._delete)
        api.route("POST", "/v1/calls/{call}/tell", self._tell)

    def claims(self, session: Session) -> PlacedCall | None:
        """Whose leg it is that FreeSWITCH hands over; None for a call that came in."""
        call = self._calls.get(session.session_data.get("variable_sip_h_X-Tandem-Call", ""))
        outbound = session.session_data.get("Call-Direction") == "outbound"
        return call if outbound else None

    # Requests

    def _post(self, request: Request) -> Reply:
        asked = request.json(Asked)
        call = asked.call or str(uuid.uuid4())
        if call in self._calls:
            return Reply(200, _shown(self._calls[call]))
        try:
            placed = self._place(asked, call)
        except ApiError as error:
            PLACING_REFUSED.labels(error.cause).inc()
            raise
        return Reply(202, _shown(placed))

    def _place(self, asked: Asked, call: str) -> PlacedCall:
        placement = judge(self._services.settings, asked, call, self._services.now())
        tenant = placement.tenant
        self._check_room(tenant)
        if call in self._asked:
            raise refusal(PlacingRefusal.ALREADY_PLACED, f"call {call} is being asked for by another request", 409)
        self._asked[call] = tenant
        try:
            self._look_up(placement, new=asked.call is None)
            return self._start(placement)
        finally:
            del self._asked[call]

    def _start(self, placement: Placement) -> PlacedCall:
        try:
            self._services.inbound.require()
        except SwitchAway as error:
            raise refusal(PlacingRefusal.SWITCH_AWAY, str(error), 503) from error
        wait_until = self._take_turn(placement.trunk)
        placed = PlacedCall(placement, self._services, lambda: gevent.sleep(max(0.0, wait_until - time.monotonic())))
        self._begin(placed.run)
        self._calls[placement.call] = placed
        while len(self._calls) > MAX_REMEMBERED and (oldest := self._oldest_over()) is not None:
            del self._calls[oldest]
        return placed

    def _delete(self, request: Request) -> Reply:
        call = self._find(request)
        if call.state is State.ENDED:
            raise ApiError(409, "ended", "the call is over")
        call.cancel()
        return Reply(202, _shown(call))

    def _tell(self, request: Request) -> Reply:
        call = self._find(request)
        if not call.tell(request.json(Told).text):
            raise ApiError(409, "no_agent", "there is no agent on that call now")
        return Reply(204)

    def _find(self, request: Request) -> PlacedCall:
        call = self._calls.get(request.parameters["call"])
        if call is None:
            raise ApiError(404, "unknown_call", "no such call was placed here; `tandem call show` has those on record")
        return call

    # Bounds

    def _live(self) -> list[PlacedCall]:
        return [call for call in self._calls.values() if not call.over.is_set()]

    def _oldest_over(self) -> str | None:
        return next((id for id, call in self._calls.items() if call.over.is_set()), None)

    def _check_room(self, tenant: str) -> None:
        limit = self._services.settings.outbound.max_calls
        up = sum(call.placement.tenant == tenant for call in self._live()) + list(self._asked.values()).count(tenant)
        if up >= limit:
            message = f"tenant {tenant!r} has {up} placed calls, as many as outbound.max_calls allows"
            raise refusal(PlacingRefusal.TENANT_AT_CAPACITY, message, 429)

    def _take_turn(self, trunk: str) -> float:
        """When the next call may be placed on ``trunk``; it is this one's from now on."""
        configured = self._services.settings.trunks[trunk]
        a_second = configured.calls_per_second_out or configured.preset.calls_per_second_out
        now = time.monotonic()
        if not a_second:
            return now
        turn = max(now, self._turns[trunk] + 1 / a_second if trunk in self._turns else now)
        if turn - now > LONGEST_TURN_S:
            message = f"trunk {trunk!r} takes {a_second} calls a second, and others wait already"
            raise refusal(PlacingRefusal.TRUNK_TOO_BUSY, message, 429)
        self._turns[trunk] = turn
        return turn

    # The database

    def _look_up(self, placement: Placement, new: bool) -> None:
        """Raises ApiError for a number on the list, an id that is on record, and where that cannot be known."""
        pool = get_hub().threadpool
        try:
            if not new and pool.apply(self._on_record, (placement.call,)):
                raise refusal(PlacingRefusal.ALREADY_PLACED, f"call {placement.call} is on record", 409)
            if placement.asked.purpose is Purpose.ON_CALL:
                return
            listed = pool.apply(self._listed, (placement,))
        except (RecordsError, DoNotCallError) as error:
            raise refusal(PlacingRefusal.DATABASE_AWAY, str(error), 503) from error
        if listed is not None:
            reason = f": {listed.reason}" if listed.reason else ""
            raise refusal(PlacingRefusal.DO_NOT_CALL, f"{placement.number} is on the do-not-call list{reason}")

    def _on_record(self, call: str) -> bool:
        with Records(self._services.settings.records.url) as records:
            return records.call(call) is not None

    def _listed(self, placement: Placement) -> Listed | None:
        with DoNotCall(self._services.settings.records.url) as list:
            return list.find(placement.number, placement.tenant)


def _shown(call: PlacedCall) -> dict[str, object]:
    """What a client is told of a call."""
    record = call.record
    return {
        "call": record.id,
        "state": call.state.value,
        "to": record.number,
        "caller_id": record.caller,
        "trunk": record.trunk,
        "tenant": record.tenant,
        "agent": record.agent,
        "answered_by": record.answered_by,
        "answer_rule": record.answer_rule,
        "detected_ms": record.detected_ms,
        "joined_ms": record.joined_ms,
        "acknowledged": call.acknowledged,
        "outcome": record.outcome,
        "cause": record.cause,
        "sip_status": record.sip_status,
        "transferred_to": record.transferred_to,
    }
