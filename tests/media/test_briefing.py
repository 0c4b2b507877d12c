"""Briefings: the session is a colleague's, with what is known of the caller and no tool but three answers."""

import pytest

from tests.media.scripted_model import function_call

BRIEFING = {"caller": "+12025550147", "reason": "an umbrella", "summary": "Ann has lost  her\nblue umbrella."}


async def test_the_model_is_told_of_the_caller_and_has_only_answers_to_give(plane):
    fork, session = await plane.call(briefing=BRIEFING)
    update = (await session.event("session.update"))["session"]
    assert {tool["name"] for tool in update["tools"]} == {"take_call", "decline_call", "answering_machine"}
    for words in ("+12025550147", "an umbrella", "her\nblue umbrella"):
        assert words in update["instructions"]
    greeting = (await session.event("response.create"))["response"]["instructions"]
    assert "You have a call. Ann has lost her blue umbrella. To take it, say yes" in greeting
    await fork.close()


@pytest.mark.parametrize(
    ("tool", "answer"), [("take_call", "takes"), ("decline_call", "declines"), ("answering_machine", "machine")]
)
async def test_an_answer_is_told_at_once(plane, tool, answer):
    fork, session = await plane.call(briefing=BRIEFING)
    await session.created("resp_1")
    await session.done("resp_1", calls=(function_call("fc_1", tool, {}),))
    assert await fork.command() == {"command": "verdict", "answer": answer}
    await fork.close()


async def test_the_agents_own_tools_are_none_of_a_briefing(plane):
    fork, session = await plane.call(briefing=BRIEFING)
    await session.created("resp_1")
    await session.done("resp_1", calls=(function_call("fc_1", "lookup_order", {}),))
    item = await session.event("conversation.item.create")
    assert "no tool named" in item["item"]["output"]
    await fork.close()


async def test_no_other_call_can_give_such_an_answer(plane):
    fork, session = await plane.call()
    await session.created("resp_1")
    await session.done("resp_1", calls=(function_call("fc_1", "take_call", {}),))
    item = await session.event("conversation.item.create")
    assert "no tool named" in item["item"]["output"]
    await fork.close()
