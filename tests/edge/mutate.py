"""Finds what in Kamailio's configuration no scenario needs: ``python -m tests.edge.mutate``.

Each statement of each route is removed in turn, each condition made always true and never true, and rid of each of its
parts. Only the scenarios that execute the statement are played, until one fails; where none does the mutant survives, and
either a scenario is missing or the statement is needless. What was found is kept under --out, so that the next run only
plays what has changed since.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tandem.edge import PRIVATE_MEMORY
from tandem.render import render
from tandem.shipped import shipped
from tests.edge.mutants import Mutant, marked, mutants, routes
from tests.edge.play import Failed, play
from tests.edge.scenario import Scenario, load
from tests.edge.world import KAMAILIO, load_site

SCENARIOS = Path(__file__).parent / "scenarios"
ELSEWHERE = {"http.cfg"}
"""Files held by tests that are no scenarios."""
_AROUND = 15
"""Lines before and behind a statement in which its scenarios may differ from others."""
_CALL = re.compile(r"\broute\((\w+)\)")
_MARK = re.compile(r"<script>: AT (\S+:\d+)")
Record = dict[str, Any]


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]


class Store:
    """What is known from earlier runs: one JSON object a line, the last of a key counts."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._records: dict[str, Record] = {}
        if path.exists():
            for line in path.read_text(encoding="utf-8").splitlines():
                record = json.loads(line)
                self._records[record["key"]] = record

    def get(self, key: str) -> Record | None:
        return self._records.get(key)

    def put(self, record: Record) -> None:
        self._records[record["key"]] = record
        with self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")


class Suite:
    """The scenarios by name, the digest of each, and the statements that each executes."""

    def __init__(self, files: list[Path]) -> None:
        self.scenarios = {scenario.name: scenario for scenario in map(load, files)}
        self.digests = {name: self._digest(scenario) for name, scenario in self.scenarios.items()}
        self.lines: dict[str, set[str]] = {}
        self.seconds: dict[str, float] = {}
        self.executed: Counter[str] = Counter()
        """How many scenarios execute each statement."""
        self.places: dict[str, set[str]] = {}
        """The statements of each route."""
        self.kills: Counter[tuple[str, str]] = Counter()
        """How many mutants of a route each scenario killed."""

    @staticmethod
    def _digest(scenario: Scenario) -> str:
        files = sorted(path for path in scenario.folder.rglob("*") if path.is_file())
        return digest(*(hashlib.sha256(path.read_bytes()).hexdigest() for path in files))

    def measure(self, store: Store, sources: Path, jobs: int) -> list[str]:
        """Play what is not measured yet; the names of scenarios that fail as things are, which are not used."""
        configuration = digest(*(path.read_text(encoding="utf-8") for path in parts(sources)))
        keys = {name: digest("coverage", name, self.digests[name], configuration) for name in self.scenarios}
        with tempfile.TemporaryDirectory(prefix="marked-") as folder:
            for path in parts(sources):
                if path.name not in ELSEWHERE:
                    (Path(folder) / path.name).write_text(marked(path), encoding="utf-8")
            with executor(jobs) as pool:
                pending = {
                    pool.submit(cover, str(self.scenarios[name].file), folder): name
                    for name, key in keys.items()
                    if not store.get(key)
                }
                for done in concurrent.futures.as_completed(pending):
                    if done.exception() is None:
                        store.put({"key": keys[pending[done]], **done.result()})
        failing = []
        for name, key in keys.items():
            record = store.get(key)
            if record is None or record["failure"]:
                failing.append(name)
                continue
            self.lines[name], self.seconds[name] = set(record["lines"]), record["seconds"]
            self.executed.update(self.lines[name])
        for path in parts(sources):
            for mutant in mutants(path):
                self.places.setdefault(mutant.route, set()).add(f"{mutant.file}:{mutant.line}")
        return failing

    def covering(self, mutant: Mutant) -> list[str]:
        """Scenarios that execute the statement: first those that killed others of its route, then those that execute
        around it, or in the route that it calls, what few others do.
        """
        place = f"{mutant.file}:{mutant.line}"
        names = [name for name, lines in self.lines.items() if not mutant.route or place in lines]
        around = {f"{mutant.file}:{line}" for line in range(mutant.line - _AROUND, mutant.line + _AROUND)}
        for called in _CALL.findall(mutant.what):
            around |= self.places.get(called, set())

        def order(name: str) -> tuple[int, float, float]:
            rarity = sum(1 / self.executed[line] for line in self.lines[name] & around)
            return -self.kills[mutant.route, name], -rarity, self.seconds[name]

        return sorted(names, key=order)


