"""A briefing: the agent, on a line of its own, tells a colleague who is calling, and hears whether they take the call.

The caller is on hold meanwhile and hears none of it. What comes of it is a Verdict, told to esl_app as soon as it is known.
"""

from typing import Any, Final

from media_fork import tools
from tandem.recording import Recording
from tandem.seam import Briefing
from tandem.settings import Agent

TAKE: Final = "take_call"
DECLINE: Final = "decline_call"

_INSTRUCTIONS: Final = """\
You are on the telephone with a colleague, not with the caller: the caller is on hold and hears none of this. Ask whether they take
the call, and answer what they ask about it in one or two sentences, from what is known below and nothing else; where you do not
know, say so. As soon as they agree, call {take}. When they decline, cannot, or are the wrong person, call {decline}. When you hear a
voicemail greeting, an announcement or a tone rather than a person, call {machine} at once, and say nothing.
They may also press 1 to take the call, or 2 to decline it.
Caller: {caller}
What the caller wants: {reason}
What was said so far: {summary}"""


def agent_of(agent: Agent, briefing: Briefing) -> Agent:
    """The agent as it is with a colleague: its own voice and language, none of its tools."""
    summary = " ".join((briefing.summary or briefing.reason).split())
    return agent.model_copy(
        update={
            "instructions": instructions(briefing),
            "greeting": agent.briefing.replace("{summary}", summary),
            "destinations": [],
            "free_numbers": [],
            "tools": [],
            "collect": [],
            "sends_digits": False,
            "holds": False,
            "recording": Recording(),
        }
    )


def instructions(briefing: Briefing) -> str:
    """What the agent is told to be."""
    return _INSTRUCTIONS.format(
        take=TAKE,
        decline=DECLINE,
        machine=tools.MACHINE,
        caller=briefing.caller or "unknown",
        reason=briefing.reason or "unknown",
        summary=briefing.summary or "nothing is known",
    )


def definitions() -> list[dict[str, Any]]:
    """The ``tools`` of session.update."""
    return [
        tools.report(TAKE, "The colleague takes the call: connect them with the caller."),
        tools.report(DECLINE, "The colleague does not take the call."),
        tools.report(tools.MACHINE, "A voicemail or an announcement has answered, not a person."),
    ]


class BriefingOffer:
    """What an agent is told to be and to have in a briefing (see Offer)."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent

    def instructions(self) -> str:
        return self._agent.instructions

    def tools(self) -> list[dict[str, Any]]:
        return definitions()
