"""A phone call's offer and answer (RFC 3264), applied to its RTP stream."""

from lab import sdp
from lab.rtp import RtpStream

CANNOT_BE_SPOKEN_TO = (sdp.BadSdp, sdp.NoCommonCodec)
"""What taking a peer's body may raise: 488 in an answer, BYE where it is too late for one."""


class Negotiation:
    """Both descriptions, and what follows from them for the stream."""

    def __init__(self, stream: RtpStream, codecs: tuple[str, ...], telephone_event: bool = True) -> None:
        self.direction: sdp.Direction = "sendrecv"
        """What we want; an offer says so, an answer is narrowed by it."""
        self.local: sdp.Session | None = None
        self.remote: sdp.Session | None = None
        self.codecs = codecs
        """What we speak, in our order."""
        self._stream = stream
        self._telephone_event = telephone_event
        """Whether our offers have it."""
        self._version = 0

    def offer(self) -> bytes:
        """A new offer."""
        host, port = self._stream.local
        self._version += 1
        self.local = sdp.offer(
            host,
            port,
            codecs=self.codecs,
            telephone_event=self._telephone_event,
            direction=self.direction,
            version=self._version,
        )
        return self.local.encode()

    def take_offer(self, body: bytes) -> None:
        """Read the peer's offer. Raises BadSdp, NoCommonCodec; what was agreed before then stays."""
        offered = sdp.parse(body)
        sdp.answer(offered, self._stream.local[0], self._stream.local[1], codecs=self.codecs)
        self.remote = offered

    def answer(self) -> bytes:
        """The answer to the offer taken last, and the media as it says."""
        assert self.remote is not None
        host, port = self._stream.local
        self._version += 1
        self.local = sdp.answer(
            self.remote, host, port, codecs=self.codecs, direction=self.direction, version=self._version
        )
        self._apply(self.local)
        return self.local.encode()

    def take_answer(self, body: bytes) -> None:
        """Read the peer's answer, and set the media as it says. Raises BadSdp, NoCommonCodec."""
        answered = sdp.parse(body)
        if answered.codec(self.codecs) is None:
            raise sdp.NoCommonCodec("the answer has no codec of our offer")
        self.remote = answered
        self._apply(answered)

    def _apply(self, agreed: sdp.Session) -> None:
        remote, local, codec = self.remote, self.local, agreed.codec(self.codecs)
        if remote is None or local is None or codec is None:
            return
        self._stream.start(
            codec.name.upper(),
            codec.payload_type,
            (remote.address, remote.port),
            telephone_event=agreed.telephone_event,
        )
        self._stream.hold(
            send=remote.receives and local.direction in ("sendrecv", "sendonly"),
            receive=remote.sends and local.direction in ("sendrecv", "recvonly"),
        )
