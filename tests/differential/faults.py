"""Injects faults and repairs them."""

import asyncio
import signal

import servers


class Faults:
    """What can be broken: the servers, the proxies in front of them, and the workers of a way."""

    def __init__(self, kafka, database, workers, new_worker):
        self.kafka = kafka
        self.database = database
        self.workers = workers
        self.new_worker = new_worker

    async def inject(self, fault):
        """Breaks something, and repairs it after its time."""
        seconds = fault.seconds
        match fault.kind:
            case "kill":
                worker = self.workers[int(fault.target * len(self.workers))]
                await worker.kill()
                await asyncio.sleep(seconds)
                await worker.start()
            case "deploy":
                await self.deploy(seconds)
            case "broker-stopped":
                servers.signal_broker(signal.SIGSTOP)
                try:
                    await asyncio.sleep(seconds)
                finally:
                    servers.signal_broker(signal.SIGCONT)
            case "broker-killed" | "kafka-down":
                await servers.kill_broker()
                await asyncio.sleep(seconds)
                await servers.start_broker()
            case "kafka-cut":
                await self.kafka.cut(seconds)
            case "kafka-answers-lost":
                await self.kafka.lose_answers(seconds)
            case "database-cut":
                await self.database.cut(seconds)
            case "database-answers-lost":
                await self.database.lose_answers(seconds)
            case "postgres-killed":
                await servers.kill_postgres()
                await asyncio.sleep(seconds)
                await servers.start_postgres()

    async def deploy(self, seconds):
        """Replaces workers one by one. The old one ends some time after the new one is ready."""
        for number, old in enumerate(list(self.workers)):
            new = self.new_worker()
            await new.start()
            # Both run now, and the end of the run stops both.
            self.workers.append(new)
            await new.wait_until_ready()
            await asyncio.sleep(seconds)
            await old.stop()
            self.workers.remove(new)
            self.workers[number] = new
