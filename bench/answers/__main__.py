"""``python -m bench.answers``: every recording's verdict, then false rates and times. ``--out FOLDER`` keeps them as WAV."""

import argparse
import sys
from pathlib import Path

from bench.answers.measure import Judged, judge, summary
from bench.answers.recordings import recordings
from lab.wav import write_mono


def main() -> int:
    parser = argparse.ArgumentParser(prog="bench.answers", description=__doc__)
    parser.add_argument("--out", type=Path, help="folder for the recordings")
    arguments = parser.parse_args()
    judged: list[Judged] = []
    for recording in recordings():
        judged.append(judge(recording))
        if arguments.out:
            arguments.out.mkdir(parents=True, exist_ok=True)
            file = arguments.out / f"{len(judged):02d}-{recording.set.replace(' ', '-')}-{recording.who.value}.wav"
            write_mono(file, recording.pcm)
        print(judged[-1])
    print()
    print("\n".join(summary(judged)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
