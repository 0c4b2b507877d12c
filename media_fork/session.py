"""Sessions: a model made ready for a call, and the fork that then comes for it.

    reserve ──model ready──▶ RESERVED ──fork with the token, Hello──▶ LIVE ──fork closed──▶ ended
       │                        │
       └─ refused               └─ token_ms over, or released: ended

The token in the fork's URL works once, for the call that reserved it, for token_ms.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Final

from pydantic import ValidationError

from media_fork import briefing
from media_fork.batches import Batches
from media_fork.briefing import BriefingOffer
from media_fork.carriage import CARRIAGES
from media_fork.client_events import session_update
from media_fork.clock import Timer
from media_fork.conversation import Conversation, World
from media_fork.endpoints import Endpoints
from media_fork.leg import PATH, Leg
from media_fork.offer import Offer
from media_fork.realtime import ModelUnavailableError
from media_fork.succession import Succession
from tandem.outcome import RefusalCause
from tandem.seam import Notice, SessionReply, SessionRequest
from tandem.settings import Settings

TOKEN_BYTES: Final = 24
HANDSHAKE_S: Final = 1.0
"""On top of first_frame_ms, from a token shown to the Hello."""

_log = logging.getLogger(__name__)


class RefusedError(Exception):
    """No session for this request: the cause, and what to say about it."""

    def __init__(self, cause: RefusalCause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class Session:
    """One call's stay: its model, its conversation, and its leg once that is there."""

    def __init__(
        self, request: SessionRequest, conversation: Conversation, on_end: Callable[["Session"], None]
    ) -> None:
        self.session = secrets.token_hex(8)
        self.token = secrets.token_urlsafe(TOKEN_BYTES)
        self.call = request.call
        self.conversation = conversation
        self.on_audio: Callable[[bytes], None] = conversation.on_caller_audio
        self._on_end = on_end
        self._models: Succession | None = None
        self._leg: Leg | None = None
        self._timer: Timer | None = None
        self.why: str | None = None
        """Why it has ended."""

    def ready(self, models: Succession, timer: Timer) -> None:
        """The model is ready; ``timer`` ends the session where no fork comes."""
        self._models = models
        self._timer = timer

    def lose_model(self, cause: str, message: str) -> None:
        """Go on without a model: esl_app takes the caller on."""
        if self._models is not None:
            self._models.give_up(cause, message)

    def refresh(self) -> None:
        """Tools are withdrawn, or offered again."""
        if self._models is not None:
            self._models.refresh()

    def claimed(self, timer: Timer) -> None:
        """A connection has shown the token; ``timer`` ends the session where nothing comes of that."""
        self._cancel_timer()
        self._timer = timer

    def on_hello(self, leg: Leg) -> None:
        if self.why is not None:
            leg.close()
            return
        self._cancel_timer()
        self._leg = leg
        _log.info("fork connected", extra={"call": self.call, "session": self.session})
        self.conversation.connected(leg)

    def on_notice(self, notice: Notice) -> None:
        self.conversation.on_notice(notice)

    def on_leg_full(self, full: bool) -> None:
        self.conversation.on_fork_full(full)

    def on_leg_closed(self, why: str) -> None:
        self._leg = None
        self.end(why)

    def end(self, why: str) -> None:
        """Close what is open, record what was said. Once; ``why`` is one of few."""
        if self.why is not None:
            return
        self.why = why
        self._cancel_timer()
        self.conversation.close(self.conversation.ended or why)
        if self._models is not None:
            self._models.close()
        if self._leg is not None:
            self._leg.close()
        self._on_end(self)

    def _cancel_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Sessions:
    """All sessions of one process, at most settings.media_fork.max_sessions."""

    def __init__(self, settings: Settings, world: World, batches: Batches, host: str) -> None:
        self._settings = settings
        self._world = world
        self._url = f"ws://{host}:{settings.media_fork.fork_port}{PATH}"
        self._opening = 0
        self._by_id: dict[str, Session] = {}
        self._by_token: dict[str, Session] = {}
        self.draining = False
        self._empty = asyncio.Event()
        self._empty.set()
        self._endpoints = Endpoints(settings.model, world.clock, world.metrics, batches)
        world.tool_servers.on_change = self._refresh

    def __len__(self) -> int:
        return self._opening + len(self._by_id)

    @property
    def model_is_resting(self) -> bool:
        """No endpoint of the model is worth a call now."""
        return self._endpoints.are_resting

    async def reserve(self, request: SessionRequest) -> SessionReply:
        """Have a model ready for ``request``. Raises RefusedError."""
        if self.draining:
            raise RefusedError(RefusalCause.DRAINING, "this media_fork is draining")
        if len(self) >= self._settings.media_fork.max_sessions:
            raise RefusedError(RefusalCause.AT_CAPACITY, f"all {len(self)} sessions are taken")
        agent = self._settings.agents.get(request.agent)
        if agent is None:
            raise RefusedError(RefusalCause.UNKNOWN_AGENT, f"there is no agent named {request.agent!r}")
        carriage = CARRIAGES[request.codec]
        placed = request.placed
        offer: Offer | BriefingOffer
        if request.briefing is not None:
            agent = briefing.agent_of(agent, request.briefing)
            offer = BriefingOffer(agent)
        else:
            offer = Offer(agent, self._settings.places, self._world.tool_servers, placed)
        conversation = Conversation(
            request.call, agent, carriage, self._world, placed, is_briefing=request.briefing is not None
        )
        clock = self._world.clock
        models = Succession(
            conversation,
            self._endpoints,
            lambda endpoint: session_update(
                agent, carriage, offer.instructions(), offer.tools(), endpoint.transcription
            ),
            self._settings.model.reconnect_within_ms,
            clock,
            self._world.metrics.counts,
        )
        self._opening += 1
        self._count()
        try:
            await models.begin()
        except ModelUnavailableError as error:
            _log.warning("no model: %s", error, extra={"call": request.call, "cause": error.cause})
            raise RefusedError(RefusalCause.MODEL_UNAVAILABLE, str(error)) from error
        finally:
            self._opening -= 1
            self._count()
        session = Session(request, conversation, self._forget)
        self._by_id[session.session] = session
        self._by_token[session.token] = session
        self._count()
        token_ms = placed.hold_ms if placed is not None else self._settings.media_fork.token_ms
        session.ready(models, clock.call_at(clock.now() + token_ms / 1000, lambda: session.end("expired")))
        self._world.metrics.counts.add("sessions_reserved", request.codec.value)
        return SessionReply(
            session=session.session, url=self._url + session.token, rate=carriage.rate, expires_in_ms=token_ms
        )

    def claim(self, token: str) -> Session | None:
        """The session of ``token``, which is used up by this; None where there is none."""
        session = self._by_token.pop(token, None)
        if session is not None:
            clock = self._world.clock
            within_s = self._settings.media_fork.first_frame_ms / 1000 + HANDSHAKE_S
            session.claimed(clock.call_at(clock.now() + within_s, lambda: session.end("no_hello")))
        return session

    def release(self, id: str) -> bool:
        """The caller gave up. False where there is no such session."""
        session = self._by_id.get(id)
        if session is None:
            return False
        session.end("released")
        return True

    async def drain(self, seconds: float) -> None:
        """Take no new sessions, and return when there are none left, or after ``seconds``."""
        self.draining = True
        try:
            async with asyncio.timeout(seconds):
                await self._empty.wait()
        except TimeoutError:
            _log.warning("%d sessions are left after %g s of draining", len(self), seconds)

    def close(self, why: str) -> None:
        """End every session, now."""
        for session in list(self._by_id.values()):
            session.end(why)

    def lose_models(self, cause: str) -> None:
        """Have every live call go on without its agent: esl_app takes the callers to their fallback."""
        for session in list(self._by_id.values()):
            session.lose_model(cause, "media_fork stops")

    def _refresh(self) -> None:
        for session in list(self._by_id.values()):
            session.refresh()

    def _forget(self, session: Session) -> None:
        self._by_id.pop(session.session, None)
        self._by_token.pop(session.token, None)
        self._world.metrics.counts.add("sessions_ended", session.why or "")
        _log.info("session ended: %s", session.why, extra={"call": session.call, "session": session.session})
        self._count()

    def _count(self) -> None:
        self._world.metrics.sessions = len(self)
        if len(self):
            self._empty.clear()
        else:
            self._empty.set()


def parse_request(body: bytes) -> SessionRequest:
    """The body of POST /v1/sessions. Raises RefusedError, bad_call, with what is wrong and where."""
    try:
        return SessionRequest.model_validate_json(body)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, problem['loc'])) or 'body'}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False, include_context=False)
        )
        raise RefusedError(RefusalCause.BAD_CALL, problems) from None
