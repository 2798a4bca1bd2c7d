"""One engine process under its keeper (`hekla/deployments/keeper.py`), seen from the supervisor."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from hekla.deployments import keeper
from hekla.deployments.engines.claims import Scratch
from hekla.platform.base.errors import Permanent

OUTPUT_CHUNK_BYTES = 65536

START_DEADLINE_S = 30.0
"""The keeper itself starts in 50 ms; this long on a node that is out of breath."""


class KeptProcess:
    """Started by `start`; `wait` returns how it ended; `terminate` is gentle, `kill` takes the whole tree.

    Not an asyncio subprocess: how those learn of a child's death depends on the loop and the thread it runs in, and
    a supervisor lives in an actor's loop. The keeper's stdout ends with it, which is all that is needed.
    """

    def __init__(self, keeper_process: subprocess.Popen[bytes]) -> None:
        self._keeper = keeper_process
        self._news = asyncio.StreamReader()
        self._output = asyncio.StreamReader()
        self.pid = 0
        """The engine's own process id."""

    @classmethod
    async def start(
        cls, argv: Sequence[str], env: Mapping[str, str], grace_s: float, cwd: Path, *, scratch: Scratch | None = None
    ) -> KeptProcess:
        """The keeper removes `scratch` at the end. Raises Permanent when the program can't be run."""
        removed = ("--scratch", str(scratch.path)) if scratch else ()
        arguments = ("--parent", str(os.getpid()), "--grace", str(grace_s), *removed, "--", *argv)
        # From this thread, not a helper: the keeper's parent-death signal comes when the thread that forked it ends.
        process = cls(
            subprocess.Popen(  # noqa: ASYNC220
                (sys.executable, "-I", "-S", keeper.__file__, *arguments),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                env=dict(env),
                cwd=cwd,
                pass_fds=(scratch.lock,) if scratch else (),
                start_new_session=True,
            )
        )
        await process._connect()
        return process

    async def relay_output(self, sink: Callable[[bytes], None]) -> None:
        """Hand the engine's output to `sink` until there is no more."""
        while data := await self._output.read(OUTPUT_CHUNK_BYTES):
            sink(data)

    async def wait(self) -> str:
        """How it ended, in words, once nothing of it is left."""
        last = (await self._news.read()).decode(errors="replace").strip()
        code = await asyncio.to_thread(self._keeper.wait)
        word, _, value = last.partition(" ")
        if word == "exited":
            return f"exited with code {value}"
        if word == "signalled":
            return f"was killed by {_signal_name(int(value))}"
        # Its engine died with it (parent-death signal).
        return f"lost its keeper, which ended with code {code}"

    def terminate(self) -> None:
        """SIGTERM to the engine; what is left after the grace period is killed."""
        with contextlib.suppress(ProcessLookupError):
            self._keeper.terminate()

    def kill(self) -> None:
        """The whole tree, now: the keeper sees its stdin end."""
        assert self._keeper.stdin is not None
        self._keeper.stdin.close()

    async def _connect(self) -> None:
        loop = asyncio.get_running_loop()
        for reader, pipe in ((self._news, self._keeper.stdout), (self._output, self._keeper.stderr)):
            await loop.connect_read_pipe(functools.partial(asyncio.StreamReaderProtocol, reader), pipe)
        async with asyncio.timeout(START_DEADLINE_S):
            first = (await self._news.readline()).decode(errors="replace")
        word, _, rest = first.strip().partition(" ")
        if word != "started":
            await asyncio.to_thread(self._keeper.wait)
            raise Permanent(f"the engine's program can't be started: {rest or 'its keeper ended at once'}")
        self.pid = int(rest)

    def __repr__(self) -> str:
        return f"KeptProcess(pid={self.pid}, keeper={self._keeper.pid}, over={self._keeper.returncode is not None})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
