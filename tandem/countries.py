"""Telephone numbers of the world's countries as POSIX extended regular expressions over digits, from phonenumbers' metadata.

Python's ``re`` and Kamailio's ``=~`` read them alike, so that the dial policy of the agents (:mod:`tandem.dial_policy`) and that
of the edge (kamailio/policy.cfg) are one. All are to be matched whole, and without the plus.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import phonenumbers
from phonenumbers import PhoneMetadata

NOTHING = "x"
"""Matches no digits."""
_NANP = 1
_NANP_PREMIUM_EXCHANGE = "[0-9]{3}976[0-9]{4}"
_KINDS = (
    "premium_rate",
    "toll_free",
    "shared_cost",
    "voip",
    "personal_number",
    "pager",
    "uan",
    "voicemail",
    "fixed_line",
    "mobile",
)


@dataclass(frozen=True)
class Country:
    """A country calling code (ITU E.164), and which national numbers follow it."""

    code: str
    possible: str
    """Of a length that is in use."""
    premium: str
    """In any of the countries that share the code."""


@cache
def countries() -> dict[str, Country]:
    """Every country calling code in use."""
    return {str(code): _country(code) for code in phonenumbers.COUNTRY_CODE_TO_REGION_CODE}


def split(e164: str) -> tuple[Country, str] | None:
    """The country of a number in E.164 and its national number; None where no country has that code."""
    digits = e164.removeprefix("+")
    for length in (1, 2, 3):
        if country := countries().get(digits[:length]):
            return country, digits[length:]
    return None


@cache
def numbers(code: str, kind: str) -> str:
    """National numbers of a ``kind`` (as phonenumbers' metadata name it) in any of the countries that share ``code``."""
    regions = phonenumbers.COUNTRY_CODE_TO_REGION_CODE[int(code)]
    return _union(_pattern(getattr(_metadata(int(code), region), kind)) for region in regions)


@cache
def at_home(region: str) -> str:
    """National numbers that are in use in ``region`` (ISO 3166)."""
    return _union(_in_use(_metadata(phonenumbers.country_code_for_region(region), region)))


@cache
def abroad(region: str) -> str:
    """National numbers of the countries that share the calling code of ``region``: for US those of Canada and the Caribbean."""
    code = phonenumbers.country_code_for_region(region)
    others = [_metadata(code, other) for other in phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code] if other != region]
    whole = [f"({_portable(metadata.leading_digits)})[0-9]*" for metadata in others if metadata.leading_digits]
    return _union([*whole, *(pattern for metadata in others for pattern in _in_use(metadata))])


@cache
def emergency_numbers(region: str) -> str:
    """Emergency numbers of ``region`` (ISO 3166)."""
    metadata = PhoneMetadata.short_metadata_for_region(region)
    return _pattern(metadata.emergency) if metadata else NOTHING


def _country(code: int) -> Country:
    found = [_metadata(code, region) for region in phonenumbers.COUNTRY_CODE_TO_REGION_CODE[code]]
    lengths = sorted({n for metadata in found for n in _lengths(metadata)})
    premium = [_pattern(metadata.premium_rate) for metadata in found]
    if code == _NANP:
        premium.append(_NANP_PREMIUM_EXCHANGE)
    return Country(str(code), _union(f"[0-9]{{{length}}}" for length in lengths), _union(premium))


def _metadata(code: int, region: str) -> PhoneMetadata:
    metadata = PhoneMetadata.metadata_for_region_or_calling_code(code, region)
    assert metadata is not None, f"phonenumbers lists the region {region} and has no metadata of it"
    return metadata


def _lengths(metadata: PhoneMetadata) -> list[int]:
    return [length for length in metadata.general_desc.possible_length if length > 0] if metadata.general_desc else []


def _in_use(metadata: PhoneMetadata) -> list[str]:
    return [_pattern(getattr(metadata, kind)) for kind in _KINDS]


def _pattern(numbers: phonenumbers.PhoneNumberDesc | None) -> str:
    if numbers is None or not numbers.national_number_pattern:
        return NOTHING
    return _portable(numbers.national_number_pattern)


def _portable(pattern: str) -> str:
    return pattern.replace("(?:", "(").replace(r"\d", "[0-9]")


def _union(patterns: Iterable[str]) -> str:
    return "|".join(dict.fromkeys(pattern for pattern in patterns if pattern != NOTHING)) or NOTHING
