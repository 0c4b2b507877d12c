"""Settings of the dial policy: ``policy`` with its rules (see :mod:`tandem.dial_policy`)."""

from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, Field, model_validator

from tandem import crosscheck, weekly
from tandem.fields import Country, Name, Prefix, ReferHeader
from tandem.recipients import Section

MAX_RULES = 100


class Kind(StrEnum):
    """What a number is; of the same number several may be true. Those of phonenumbers, and what it is to this site."""

    FIXED_LINE = "fixed_line"
    MOBILE = "mobile"
    """In +1 a number is both, fixed line and mobile: nothing there tells them apart."""
    TOLL_FREE = "toll_free"
    PREMIUM = "premium"
    SHARED_COST = "shared_cost"
    VOIP = "voip"
    PERSONAL_NUMBER = "personal_number"
    PAGER = "pager"
    UAN = "uan"
    """A company's number that is the same in the whole country."""
    VOICEMAIL = "voicemail"
    INTERNATIONAL = "international"
    """Of another country than policy.home_country; within +1 too."""
    OWN_NUMBER = "own_number"
    """One of ``numbers``: the call would come back here."""
    EXTENSION = "extension"
    """Digits that are no E.164 number as they are dialled at home, no more of them than policy.extension_digits."""
    FEATURE_CODE = "feature_code"
    """It begins with a star."""


class Opening(StrEnum):
    """Kinds that are refused unless a rule opens them."""

    INTERNATIONAL = Kind.INTERNATIONAL.value
    PREMIUM = Kind.PREMIUM.value
    OWN_NUMBER = Kind.OWN_NUMBER.value
    FEATURE_CODE = Kind.FEATURE_CODE.value


class Action(StrEnum):
    ALLOW = "allow"
    REFUSE = "refuse"


def _weekly(text: str) -> str:
    weekly.spans([text])
    return text


Weekly = Annotated[str, AfterValidator(_weekly)]
"""``mon-fri 08:00-18:00``."""
TimeZone = Annotated[str, AfterValidator(weekly.zone)]
"""An IANA name."""
_Cap = Annotated[int | None, Field(ge=1, le=100000)]


class _Model(BaseModel):
    model_config = Section.model_config


class Rule(_Model):
    """What is dialled under which conditions. Those that are given must all hold; each holds by any of its values."""

    name: Name
    action: Action = Action.ALLOW
    prefixes: list[Prefix] = []
    kinds: list[Kind] = []
    trunks: list[Name] = []
    """That it would be dialled over."""
    tenants: list[Name] = []
    """Whose call it is."""
    times: list[Weekly] = []
    time_zone: TimeZone | None = None
    """Of ``times``. Default: policy.time_zone."""
    opens: list[Opening] = []
    """What is refused by default, and allowed here."""
    max_calls: _Cap = None
    """At one time, of all that this rule allows."""
    max_calls_per_hour: _Cap = None

    @model_validator(mode="after")
    def _sensible(self) -> "Rule":
        if self.action is Action.REFUSE:
            for key in ("opens", "max_calls", "max_calls_per_hour"):
                if getattr(self, key):
                    raise ValueError(f"a rule that refuses has no {key}; expected action: allow, or none of it")
        if self.time_zone is not None and not self.times:
            raise ValueError("has a time_zone and no times; expected both or neither")
        if self.prefixes and self.kinds and not set(self.kinds) - {Kind.EXTENSION, Kind.FEATURE_CODE}:
            raise ValueError("has prefixes of E.164, which no extension or feature code has; expected one of the two")
        return self


class Policy(_Model):
    """What may be dialled at all. Emergency numbers are never dialled by an agent."""

    home_country: Country = crosscheck.DEFAULT_COUNTRY
    time_zone: TimeZone = "UTC"
    """Of the rules' times."""
    extension_digits: Annotated[int, Field(ge=1, le=15)] = 7
    """The longest extension. What is longer, and no number as it is dialled at home, might mean another country elsewhere."""
    international: bool = False
    premium: bool = False
    rules: Annotated[list[Rule], Field(max_length=MAX_RULES)] = []
    """The first that fits decides."""
    refer_headers: list[ReferHeader] = []
    """Headers that a Refer-To may give the new call, beside Replaces and User-to-User."""

    @property
    def opens(self) -> frozenset[Opening]:
        """What needs no rule to open it."""
        return frozenset(
            opening for opening in (Opening.INTERNATIONAL, Opening.PREMIUM) if getattr(self, opening.value)
        )

    def rule(self, name: str) -> Rule | None:
        return next((rule for rule in self.rules if rule.name == name), None)
