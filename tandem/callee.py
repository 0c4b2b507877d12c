"""What a dialled number is: in E.164 or an extension, of which kinds; or no number, or an emergency.

Its expressions are rendered for the edge too, which judges by them alike: see kamailio/policy.cfg and
:mod:`tandem.dial_tables`.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, cached_property

from tandem import countries, numbering
from tandem.dial_rules import Kind
from tandem.settings import Settings, TrunkKind

EMERGENCY_EVERYWHERE = ("911", "933", "988", "112")
"""Never dialled by an agent, whatever ``emergency.numbers`` holds: emergencies, their test, the crisis line, the GSM one."""
FEATURE_CODE = r"[*][0-9*]{1,14}"
"""A PBX's code. One with # cannot be put in a Request-URI as it is, and is no number here."""
_OUTSIDE_LINES = ("9", "0", "8")
"""Digits that a PBX may take for an outside line: the number behind one is judged as well."""
_SHORTEST_BEHIND_OUTSIDE_LINE = 8
_METADATA: Mapping[Kind, str] = {
    kind: "premium_rate" if kind is Kind.PREMIUM else kind.value
    for kind in Kind
    if kind not in (Kind.INTERNATIONAL, Kind.OWN_NUMBER, Kind.EXTENSION, Kind.FEATURE_CODE)
}
"""Kinds that phonenumbers knows, as its metadata name them."""


class NotANumber(ValueError):
    """Nothing that can be dialled."""


class Emergency(ValueError):
    """A number that is an emergency's, in whatever spelling."""


@dataclass(frozen=True)
class Callee:
    """A number that is none of an emergency."""

    settings: Settings
    dialled: str
    """Digits, perhaps a plus; or a feature code."""
    number: str | None
    """In E.164, seen through an outside line; None for an extension or a code."""
    country: countries.Country | None
    national: str
    """Without the country code."""

    def has(self, kind: Kind) -> bool:
        if kind not in _METADATA:
            return kind in self._others
        return self.country is not None and re.fullmatch(pattern(self.country, kind), self.national) is not None

    @cached_property
    def _others(self) -> frozenset[Kind]:
        """Kinds that phonenumbers knows nothing of."""
        if self.country is None:
            return frozenset({Kind.FEATURE_CODE if self.dialled.startswith("*") else Kind.EXTENSION})
        found = set()
        if self.number in self.settings.numbers:
            found.add(Kind.OWN_NUMBER)
        away, home = abroad(self.settings, self.country)
        if re.fullmatch(away, self.national) and not re.fullmatch(home, self.national):
            found.add(Kind.INTERNATIONAL)
        return frozenset(found)


def read(settings: Settings, text: str) -> Callee:
    """``text``: digits as dialled, E.164, a feature code, or a whole URI. Raises NotANumber, Emergency."""
    dialled = numbering.dialled(text)
    if re.fullmatch(FEATURE_CODE, dialled):
        return Callee(settings, dialled, None, None, "")
    if not re.fullmatch("[+]?[0-9]+", dialled):
        raise NotANumber(text)
    if re.fullmatch(emergency_digits(settings), dialled):
        raise Emergency(text)
    number = e164(settings, dialled)
    if number is None:
        if len(dialled) > settings.policy.extension_digits:
            raise NotANumber(text)
        return Callee(settings, dialled, None, None, "")
    parts = countries.split(number)
    if parts is None or not re.fullmatch(parts[0].possible, parts[1]):
        raise NotANumber(text)
    return Callee(settings, dialled, number, *parts)


def emergency_digits(settings: Settings) -> str:
    """Digits that mean an emergency: bare, with the country code, behind an outside line. To be matched whole."""
    home = settings.policy.home_country
    codes = "|".join(
        [*dict.fromkeys([*settings.emergency.numbers, *EMERGENCY_EVERYWHERE]), countries.emergency_numbers(home)]
    )
    return f"[+]?[{''.join(_OUTSIDE_LINES)}]?[+]?({_home(home).country_code})?({codes})"


def pattern(country: countries.Country, kind: Kind) -> str:
    """National numbers of ``country`` that are of a ``kind`` that phonenumbers knows."""
    return country.premium if kind is Kind.PREMIUM else countries.numbers(country.code, _METADATA[kind])


def is_pattern(kind: Kind) -> bool:
    """Whether :func:`pattern` has it."""
    return kind in _METADATA


def abroad(settings: Settings, country: countries.Country) -> tuple[str, str]:
    """National numbers of ``country`` that are abroad, and those that are at home nevertheless.

    Within +1 another country of the numbering plan counts as abroad.
    """
    home = settings.policy.home_country
    if country.code != _home(home).country_code:
        return "[0-9]*", countries.NOTHING
    return countries.abroad(home), countries.at_home(home)


def as_judged(settings: Settings, digits: str, trunk: str) -> str:
    """What a trunk is given for ``digits``: a PBX these, a carrier the number in E.164, where it is one."""
    over = settings.trunks.get(trunk)
    if over is None or over.kind is TrunkKind.PBX:
        return digits
    return e164(settings, digits) or digits


def e164(settings: Settings, digits: str) -> str | None:
    """The number in E.164, seen through an outside line; None for an extension."""
    home = _home(settings.policy.home_country)
    candidates = [digits]
    if len(digits) >= _SHORTEST_BEHIND_OUTSIDE_LINE and digits.startswith(_OUTSIDE_LINES):
        candidates.append(digits[1:])
    return next((number for number in map(home.e164, candidates) if number.startswith("+")), None)


@cache
def _home(region: str) -> numbering.HomeCountry:
    return numbering.home_country(region)
