"""Settings of where calls may be transferred to: destinations, groups of them, and how."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from tandem.fields import Dialled, Name, Text
from tandem.recipients import Section


class TransferMethod(StrEnum):
    BRIDGE = "bridge"
    """Consult, then connect the two here."""
    REFER = "refer"
    """Blind: the caller's peer is asked to call the destination itself (RFC 3515)."""
    REPLACES = "replaces"
    """Consult and connect, then have the caller's peer take the destination's call over (RFC 3891): media leaves us."""
    WARM = "warm"
    """The caller is on hold while the one who answers is told who is calling, and takes the call or does not."""


class Ring(StrEnum):
    """How a group is rung."""

    ALL = "all"
    """All at once; the first to answer has the call."""
    IN_ORDER = "in_order"
    """A hunt list: one after the other."""


class Destination(Section):
    """A place that agents may transfer to, by name. The model says the name; this says what is dialled."""

    description: Text
    """Told to the model, in words."""
    dial: Dialled
    trunk: Name
    ring_seconds: Annotated[int, Field(ge=5, le=120)] = 25
    transfer: TransferMethod | None = None
    """Default: the caller's trunk's way."""


class RingGroup(Section):
    """Several destinations under one name."""

    description: Text
    """Told to the model, in words."""
    members: Annotated[list[Name], Field(min_length=1, max_length=10)]
    """Destinations; each rings for its own ring_seconds."""
    ring: Ring = Ring.ALL
    ring_seconds: Annotated[int, Field(ge=5, le=300)] = 60
    """For the whole group."""
    transfer: TransferMethod | None = None
    """Default: the caller's trunk's way, but never refer: a peer cannot ring a group."""
