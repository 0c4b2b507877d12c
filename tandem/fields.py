"""The forms of single values in the configuration: addresses, numbers, names, secrets. Each says what it expected."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated, Any

import phonenumbers
from pydantic import AfterValidator, BeforeValidator, Field, SecretStr, ValidationInfo
from sqlalchemy import make_url
from sqlalchemy.exc import ArgumentError

from tandem import numbering

_GATEWAY_PARTS = re.compile(r"sip:(\[[^]]*\]|[^:;]*)(?::([0-9]+))?")


def _network(text: str) -> str:
    try:
        network = ipaddress.ip_network(text, strict=True)
    except ValueError as error:
        raise ValueError(f"{text!r} is not a network in CIDR form ({error}); expected e.g. 203.0.113.0/24") from None
    if not network.prefixlen:
        raise ValueError(f"{text!r} is everybody; expected the addresses that this peer signals from")
    return str(network)


def _address(text: str) -> str:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        raise ValueError(f"{text!r} is not an IP address; expected e.g. 203.0.113.10") from None
    if address.is_unspecified:
        raise ValueError(f"{text!r} is every address of a machine; expected one that others reach, e.g. 203.0.113.10")
    return str(address)


def _host(text: str) -> str:
    # No top-level domain is a number (RFC 1123 section 2.1): what ends in one is an address.
    return _address(text) if text.rpartition(".")[2].isdecimal() else text


def _gateway(text: str) -> str:
    host, port = _GATEWAY_PARTS.findall(text)[0]
    if host.startswith("["):
        _address(host[1:-1])
    else:
        _host(host)
    if port and not 1 <= int(port) <= 65535:
        raise ValueError(f"{text!r} has port {port}; expected 1 to 65535")
    return text


def _country(text: str) -> str:
    numbering.home_country(text)
    return text


def _e164(text: str) -> str:
    expected = "expected a number in E.164 form, e.g. +12025550100"
    try:
        number = phonenumbers.parse(text, None)
    except phonenumbers.NumberParseException:
        raise ValueError(f"{text!r} is not E.164; {expected}") from None
    if phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164) != text:
        raise ValueError(f"{text!r} is not E.164; {expected}")
    if not phonenumbers.is_possible_number(number):
        raise ValueError(f"{text!r} is not a possible number for its country code; {expected}")
    return text


def _secret(value: Any, info: ValidationInfo) -> Any:
    if isinstance(value, dict) and set(value) == {"file"}:
        path = (info.context or {}).get("folder", Path()) / str(value["file"])
        try:
            value = path.read_text(encoding="utf-8").strip()
        except (OSError, ValueError) as error:
            raise ValueError(
                f"secret file {path} cannot be read: {getattr(error, 'strerror', None) or error}"
            ) from None
        if not value:
            raise ValueError(f"secret file {path} is empty")
    if not isinstance(value, str | int | SecretStr) or isinstance(value, bool):
        raise ValueError("expected text, ${NAME} for an environment variable, or {file: PATH}")  # noqa: TRY004
    return value if isinstance(value, SecretStr) else str(value)


def _loopback_port(text: str) -> str:
    host, _, port = text.rpartition(":")
    try:
        if ipaddress.ip_address(host).is_loopback and 1 <= int(port) <= 65535:
            return text
    except ValueError:
        pass
    raise ValueError(f"{text!r} is not ADDRESS:PORT on loopback; expected e.g. 127.0.0.1:5067")


def _private_port(text: str) -> str:
    host, _, port = text.rpartition(":")
    try:
        if ipaddress.IPv4Address(host).is_private and 1 <= int(port) <= 65535:
            return text
    except ValueError:
        pass
    raise ValueError(
        f"{text!r} is not ADDRESS:PORT on loopback or a private IPv4 network; expected e.g. 127.0.0.1:2223"
    )


def _database_url(text: str) -> str:
    expected = "expected sqlite:///PATH or postgresql+psycopg://USER:PASSWORD@HOST/DATABASE"
    try:
        url = make_url(text)
    except ArgumentError:
        raise ValueError(f"is not a database URL; {expected}") from None
    if url.drivername not in ("sqlite", "postgresql+psycopg"):
        raise ValueError(f"{url.drivername!r} is no database known here; {expected}")
    if url.database in (None, "", ":memory:"):
        raise ValueError(f"names no database; {expected}")
    return text


def _password(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[!-~]{1,128}", secret.get_secret_value()):
        raise ValueError("expected 1 to 128 printable ASCII characters without a space")
    return secret


def _api_token(secret: SecretStr) -> SecretStr:
    if not re.fullmatch(r"[A-Za-z0-9._~+/=-]{16,256}", secret.get_secret_value()):
        raise ValueError("expected 16 to 256 letters, digits and . _ ~ + / = -, as of `openssl rand -hex 32`")
    return secret


def matching(pattern: str, expected: str) -> AfterValidator:
    """Text of one form, told in words when it is not."""
    compiled = re.compile(pattern)

    def check(text: str) -> str:
        if not compiled.fullmatch(text):
            raise ValueError(f"{text!r} cannot be used; expected {expected}")
        return text

    return AfterValidator(check)


Network = Annotated[str, AfterValidator(_network)]
Address = Annotated[str, AfterValidator(_address)]
E164 = Annotated[str, AfterValidator(_e164)]
Secret = Annotated[SecretStr, BeforeValidator(_secret)]
Port = Annotated[int, Field(ge=1, le=65535)]
Prefix = Annotated[str, matching(r"\+[0-9]{0,14}", "the beginning of an E.164 number, e.g. +44, or + for all")]
Text = Annotated[str, Field(min_length=1)]
Name = Annotated[
    str, matching(r"[a-z0-9][a-z0-9_-]{0,62}", "a name of small letters, digits, - and _, at most 63 characters")
]
Dialled = Annotated[
    str,
    matching(r"\+[1-9][0-9]{6,14}|[0-9]{1,15}|[*][0-9*]{1,14}", "an E.164 number, an extension of digits, or a * code"),
]
"""An E.164 number, an extension of digits, or a feature code."""
ReferHeader = Annotated[
    str,
    matching(
        r"(?i:X-(?!(Tandem|FS|Twilio)-)[a-z0-9-]{1,60})",
        "X- and letters, digits or -, but no X-Tandem-, X-FS- or X-Twilio-",
    ),
]
Extension = Annotated[str, matching(r"[0-9*#]{1,15}", "the first digits of an extension")]
ShortCode = Annotated[str, matching(r"[0-9]{2,6}", "an emergency number of 2 to 6 digits")]
Country = Annotated[str, matching(r"[A-Z]{2}", "an ISO 3166 country code, e.g. US"), AfterValidator(_country)]
"""A country that phonenumbers has the dialling of."""
Host = Annotated[
    str,
    matching(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,252}[A-Za-z0-9])?", "a host name or an IPv4 address"),
    AfterValidator(_host),
]
SipUri = Annotated[
    str,
    matching(
        r"sip:([A-Za-z0-9.-]+|\[[0-9a-fA-F:.]+\])(:[0-9]{1,5})?(;transport=(udp|tcp|tls))?",
        "sip:HOST, sip:HOST:PORT or sip:HOST:PORT;transport=tcp (or tls), without a user part",
    ),
    AfterValidator(_gateway),
]
"""``sip:host:port;transport=udp``: where a trunk's requests are sent; no user part."""
LoopbackPort = Annotated[str, AfterValidator(_loopback_port)]
"""``127.0.0.1:5067``."""
PrivatePort = Annotated[str, AfterValidator(_private_port)]
"""``10.0.0.20:2223``: where none but our own machines reach; loopback too."""
DatabaseUrl = Annotated[str, AfterValidator(_database_url)]
ApiToken = Annotated[Secret, AfterValidator(_api_token)]
"""A bearer token (RFC 6750 section 2.1), long enough not to be guessed."""
Password = Annotated[Secret, AfterValidator(_password)]
"""Of the event socket, whose protocol is lines of text."""
