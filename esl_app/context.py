"""What goes along with a transferred caller: a short key for the screen-pop, and headers for peers that are trusted.

The key is opaque and random; whoever has it may read the conversation until it expires. Of it the records have a digest only.
"""

import hashlib
import secrets
from dataclasses import dataclass
from urllib.parse import quote

from tandem.webhooks import Context

KEY_BYTES = 12
MAX_HEADER = 600
"""Characters of a header's value, escaped."""
_IA5 = "04"
"""Protocol discriminator of RFC 7434: IA5 characters follow."""


def new_key() -> str:
    """16 characters that are letters, digits, - and _."""
    return secrets.token_urlsafe(KEY_BYTES)


def digest(key: str) -> str:
    """By which the records find the transfer of a key."""
    return hashlib.sha256(key.encode()).hexdigest()


@dataclass(frozen=True)
class Carried:
    """One transfer's: its ``key``, and what a trusted peer is told in words."""

    key: str
    call: str
    agent: str
    reason: str
    summary: str

    def headers(self, context: Context) -> dict[str, str]:
        """Headers of the INVITE to the target: text percent-encoded UTF-8, so that it can be part of a dial string."""
        if context is Context.NONE:
            return {}
        told = {"User-to-User": self._user_to_user}
        if context is Context.FULL:
            words = {"Key": self.key, "Call": self.call, "Agent": self.agent}
            words |= {"Reason": self.reason, "Summary": self.summary}
            escaped = {f"X-Context-{name}": _escaped(text) for name, text in words.items()}
            told |= {name: value for name, value in escaped.items() if value}
        return told

    def refer_to(self, context: Context) -> str:
        """The part of a Refer-To that gives the new call its User-to-User (RFC 7433 section 4.1); empty where there is none."""
        return "" if context is Context.NONE else f"User-to-User={quote(self._user_to_user, safe='')}"

    @property
    def _user_to_user(self) -> str:
        return f"{_IA5}{self.key.encode().hex()};encoding=hex"


def _escaped(text: str) -> str:
    """At most MAX_HEADER characters, cut between two characters of ``text``."""
    parts: list[str] = []
    length = 0
    for character in " ".join(text.split()):
        part = quote(character, safe="")
        length += len(part)
        if length > MAX_HEADER:
            break
        parts.append(part)
    return "".join(parts)
