"""A TCP proxy that can break connections."""

import asyncio


class Proxy:
    """Forwards connections of a port on 127.0.0.1 to another one."""

    def __init__(self, port, upstream):
        self.port = port
        self.upstream = upstream
        self.is_closed = False
        self.drops_answers = False
        self.writers = set()
        self.tasks = set()

    async def start(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", self.port)

    async def stop(self):
        self.server.close()
        self.abort()
        for task in self.tasks:
            task.cancel()

    async def cut(self, seconds):
        """Aborts all connections and refuses new ones for a while."""
        self.is_closed = True
        self.abort()
        await asyncio.sleep(seconds)
        self.is_closed = False

    async def lose_answers(self, seconds):
        """Forwards requests and drops answers for a while, then aborts all connections."""
        self.drops_answers = True
        await asyncio.sleep(seconds)
        self.drops_answers = False
        self.abort()

    def abort(self):
        for writer in list(self.writers):
            writer.transport.abort()

    async def accept(self, reader, writer):
        task = asyncio.current_task()
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        if self.is_closed:
            writer.transport.abort()
            return
        self.writers.add(writer)
        upstream = None
        try:
            from_upstream, upstream = await asyncio.open_connection("127.0.0.1", self.upstream)
            self.writers.add(upstream)
            if self.is_closed:  # meanwhile
                return
            await asyncio.gather(
                self.pump(reader, upstream, is_answer=False),
                self.pump(from_upstream, writer, is_answer=True),
            )
        except (OSError, EOFError):
            pass
        finally:
            for each in (writer, upstream):
                if each is not None:
                    each.transport.abort()
                    self.writers.discard(each)

    async def pump(self, reader, writer, *, is_answer):
        while data := await reader.read(65536):
            if is_answer and self.drops_answers:
                continue
            writer.write(data)
            await writer.drain()
        # An end of one direction ends both: neither protocol uses half a connection.
        raise EOFError
