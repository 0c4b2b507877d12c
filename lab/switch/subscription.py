"""What one event socket client wants to hear: ``event``, ``nixevent``, ``filter``, ``myevents``."""

from lab.switch.event import ALL, CUSTOM, EVENT_NAMES, Event

MYEVENTS = frozenset(
    """
    CHANNEL_ANSWER CHANNEL_APPLICATION CHANNEL_BRIDGE CHANNEL_CREATE CHANNEL_DATA CHANNEL_DESTROY CHANNEL_EXECUTE
    CHANNEL_EXECUTE_COMPLETE CHANNEL_HANGUP CHANNEL_HANGUP_COMPLETE CHANNEL_ORIGINATE CHANNEL_UUID CHANNEL_OUTGOING
    CHANNEL_PARK CHANNEL_PROGRESS CHANNEL_PROGRESS_MEDIA CHANNEL_STATE CHANNEL_UNBRIDGE CHANNEL_UNPARK DETECTED_SPEECH
    DTMF NOTALK TALK
    """.split()  # noqa: SIM905
)


class Subscription:
    """Nothing, until the client asks."""

    def __init__(self) -> None:
        self.listening = False
        self.format = "plain"
        """plain or json."""
        self.own: str | None = None
        """After ``myevents``: the only channel (UUID) whose events are told."""
        self._wanted: set[str] = set()
        self._wanted_custom: set[str] = set()
        self._all_custom = False
        self._filters: list[tuple[str, str]] = []

    # Commands

    def event(self, line: str) -> str:
        """``event plain|json NAMES…``: the reply's text."""
        words = line.split()[1:]
        if words and words[0].lower() in ("plain", "json", "xml"):
            if words[0].lower() == "xml":
                return "-ERR format xml is not supported"
            self.format = words.pop(0).lower()
        known = 0
        custom = False
        for word in words:
            name = word.upper().removeprefix("SWITCH_EVENT_")
            if custom:
                self._wanted_custom.add(word)
            elif name in EVENT_NAMES:
                known += 1
                custom = name == CUSTOM
                self._wanted.add(name)
                self._all_custom = self._all_custom or name == ALL
        if not known:
            return "-ERR no keywords supplied"
        self.listening = True
        return f"+OK event listener enabled {self.format}"

    def nixevent(self, line: str) -> str:
        """``nixevent NAMES…``: the reply's text."""
        known = 0
        custom = False
        for word in line.split()[1:]:
            name = word.upper()
            if custom:
                self._wanted_custom.discard(word)
            elif name in EVENT_NAMES:
                known += 1
                custom = name == CUSTOM
                if name == ALL:
                    self._wanted.clear()
                elif name != CUSTOM:
                    if ALL in self._wanted:
                        self._wanted = set(EVENT_NAMES) - {ALL}
                    self._wanted.discard(name)
        return "+OK events nixed" if known else "-ERR no keywords supplied"

    def noevents(self) -> str:
        """``noevents``: the reply's text."""
        if not self.listening:
            return "-ERR not listening for events"
        self.listening = self._all_custom = False
        self._wanted.clear()
        self._wanted_custom.clear()
        return "+OK no longer listening for events"

    def filter(self, text: str) -> str:
        """``filter NAME VALUE`` and ``filter delete``: the reply's text."""
        name, _, value = text.strip(" ").partition(" ")
        if name.lower() == "delete" and value:
            name, _, value = value.partition(" ")
            if name.lower() == "all":
                self._filters.clear()
            else:
                self._filters = [
                    (key, wanted)
                    for key, wanted in self._filters
                    if key.lower() != name.lower() or (value and wanted != value)
                ]
            return f"+OK filter deleted. [{name}][{value}]"
        if not value:
            return "-ERR invalid syntax"
        if name.lower() == "add":
            name, _, value = value.partition(" ")
        self._filters.append((name, value))
        return f"+OK filter added. [{name}]=[{value}]"

    def myevents(self, own: str, *, json: bool) -> None:
        """Hear a channel's events, and of those only."""
        self.own = own
        self.format = "json" if json else self.format
        self._wanted |= MYEVENTS
        self.listening = True

    # Events

    def wants(self, event: Event) -> bool:
        """Whether the client is to be told of this event."""
        if not self.listening:
            return False
        wanted = ALL in self._wanted or event.name in self._wanted
        if wanted and event.name == CUSTOM and not self._all_custom:
            wanted = event.subclass in self._wanted_custom
        if wanted and self._filters:
            wanted = self._passes_filters(event)
        if wanted and self.own is not None:
            wanted = self.own in (event.get("Unique-ID"), event.get("Job-Owner-UUID"))
        return wanted

    def _passes_filters(self, event: Event) -> bool:
        passes = False
        for name, comparison in self._filters:
            value = event.get(name)
            if value is None:
                continue
            positive = not comparison.startswith("-")
            if passes and positive:
                continue
            if value.lower() == comparison.lstrip("+- ").lower():
                if not positive:
                    return False
                passes = True
        return passes
