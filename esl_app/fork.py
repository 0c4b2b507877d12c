"""The fork of a call's audio: ``uuid_audio_fork`` of the streaming build, with all of its ten words, always.

In that build of mod_audio_fork a start without its rate crashes FreeSWITCH, ``+OK`` means "queued" only, and some failures
raise no event at all: hence the fixed form and the watchdog.
"""

from esl_app.happenings import Decision, ForkDown, ForkUp, Happening
from esl_app.leg import Leg
from esl_app.metrics import FORK_CONNECT
from esl_app.protocol import CommandFailed
from esl_app.quoting import quote
from tandem.seam import Acted, Dtmf, Ended, Hello, Present, Resumed, SessionReply, Tell, TransferState

BUG = "tandem"
"""Name of the media bug, and of the fork in its commands."""
_G711 = "PCMU,PCMA"
_SAME_RATE = {"PCMU": _G711, "PCMA": _G711}
"""What a codec may be changed to while the fork lives."""


class ForkLost(Exception):
    """The fork could not be connected, or its connection is gone. ``connected`` tells which."""

    def __init__(self, connected: bool, reason: str) -> None:
        self.connected = connected
        super().__init__(reason)


def start_of(call: str, reservation: SessionReply) -> tuple[str, ...]:
    """What follows the channel in the command that starts a fork."""
    rate = str(reservation.rate)
    hello = Hello(call=call, session=reservation.session).model_dump_json()
    return ("start", quote(reservation.url), "mono", rate, BUG, quote(hello), "true", "true", rate)


class Fork:
    """The fork of one leg. ``live`` from its connection to its stop or loss."""

    def __init__(self, leg: Leg) -> None:
        self._leg = leg
        self._attached = False
        self.live = False
        self.was_live = False
        self.codec = ""
        """The caller's, once the fork is live."""

    def connect(self, call: str, reservation: SessionReply, within_s: float) -> None:
        """Start, and wait for the WebSocket. Raises ForkLost, HungUp."""
        started = self._leg.clock()
        try:
            self._api(*start_of(call, reservation))
        except CommandFailed as error:
            raise ForkLost(False, str(error)) from error
        self._attached = True
        deadline = started + within_s
        while (happening := self._leg.next(deadline)) is not None:
            if isinstance(happening, ForkUp):
                FORK_CONNECT.observe(self._leg.clock() - started)
                self.live = self.was_live = True
                self._hold_codec()
                return
            if isinstance(happening, ForkDown):
                raise ForkLost(False, happening.reason)
        raise ForkLost(False, f"not connected in {within_s:g} s, and no event")

    def resume(self, within_s: float) -> None:
        """Take over the fork of an esl_app that is gone; media_fork repeats what it had sent to that one.

        Raises ForkLost where there is no fork, or nobody at its other end; HungUp.
        """
        self._attached = True
        try:
            # The caller may have been on hold.
            self._api("resume", BUG)
            self._api("send_text", BUG, quote(Resumed().model_dump_json()))
        except CommandFailed as error:
            raise ForkLost(True, str(error)) from error
        deadline = self._leg.clock() + within_s
        aside: list[Happening] = []
        while (happening := self._leg.next(deadline)) is not None:
            match happening:
                case Decision(Present()):
                    self.live = self.was_live = True
                    self._hold_codec()
                    for earlier in aside:
                        self._leg.put(earlier)
                    return
                case ForkDown(reason=reason):
                    raise ForkLost(True, reason)
                case Decision():
                    # Repeated behind Present, as everything that is under way.
                    continue
                case _:
                    aside.append(happening)
        raise ForkLost(True, f"media_fork did not answer in {within_s:g} s")

    def tell(self, notice: Dtmf | TransferState | Acted | Tell) -> None:
        """Send a text frame to media_fork; with the fork gone there is nobody to tell."""
        if not self.live:
            return
        try:
            self._api("send_text", BUG, quote(notice.model_dump_json()))
        except CommandFailed as error:
            # Its disconnect event is on the way and decides what becomes of the call.
            self._leg.log.info("notice %s not delivered: %s", notice.notice, error)

    def stop(self, ended: Ended) -> None:
        """Close it with a last text frame; also what is left attached by a connection that failed or was lost."""
        if not self._attached:
            return
        self._attached = self.live = False
        try:
            self._api("stop", BUG, quote(ended.model_dump_json()))
            self._leg.session.set(absolute_codec_string="")
        except CommandFailed as error:
            self._leg.log.info("fork was gone before its stop: %s", error)

    def pause(self, pause: bool) -> None:
        """Have media_fork hear nothing of the caller for now, or hear them again."""
        if not self.live:
            return
        try:
            self._api("pause" if pause else "resume", BUG)
        except CommandFailed as error:
            self._leg.log.info("fork was gone before it was paused or resumed: %s", error)

    def lost(self) -> None:
        """Its connection is gone, the media bug is still attached."""
        self.live = False

    def _hold_codec(self) -> None:
        """Have a re-INVITE that wants another sampling rate refused with 488; the call goes on as it was.

        mod_audio_fork takes the channel's rate once, when it starts: after a change both sides would hear the other at
        half or twice the speed.
        """
        session = self._leg.session
        try:
            self.codec = session.variable("rtp_use_codec_name")
            session.set(absolute_codec_string=_SAME_RATE.get(self.codec, self.codec))
        except CommandFailed as error:
            self._leg.log.warning("a re-INVITE may change the codec under the fork: %s", error)

    def _api(self, *words: str) -> None:
        self._leg.session.api("uuid_audio_fork", self._leg.uuid, *words)
