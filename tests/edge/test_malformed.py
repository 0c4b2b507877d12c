"""Messages mutilated at random places: they do no harm to the call that follows."""

from collections.abc import Callable

from tests.edge.endpoints import SDP, Calling, establish
from tests.edge.world import DID, Edge


def test_mutilated_messages_do_no_harm(edge: Edge):
    edge.expected_errors.append(".")
    calling = Calling(edge.carrier, edge.at, f"sip:{DID}@{edge.at[0]}", "+12025550147")
    whole = calling.compose("INVITE", body=SDP, content_type="application/sdp")
    mutilations: list[Callable[[int], bytes]] = [
        lambda n: whole[: n * 7 % len(whole)],
        lambda n: whole[: n % len(whole)] + bytes([n % 256]) + whole[n % len(whole) + 1 :],
        lambda n: whole.replace(b": ", bytes([n % 256]), n % 5),
        lambda n: whole.replace(b"\r\n", b"\n" * (n % 3), n % 9),
    ]
    for number in range(400):
        edge.carrier.send(mutilations[number % len(mutilations)](number), edge.at)
    after = edge.from_carrier()
    worker, request = edge.first_worker(after.call_id)
    near, _ = establish(after, worker, request)
    near.send("BYE")
    worker.reply(worker.request("BYE", after.call_id), 200)
