"""What the machine says about a subject: the core it runs on, its CPU time and its memory, with all its children."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

_NICE = -10
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cores:
    """Which core the subject has to itself, and which one everything else shares."""

    subject: int
    load: int

    @property
    def shared(self) -> bool:
        """There is only one core: the load generator takes time away from the subject."""
        return self.subject == self.load


def choose_cores() -> Cores:
    cores = sorted(os.sched_getaffinity(0))
    return Cores(cores[0], cores[1] if len(cores) > 1 else cores[0])


def pinned(core: int, argv: Sequence[str], *, real_time: bool = False) -> list[str]:
    """``argv`` on one core. As root, before other work of the machine: in real time, or by niceness."""
    first = [["nice", "-n", str(_NICE)], ["chrt", "--fifo", "1"]][real_time] if os.geteuid() == 0 else []
    return [*first, "taskset", "-c", str(core), *argv]


def prefer(session: int) -> None:
    """Niceness for a whole session: between sessions the kernel goes by autogroup(7) instead. As root only."""
    autogroup = Path(f"/proc/{session}/autogroup")
    if os.geteuid() == 0 and autogroup.exists():
        autogroup.write_text(str(_NICE))


def family(pid: int) -> list[int]:
    """``pid`` and all its living descendants. Those that end meanwhile are left out."""
    found = [pid]
    for parent in found:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                found += [int(child) for child in task.read_text().split()]
            except FileNotFoundError:
                continue
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of the family so far, s; of children that have ended too."""
    ticks = 0
    for member in family(pid):
        try:
            fields = Path(f"/proc/{member}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            continue
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS


def memory_mb(pid: int) -> float:
    """Proportional set size of the family, MB (10^6 bytes)."""
    kib = 0
    for member in family(pid):
        try:
            rollup = Path(f"/proc/{member}/smaps_rollup").read_text()
        except FileNotFoundError:
            continue
        kib += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return kib * 1024 / 1e6


def busy_seconds(core: int) -> float:
    """Time that ``core`` was not idle since boot, s, time stolen by the hypervisor included."""
    for line in Path("/proc/stat").read_text().splitlines():
        name, *fields = line.split()
        if name == f"cpu{core}":
            user, nice, system, _idle, _iowait, irq, softirq, steal = (int(field) for field in fields[:8])
            return (user + nice + system + irq + softirq + steal) / _TICKS
    raise LookupError(f"no core {core} in /proc/stat")
