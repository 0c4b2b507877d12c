"""What may be dialled on behalf of a model or a caller: names are looked up, numbers are judged, nothing else is dialled.

A model never dials. It names a destination; :func:`decide` finds what that means, and refuses what the policy forbids even
where the configuration would have it. Emergency numbers are refused always and in every spelling.

The edge judges the targets of REFER by the same expressions, rendered: see :mod:`tandem.refer` and kamailio/refer.cfg.
"""

import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache

from tandem import countries, numbering
from tandem.outcome import TransferOutcome
from tandem.settings import Destination, Settings, TransferMethod

EMERGENCY_EVERYWHERE = ("911", "933", "988", "112")
"""Never dialled by an agent, whatever ``emergency.numbers`` holds: emergencies, their test, the crisis line, the GSM one."""
_OUTSIDE_LINES = ("9", "0", "8")
"""Digits that a PBX may take for an outside line: the number behind one is judged as well."""
_SHORTEST_BEHIND_OUTSIDE_LINE = 8


class Refusal(StrEnum):
    """Why a destination or number is not dialled."""

    UNKNOWN_DESTINATION = "unknown_destination"
    EMERGENCY = "emergency"
    PREMIUM = "premium"
    INTERNATIONAL = "international"
    OWN_NUMBER = "own_number"
    """One of this site's own numbers: the call would come back here."""
    NOT_A_NUMBER = "not_a_number"
    NO_GATEWAY = "no_gateway"


_IN_WORDS = {
    Refusal.UNKNOWN_DESTINATION: "there is no such destination",
    Refusal.EMERGENCY: "emergency numbers are not allowed",
    Refusal.PREMIUM: "premium numbers are not allowed",
    Refusal.INTERNATIONAL: "international numbers are not allowed",
    Refusal.OWN_NUMBER: "our own numbers are not allowed",
    Refusal.NOT_A_NUMBER: "that is not a number that can be called",
    Refusal.NO_GATEWAY: "there is no line to it",
}


@dataclass(frozen=True)
class Allowed:
    """A destination that may be dialled. ``dial`` is E.164 or an extension of digits, fit for a Request-URI's user part."""

    name: str
    dial: str
    trunk: str
    method: TransferMethod
    ring_seconds: int


@dataclass(frozen=True)
class Refused:
    refusal: Refusal
    detail: str
    """In words that an agent may repeat."""

    @property
    def outcome(self) -> TransferOutcome:
        if self.refusal is Refusal.UNKNOWN_DESTINATION:
            return TransferOutcome.UNKNOWN_DESTINATION
        return TransferOutcome.REFUSED_BY_POLICY


def decide(settings: Settings, agent: str, destination: str, caller_trunk: str = "") -> Allowed | Refused:
    """Whether ``agent`` may transfer a call from ``caller_trunk`` to the destination it named. Names match exactly."""
    configured = settings.agents.get(agent)
    if configured is None or destination not in configured.destinations:
        return _refused(Refusal.UNKNOWN_DESTINATION)
    return resolve(settings, destination, caller_trunk)


def resolve(settings: Settings, destination: str, caller_trunk: str = "") -> Allowed | Refused:
    """What dialling ``destination`` means, whoever asks: an agent by :func:`decide`, or a number's fallback."""
    found = settings.destinations.get(destination)
    if found is None:
        return _refused(Refusal.UNKNOWN_DESTINATION)
    refusal = judge(settings, found.dial)
    if refusal is not None:
        return _refused(refusal)
    trunk = settings.trunks.get(found.trunk)
    if trunk is None or not trunk.gateways:
        return _refused(Refusal.NO_GATEWAY)
    return Allowed(destination, found.dial, found.trunk, _method(settings, found, caller_trunk), found.ring_seconds)


def judge(settings: Settings, dialled: str) -> Refusal | None:
    """Why the policy forbids ``dialled`` (digits as dialled, E.164, or the user part of a URI); None where it does not."""
    digits = numbering.dialled(dialled)
    if not digits.removeprefix("+").isdecimal() or not digits.isascii():
        return Refusal.NOT_A_NUMBER
    if re.fullmatch(emergency_digits(settings), digits):
        return Refusal.EMERGENCY
    number = e164(settings, digits)
    if number is None:
        return None
    if number in settings.numbers:
        return Refusal.OWN_NUMBER
    parts = countries.split(number)
    if parts is None:
        return Refusal.NOT_A_NUMBER
    country, national = parts
    if not re.fullmatch(country.possible, national):
        return Refusal.NOT_A_NUMBER
    if re.fullmatch(premium(settings, country), national):
        return Refusal.PREMIUM
    abroad, home = international(settings, country)
    if re.fullmatch(abroad, national) and not re.fullmatch(home, national):
        return Refusal.INTERNATIONAL
    return None


def emergency_digits(settings: Settings) -> str:
    """Digits that mean an emergency: bare, with the country code, behind an outside line. To be matched whole."""
    home = settings.policy.home_country
    codes = "|".join(
        [*dict.fromkeys([*settings.emergency.numbers, *EMERGENCY_EVERYWHERE]), countries.emergency_numbers(home)]
    )
    return f"[+]?[{''.join(_OUTSIDE_LINES)}]?[+]?({_home(home).country_code})?({codes})"


def premium(settings: Settings, country: countries.Country) -> str:
    """National numbers of ``country`` that the policy forbids as premium."""
    return countries.NOTHING if settings.policy.premium else country.premium


def international(settings: Settings, country: countries.Country) -> tuple[str, str]:
    """National numbers of ``country`` that the policy forbids as international, and those that are at home nevertheless.

    Within +1 another country of the numbering plan counts as abroad.
    """
    home = settings.policy.home_country
    if settings.policy.international:
        return countries.NOTHING, countries.NOTHING
    if country.code != _home(home).country_code:
        return "[0-9]*", countries.NOTHING
    return countries.abroad(home), countries.at_home(home)


def e164(settings: Settings, digits: str) -> str | None:
    """The number in E.164, seen through an outside line; None for an extension."""
    home = _home(settings.policy.home_country)
    candidates = [digits]
    if len(digits) >= _SHORTEST_BEHIND_OUTSIDE_LINE and digits.startswith(_OUTSIDE_LINES):
        candidates.append(digits[1:])
    return next((number for number in map(home.e164, candidates) if number.startswith("+")), None)


def _refused(refusal: Refusal) -> Refused:
    return Refused(refusal, _IN_WORDS[refusal])


def _method(settings: Settings, destination: Destination, caller_trunk: str) -> TransferMethod:
    if destination.transfer is not None:
        return destination.transfer
    trunk = settings.trunks.get(caller_trunk)
    return trunk.transfer if trunk else TransferMethod.BRIDGE


@cache
def _home(region: str) -> numbering.HomeCountry:
    return numbering.home_country(region)
