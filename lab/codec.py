"""The codecs that the lab speaks: G.711, and G.722 at 64 kbit/s."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import G722 as libg722
import numpy as np
import numpy.typing as npt

from media_fork import g711

Frame = npt.NDArray[np.int16]
"""Audio of one channel, int16, at its codec's rate; 20 ms where it is one packet."""
Encode = Callable[[Frame], bytes]
Decode = Callable[[bytes], Frame]

RTP_CLOCK: Final = 8000
"""Hz of RTP timestamps and in rtpmap: of G.722 too, though it samples at 16 kHz (RFC 3551 section 4.5.2)."""
FRAME_TIMESTAMPS: Final = RTP_CLOCK // 50
"""What 20 ms add to an RTP timestamp."""
_WIDEBAND: Final = 16000
_BIT_RATE: Final = 64000


@dataclass(frozen=True)
class Codec:
    """One codec. Encoders and decoders are made anew for each stream: those of G.722 remember what came before."""

    name: str
    payload_type: int
    """Static, RFC 3551."""
    rate: int
    """Hz of its audio."""
    encoder: Callable[[], Encode]
    decoder: Callable[[], Decode]


def _g722_encoder() -> Encode:
    codec = libg722.G722(_WIDEBAND, _BIT_RATE)
    return lambda frame: bytes(codec.encode(np.ascontiguousarray(frame)))


def _g722_decoder() -> Decode:
    codec = libg722.G722(_WIDEBAND, _BIT_RATE)
    return lambda payload: np.asarray(codec.decode(payload), dtype=np.int16)


PCMU: Final = Codec("PCMU", 0, 8000, lambda: g711.ulaw_encode, lambda: g711.ulaw_decode)
PCMA: Final = Codec("PCMA", 8, 8000, lambda: g711.alaw_encode, lambda: g711.alaw_decode)
G722: Final = Codec("G722", 9, _WIDEBAND, _g722_encoder, _g722_decoder)
CODECS: Final = {codec.name: codec for codec in (PCMU, PCMA, G722)}
G711: Final = (PCMU.name, PCMA.name)
"""What a phone speaks that was not asked for more."""
