"""Processes, what they use, and the cgroups that hold them to a part of a core."""

import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PERIOD_US = 100_000  # as Kubernetes sets it


def wait_until(what: str, seconds: float, condition: Callable[[], bool], pause: float = 0.1) -> None:
    """Waits for a condition, up to a limit."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError(f"waited {seconds} s for: {what}")
        time.sleep(pause)


def is_running(pid: int) -> bool:
    """Whether the process exists and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except OSError:
        return False


class Tree:
    """A process and its children, as /proc shows them."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def pids(self) -> list[int]:
        """The process and its direct children."""
        found = [self.pid]
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                if int(fields[1]) == self.pid:
                    found.append(int(entry.name))
        return found

    def cpu_seconds(self) -> float:
        """CPU time so far, that of children that have ended included."""
        total = 0
        for pid in self.pids():
            try:
                fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            total += sum(int(field) for field in fields[11 : 15 if pid == self.pid else 13])
        return total / TICKS

    def memory_mib(self, field: str) -> float:
        """Sum of a field of smaps_rollup: `Pss` shares out what processes have in common."""
        kib = 0
        for pid in self.pids():
            try:
                lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
            except OSError:
                continue
            kib += sum(int(line.split()[1]) for line in lines if line.startswith(f"{field}:"))
        return kib / 1024

    def threads(self) -> int:
        """Number of threads of the process itself."""
        return len(list(Path(f"/proc/{self.pid}/task").iterdir()))


def machine_idle_seconds() -> float:
    """CPU time of all cores in which nothing ran."""
    fields = Path("/proc/stat").read_text().splitlines()[0].split()
    return (int(fields[4]) + int(fields[5])) / TICKS


def connections(port: int) -> int:
    """Established connections of a server's port."""
    command = ["ss", "-Htn", "state", "established", f"sport = :{port}"]
    return len(subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines())


class Cgroup:
    """A cgroup with a limit of CPU time, of version 1 or 2."""

    def __init__(self, name: str, cores: float | None) -> None:
        self.is_v2 = Path("/sys/fs/cgroup/cgroup.controllers").exists()
        root = Path("/sys/fs/cgroup") if self.is_v2 else Path("/sys/fs/cgroup/cpu")
        self.folder = root / name
        self.folder.mkdir()
        if cores is None:
            return
        quota = int(cores * PERIOD_US)
        if self.is_v2:
            (root / "cgroup.subtree_control").write_text("+cpu")
            (self.folder / "cpu.max").write_text(f"{quota} {PERIOD_US}")
        else:
            (self.folder / "cpu.cfs_period_us").write_text(str(PERIOD_US))
            (self.folder / "cpu.cfs_quota_us").write_text(str(quota))

    def enter(self) -> None:
        """Moves the calling process into it."""
        (self.folder / "cgroup.procs").write_text("0")

    def throttled(self) -> tuple[int, int]:
        """Periods so far, and those in which the limit held processes back."""
        lines = (self.folder / "cpu.stat").read_text().splitlines()
        stat = {key: int(value) for key, value in (line.split() for line in lines)}
        return stat.get("nr_periods", 0), stat.get("nr_throttled", 0)

    def remove(self) -> None:
        """Removes it, once its processes have ended."""
        try:
            self.folder.rmdir()
        except OSError:
            time.sleep(0.2)
            self.folder.rmdir()


class Relay:
    """One process of `outbox-relay run`."""

    next_number = 0

    def __init__(self, program: Path, manifest: Path, log: Path, cores: float | None) -> None:
        Relay.next_number += 1
        self.cgroup = Cgroup(f"outbox-scale-{os.getpid()}-{Relay.next_number}", cores)
        arguments = [program, "run", "--manifest", manifest, "--listen", "127.0.0.1:0", "--pod", f"relay-{Relay.next_number}"]
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                arguments, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
                preexec_fn=self.cgroup.enter, env=os.environ | {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"},
            )  # fmt: skip
        self.tree = Tree(self.process.pid)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """Ends it and waits for that."""
        self.signal(number)
        self.wait()

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def wait(self) -> None:
        """Waits until it has ended, and kills it if it does not."""
        try:
            self.process.wait(45)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.cgroup.remove()


def stop_all(relays: list[Relay]) -> None:
    """Ends relays at the same time. A relay that a limit holds back gets all the CPU time that it needs."""
    for relay in relays:
        relay.signal(signal.SIGKILL)
    for relay in relays:
        relay.wait()
    relays.clear()
