"""Arguments of ``uuid_audio_fork``: the exact inverse of FreeSWITCH's own splitting of an argument string.

switch_separate_string splits at spaces, takes a backslash before the next character, and lets apostrophes hold an argument
together. JSON full of quotes, backslashes and apostrophes reaches mod_audio_fork unchanged when it is quoted like this,
and in no simpler way.
"""

_REFUSED = ("\n", "\r", "\0")


class Unquotable(ValueError):
    """The text cannot be an argument: it holds a line end or NUL, which end a command of the event socket."""


def quote(text: str) -> str:
    """One argument that FreeSWITCH reads as ``text``. Raises Unquotable."""
    if any(character in text for character in _REFUSED):
        raise Unquotable("an argument with a line end or NUL would end the command")
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"
