"""``python -m tests.walk``: half an hour of random calls on one switch, then what is left of them. See docs/lab.md."""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path

from lab.switches import SwitchKind, available
from tests.walk.site import walk_cell
from tests.walk.walk import Walk


async def _walk(options: argparse.Namespace, kind: SwitchKind) -> int:
    with tempfile.TemporaryDirectory(prefix="tandem-walk-") as directory:
        async with walk_cell(Path(directory), kind) as cell:
            walk = Walk(cell, options.seed, options.callers, options.kill_every or None)
            left = await walk.run(60 * options.minutes)
    print(f"{kind}, seed {options.seed}: " + ", ".join(f"{what} {times}" for what, times in sorted(walk.done.items())))
    print(f"left: {left}" if left else "nothing is left")
    return 1 if left else 0


def main() -> int:
    parser = argparse.ArgumentParser(
        description="Calls that do random things; exit status 1 where anything is left of them."
    )
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument(
        "--seed", type=int, default=int(time.time()), help="decides what the calls do; default: the time"
    )
    parser.add_argument("--callers", type=int, default=8, help="at a time")
    parser.add_argument(
        "--switch", choices=[str(kind) for kind in SwitchKind], help="default: FreeSWITCH if there is one"
    )
    parser.add_argument("--kill-every", type=float, default=60.0, help="seconds between kills of esl_app; 0: none")
    options = parser.parse_args()
    missing = available()
    kind = SwitchKind(options.switch) if options.switch else SwitchKind.FREESWITCH
    if missing[kind] and not options.switch:
        kind = SwitchKind.LAB
    if missing[kind]:
        print(f"walk: {missing[kind]}", file=sys.stderr)
        return 2
    return asyncio.run(_walk(options, kind))


if __name__ == "__main__":
    sys.exit(main())
