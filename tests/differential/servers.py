"""The rig's servers, and workers as processes."""

import asyncio
import contextlib
import os
import signal
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
RIG = Path(os.environ["RIG"])
POSTGRES_PORT = 5415
KAFKA_PORT = 19091
# Workers reach the servers through proxies on these ports.
POSTGRES_PROXY_PORT = 15415
KAFKA_PROXY_PORT = int(os.environ["KAFKA_PROXY_PORT"])
# A listener of the rig that the checker uses, past the proxy.
DIRECT_KAFKA = os.environ["RIG_KAFKA_PODS"]
STOP_SECONDS = 20
READY_SECONDS = 40
READY_PAUSE_SECONDS = 0.2
RESTART_PAUSE_SECONDS = 1.0


async def run(*command):
    """Runs a command, and fails with its output if it fails."""
    process = await asyncio.create_subprocess_exec(
        *map(str, command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{command}: {output.decode()}")


def kill_broker():
    return run(ROOT / "tests/rig/kafka/rig", "kill", "1")


def start_broker():
    return run(ROOT / "tests/rig/kafka/rig", "start", "1")


def signal_broker(number):
    os.kill(int((RIG / "run/kafka-1.pid").read_text().split()[0]), number)


def kill_postgres():
    return run(ROOT / "tests/rig/postgres/rig", "kill", "15")


def start_postgres():
    return run(ROOT / "tests/rig/postgres/rig", "up", "15")


class Worker:
    """A process that is started again when it ends without being asked to, as in Kubernetes."""

    def __init__(self, command, log, readiness):
        # Address of the worker's /readyz. None: the worker logs a line "ready".
        self.readiness = readiness
        # It ends with this process, however that ends.
        self.command = ["setpriv", "--pdeathsig", "KILL", *map(str, command)]
        self.log = log
        self.process = None
        self.keeper = None
        # How often it ended without being asked to.
        self.crashes = 0

    async def start(self):
        await self.spawn()
        self.keeper = asyncio.create_task(self.keep())

    async def spawn(self):
        with self.log.open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                *self.command, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    async def keep(self):
        while True:
            await self.process.wait()
            self.crashes += 1
            await asyncio.sleep(RESTART_PAUSE_SECONDS)
            await self.spawn()

    async def wait_until_ready(self):
        """Waits as a deployment does before it stops the old worker, for a limited time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(READY_SECONDS):
                while not await self.is_ready():
                    await asyncio.sleep(READY_PAUSE_SECONDS)

    async def is_ready(self):
        if self.readiness is None:
            return b"worker ready" in self.log.read_bytes()
        try:
            reader, writer = await asyncio.open_connection(*self.readiness)
        except OSError:
            return False
        try:
            writer.write(b"GET /readyz HTTP/1.0\r\n\r\n")
            return (await reader.readline()).split()[1:2] == [b"200"]
        except OSError:
            return False
        finally:
            writer.close()

    async def kill(self):
        if self.process is None:
            return
        if self.keeper is not None:
            self.keeper.cancel()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()

    async def stop(self):
        """Asks it to end, and kills it if it does not."""
        self.keeper.cancel()
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), STOP_SECONDS)
        except TimeoutError:
            await self.kill()
