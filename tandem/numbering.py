"""Numbers as people and switches spell them: E.164 from the home country's dialling, and emergency numbers in disguise.

Kamailio's routes CLASSIFY and E164 do the same with the same facts; tests/edge holds both to one table.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from urllib.parse import unquote

import phonenumbers

NEVER = "none"
"""Stands for a prefix that the home country does not have: no dialled number begins with it."""
_NANP = 1
_OUTSIDE_LINE = ("", "9", "0")
"""What people dial for an outside line, and then dial before 911 as well."""
_SERVICE_URN = re.compile(r"urn:service:(test\.)?sos([.;?]|$)", re.IGNORECASE)
_SEPARATORS = re.compile(r"[^0-9A-Za-z+*#]")
_HOST = re.compile(r"^(sips?|tel):([^@]*@)?", re.IGNORECASE)
_ESCAPED = re.compile(r"%(?![0-9A-Fa-f]{2})")


@dataclass(frozen=True)
class HomeCountry:
    """How numbers are dialled there. Prefixes are digits, or NEVER."""

    region: str
    country_code: str
    international_prefix: str
    national_prefix: str
    shortest: int
    """Digits of a national number, without its prefix."""
    longest: int
    bare: bool
    """National numbers are dialled without a prefix too."""

    def e164(self, dialled: str) -> str:
        """``dialled`` (digits, perhaps a plus) in E.164; what is no such number stays as it is."""
        national = f"[0-9]{{{self.shortest},{self.longest}}}"
        if dialled.startswith("+"):
            return dialled
        if re.fullmatch(f"{self.international_prefix}[1-9][0-9]{{6,14}}", dialled):
            return "+" + dialled[len(self.international_prefix) :]
        if re.fullmatch(self.national_prefix + national, dialled):
            return f"+{self.country_code}{dialled[len(self.national_prefix) :]}"
        if re.fullmatch(self.country_code + national, dialled):
            return "+" + dialled
        if self.bare and re.fullmatch(national, dialled):
            return f"+{self.country_code}{dialled}"
        return dialled


def home_country(region: str) -> HomeCountry:
    """Dialling in ``region`` (ISO 3166), from phonenumbers' metadata. Raises ValueError for a region that it lacks."""
    metadata = phonenumbers.PhoneMetadata.metadata_for_region(region)
    if metadata is None or metadata.country_code is None or metadata.general_desc is None:
        raise ValueError(f"nothing is known about dialling in {region!r}; expected an ISO 3166 country code, e.g. US")
    code = metadata.country_code
    lengths = [10] if code == _NANP else [n for n in metadata.general_desc.possible_length if n > 0]
    national = metadata.national_prefix
    return HomeCountry(
        region=region,
        country_code=str(code),
        international_prefix=_digits(metadata.preferred_international_prefix) or _digits(metadata.international_prefix),
        national_prefix=_digits(national) or NEVER,
        shortest=min(lengths),
        longest=min(max(lengths), 15 - len(str(code))),
        bare=code == _NANP or not national,
    )


def _digits(prefix: str | None) -> str:
    """A prefix that is plain digits; a pattern of several is as good as none."""
    return prefix if prefix and prefix.isdigit() else NEVER if prefix else ""


def emergency_spellings(codes: Iterable[str], home: HomeCountry) -> dict[str, str]:
    """Every spelling of an emergency number that is taken for it, and the number meant.

    911, +1911, 1911, and each behind a digit for an outside line: 9911. Longer numbers that only begin so are not here.
    """
    codes = list(codes)
    spellings = {
        f"{outside}{country}{code}": code
        for code in codes
        for outside in _OUTSIDE_LINE
        for country in ("", home.country_code, f"+{home.country_code}")
    }
    return spellings | {code: code for code in codes}


def service_urn(uri: str) -> str | None:
    """``sos`` or ``test.sos`` where ``uri`` is an emergency service URN (RFC 5031, RFC 6881), else None."""
    match = _SERVICE_URN.match(uri)
    if match is None:
        return None
    return "test.sos" if match[1] else "sos"


def dialled(uri: str) -> str:
    """The digits (or letters) of a sip: or tel: URI's user, or of a bare number: no separators, escapes or parameters.

    Of a URI without a user it is empty.
    """
    user = _user(uri)
    if not _ESCAPED.search(user):
        user = unquote(user)
    return _SEPARATORS.sub("", user.split(";")[0])


def emergency_number(uri: str, spellings: Mapping[str, str]) -> str | None:
    """The emergency number that ``uri`` (or a bare number) means, if it does: also where it stands as the host, sip:911."""
    return spellings.get(dialled(uri) or re.split(r"[:;?]", _HOST.sub("", uri))[0])


def _user(uri: str) -> str:
    scheme, colon, text = uri.partition(":")
    if not colon or scheme.lower() not in ("sip", "sips", "tel"):
        return uri
    if scheme.lower() == "tel":
        return text
    user, at, _ = text.partition("@")
    return re.sub(r":.*", "", user) if at else ""
