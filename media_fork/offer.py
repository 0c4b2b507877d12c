"""What an agent is told to be and to have: its instructions and tools, as far as the servers of its tools are fit."""

from collections.abc import Iterator, Mapping
from typing import Any, Final

from media_fork import tools
from media_fork.toolservers import ToolServers
from tandem.destinations import Destination, RingGroup
from tandem.seam import Placed
from tandem.settings import Agent

KEYS: Final = "A message that begins with [DTMF] has the keys which the caller pressed on the telephone."
TOLD: Final = "A message that begins with [Tandem] is from the telephone system: act on it, and do not read it out."
SAFE_MODE: Final = (
    "Out of order at the moment: {names}. Do not offer or promise what needs them, and never make up what they would have"
    " told you. Say that this cannot be looked up or done just now, and offer what you can do without."
)


class Offer:
    """One agent's. What it gives changes when ToolServers.on_change says so."""

    def __init__(
        self,
        agent: Agent,
        destinations: Mapping[str, Destination | RingGroup],
        servers: ToolServers,
        placed: Placed | None = None,
    ) -> None:
        self._agent = agent
        self._destinations = destinations
        self._servers = servers
        self._placed = placed

    def instructions(self) -> str:
        """The agent's; in safe mode its own for that, or the usual ones and what is out of order."""
        agent = self._agent
        down = [tool.name for tool in agent.tools if not self._servers.is_offered(tool)]
        lines = [agent.instructions.strip(), KEYS]
        if down and agent.safe_instructions is not None:
            lines[0] = agent.safe_instructions.strip()
        elif down:
            lines.append(SAFE_MODE.format(names=", ".join(down)))
        if self._placed is not None:
            lines += _placed(self._placed)
        return "\n".join(lines)

    def tools(self) -> list[dict[str, Any]]:
        """The ``tools`` of session.update: without those whose server is down."""
        fit = [tool for tool in self._agent.tools if self._servers.is_offered(tool)]
        return tools.definitions(self._agent.model_copy(update={"tools": fit}), self._destinations, self._placed)


def _placed(placed: Placed) -> Iterator[str]:
    """What the agent must know of a call that it placed."""
    yield TOLD
    yield "You have placed this call: the person whom you speak with was called by you."
    if placed.context.strip():
        yield f"What it is about: {placed.context.strip()}"