def parts(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.cfg"))


def executor(jobs: int) -> concurrent.futures.ProcessPoolExecutor:
    return concurrent.futures.ProcessPoolExecutor(
        jobs, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )


def cover(file: str, sources: str) -> Record:
    """Play a scenario with marked sources: the statements executed, its time in seconds, and its failure or None."""
    with tempfile.TemporaryDirectory(prefix="edge-") as folder:
        began = time.monotonic()
        failure = None
        try:
            play(load(Path(file)), Path(folder), sources=Path(sources))
        except Failed as error:
            failure = str(error)
        log = (Path(folder) / "kamailio.log").read_text(encoding="utf-8", errors="replace")
        return {"lines": sorted(set(_MARK.findall(log))), "seconds": time.monotonic() - began, "failure": failure}


def fight(mutant: Mutant, sources: str, base: str, files: dict[str, str], patience_s: float) -> Record:
    """Play scenarios against a mutant until one fails: ``result`` is killed, survived or rejected (by kamailio -c)."""
    with tempfile.TemporaryDirectory(prefix="mutant-") as name:
        folder = Path(name)
        shutil.copytree(base, folder / "base")
        (folder / "sources").mkdir()
        for path in parts(Path(sources)):
            shutil.copy(path, folder / "sources")
        (folder / "sources" / mutant.file).write_text(mutant.text, encoding="utf-8")
        shutil.copytree(folder / "sources", folder / "base", dirs_exist_ok=True)
        check = subprocess.run(
            [*KAMAILIO, *PRIVATE_MEMORY, "-c", "-f", str(folder / "base/kamailio.cfg")],
            check=False,
            capture_output=True,
            timeout=30,
        )
        if check.returncode:
            return {"result": "rejected"}
        for scenario, file in files.items():
            with tempfile.TemporaryDirectory(prefix="edge-") as stage:
                try:
                    play(load(Path(file)), Path(stage), sources=folder / "sources", patience_s=patience_s)
                except Failed as error:
                    return {"result": "killed", "by": scenario, "why": str(error).split("\n\n")[1][:300]}
    return {"result": "survived"}


def key_of(mutant: Mutant, sources: Path) -> str:
    """Stays the same while the route does, wherever in the file it stands."""
    text = (sources / mutant.file).read_text(encoding="utf-8")
    if not mutant.route:
        return digest(mutant.file, mutant.what)
    statements = routes(text)[mutant.route]
    start = text.count("\n", 0, statements[0].start) + 1
    body = text[statements[0].start : statements[-1].end]
    return digest(mutant.file, mutant.route, body, str(mutant.line - start), mutant.what)


class Hunt:
    """Goes through the mutants until all are judged or the time is over."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._sources = shipped("kamailio")
        self._store = Store(options.out / "found.jsonl")
        self._suite = Suite(sorted(SCENARIOS.glob("*/*/scenario.yaml")))
        self._found: list[tuple[Mutant, Record]] = []
        self._deadline = time.monotonic() + 60 * options.minutes

    def run(self) -> int:
        began = time.monotonic()
        failing = self._suite.measure(self._store, self._sources, self._options.jobs)
        print(f"{len(self._suite.lines)} scenarios measured in {time.monotonic() - began:.0f} s", flush=True)
        for name in failing:
            print(f"not used, for it fails as things are: {name}")
        wanted = list(self._wanted())
        left = self._judge(wanted)
        self._report(len(left))
        return 0

    def _wanted(self) -> Iterator[Mutant]:
        for path in parts(self._sources):
            if path.name in (self._options.file or [path.name]) and path.name not in ELSEWHERE:
                yield from mutants(path, parameters=self._options.parameters)

    def _judge(self, wanted: list[Mutant]) -> list[Mutant]:
        """Judge what time allows; the rest."""
        todo = [mutant for mutant in wanted if not self._known(mutant)]
        running: dict[concurrent.futures.Future[Record], tuple[Mutant, list[str]]] = {}
        with tempfile.TemporaryDirectory(prefix="base-") as base, executor(self._options.jobs) as pool:
            settings = load_site("127.99.97", Path(base))
            render(settings, Path(base) / "site")
            while todo or running:
                while todo and len(running) < self._options.jobs and time.monotonic() < self._deadline:
                    mutant = todo.pop(0)
                    names = self._to_play(mutant)
                    files = {name: str(self._suite.scenarios[name].file) for name in names}
                    site = str(Path(base) / "site/kamailio")
                    future = pool.submit(fight, mutant, str(self._sources), site, files, self._options.patience)
                    running[future] = mutant, names
                if not running:
                    return todo
                done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
                for future in done:
                    mutant, names = running.pop(future)
                    self._note(mutant, names, future.result())
        return todo

    def _to_play(self, mutant: Mutant) -> list[str]:
        """Scenarios to play against it, without those that it survived before."""
        record = self._store.get(key_of(mutant, self._sources)) or {}
        survived = set(record.get("survived", []))
        names = [name for name in self._suite.covering(mutant) if self._suite.digests[name] not in survived]
        return names[: self._options.most]

    def _known(self, mutant: Mutant) -> bool:
        record = self._store.get(key_of(mutant, self._sources))
        if record is None:
            return False
        if record["result"] == "killed":
            if self._suite.digests.get(record["by"]) != record["digest"]:
                return False
            self._suite.kills[mutant.route, record["by"]] += 1
        elif record["result"] == "survived" and self._to_play(mutant):
            return False
        self._found.append((mutant, record))
        return True

    def _note(self, mutant: Mutant, names: list[str], result: Record) -> None:
        key = key_of(mutant, self._sources)
        before = (self._store.get(key) or {}).get("survived", [])
        record = {"key": key, "place": f"{mutant.file}:{mutant.line}", "what": mutant.what, **result}
        if result["result"] == "killed":
            record["digest"] = self._suite.digests[result["by"]]
            self._suite.kills[mutant.route, result["by"]] += 1
        elif result["result"] == "survived":
            record["survived"] = [*before, *(self._suite.digests[name] for name in names)]
        self._store.put(record)
        self._found.append((mutant, record))
        by = f" by {result['by']}" if "by" in result else f" of {len(names)} scenarios"
        print(f"{result['result']}{by}: {record['place']} {mutant.route}: {mutant.what}", flush=True)

    def _report(self, left: int) -> None:
        counts: Counter[str] = Counter()
        lines = []
        for mutant, record in sorted(self._found, key=lambda found: (found[0].file, found[0].line)):
            result = record["result"]
            if result == "survived" and not self._suite.covering(mutant):
                result = "not executed"
            counts[result] += 1
            if result in ("survived", "not executed"):
                lines.append(f"{mutant.file}:{mutant.line} {mutant.route}: {mutant.what} ({result})")
        judged = counts["killed"] + counts["survived"] + counts["not executed"]
        score = f"{100 * counts['killed'] / judged:.1f} %" if judged else "none"
        summary = ", ".join(f"{count} {result}" for result, count in sorted(counts.items()))
        text = "\n".join([*lines, f"score {score}: {summary}; {left} not judged"])
        (self._options.out / "survivors.txt").write_text(text + "\n", encoding="utf-8")
        print(text)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("out/mutate"), help="where what was found is kept")
    parser.add_argument("--jobs", type=int, default=2, help="mutants judged beside each other")
    parser.add_argument("--minutes", type=float, default=60.0, help="begin no mutant after that time")
    parser.add_argument("--file", action="append", help="only this file of kamailio/, as trunks.cfg; may be repeated")
    parser.add_argument("--parameters", action="store_true", help="the parameters in place of the routes")
    parser.add_argument("--most", type=int, default=None, help="scenarios to play against one mutant; default: all")
    parser.add_argument("--patience", type=float, default=4.0, help="seconds that a scenario waits for what must come")
    options = parser.parse_args()
    if not shutil.which(KAMAILIO[0]):
        print("mutate: kamailio is not installed; run: make setup", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    return Hunt(options).run()


if __name__ == "__main__":
    sys.exit(main())
