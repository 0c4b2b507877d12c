"""``python -m lab.switch --config PATH --worker NAME``: the lab's switch in FreeSWITCH's place."""

import asyncio
import logging
import signal
import sys

import uvloop

from lab.switch.core import Switch
from tandem import entry


def main() -> int:
    parser = entry.command_line("lab.switch", "The lab's switch in FreeSWITCH's place.")
    parser.add_argument(
        "--double-frame-every",
        type=int,
        default=200,
        metavar="N",
        help="send each N-th audio frame of a fork together with the next, as FreeSWITCH now and then does; 0: never",
    )
    arguments = parser.parse_args()
    settings = entry.begin("switch", arguments)
    logging.getLogger("picows").setLevel(logging.WARNING)
    switch = Switch(settings, arguments.worker, double_frame_every=arguments.double_frame_every)
    return uvloop.run(serve(switch))


async def serve(switch: Switch) -> int:
    """Run until SIGTERM or SIGINT; calls are hung up, as FreeSWITCH does at its shutdown."""
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    try:
        await switch.start()
    except OSError as error:
        print(error, file=sys.stderr)
        return 1
    await stopping.wait()
    await switch.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
