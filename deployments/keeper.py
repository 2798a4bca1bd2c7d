"""The parent of one engine process: no engine outlives its supervisor, and nothing outlives its engine.

Run by path with the bare interpreter, `python -I -S keeper.py --parent PID --grace S -- command...`; it imports only
the standard library, costs about 8 MB, and lives exactly as long as the engine.

Rule 1. Everything the engine starts stays below the keeper. The keeper is a *child subreaper* (prctl(2)), so a process
        whose parent dies becomes the keeper's child, also when it has its own session.
Rule 2. The supervisor holds the other end of the keeper's stdin. End of file means the supervisor is gone, however it
        died: the keeper kills the whole tree. The parent-death signal covers a pipe end that leaked elsewhere.
Rule 3. When the engine's main process exits, what it left is killed: a vLLM API server that dies of SIGKILL would
        otherwise leave its EngineCore holding the accelerator's memory.
Rule 4. SIGTERM is passed to the engine's main process; after the grace period the tree is killed.

On stdout, one line each: `started PID`, then `exited CODE` or `signalled NUMBER`; or `refused REASON`. The engine's
output goes to the keeper's stderr. The exit code is the engine's, 128 + the signal's number, or 127 when refused.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import select
import signal
import subprocess
import sys
import time
from collections import defaultdict

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

KILL_DEADLINE_S = 30.0
"""A process in uninterruptible sleep can't be killed; after this long the keeper leaves it to the kernel."""

KILL_RETRY_S = 0.02
"""Between two sweeps: the tree may grow while it is being killed."""

REFUSED = 127


def main(argv: list[str]) -> int:
    options = _parse(argv)
    wake = _wake_on_signals((signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    _prctl(PR_SET_CHILD_SUBREAPER, 1)
    _prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if options.parent and os.getppid() != options.parent:
        return _refuse("the supervisor is gone already")
    try:
        engine = _start(options.command)
    except (OSError, subprocess.SubprocessError) as error:
        return _refuse(f"{options.command[0]}: {error}")
    _say(f"started {engine}")
    status = _watch(engine, wake, options.grace)
    _kill_tree()
    return _tell(status)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, default=0, help="pid that must be the keeper's parent")
    parser.add_argument("--grace", type=float, default=10.0, help="seconds between SIGTERM and SIGKILL")
    parser.add_argument("command", nargs="+")
    return parser.parse_args(argv)


def _wake_on_signals(numbers: tuple[signal.Signals, ...]) -> int:
    """A descriptor that becomes readable, with the signal's number as a byte, on each of the signals."""
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
    for number in numbers:
        # A handler, not SIG_IGN: exec keeps ignored signals ignored, and the engine must not inherit that.
        signal.signal(number, lambda *_: None)
    return read_end


def _prctl(option: int, value: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option})")


def _start(command: list[str]) -> int:
    keeper = os.getpid()

    def die_with_keeper() -> None:
        _prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != keeper:
            os._exit(REFUSED)

    output = sys.stderr.fileno()
    # The keeper has one thread, so running Python between fork and exec is safe.
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        start_new_session=True,
        preexec_fn=die_with_keeper,  # noqa: PLW1509
    )
    child.returncode = 0  # reaped in _reap; keeps Popen's destructor from complaining
    return child.pid


def _watch(engine: int, wake: int, grace_s: float) -> int:
    """Returns the engine's wait status once it is over, or SIGKILL's when the tree has to go."""
    deadline = None
    stdin = sys.stdin.fileno()
    while True:
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        readable = select.select([wake, stdin], [], [], left)[0]
        status = _reap(engine)
        if status is not None:
            return status
        if not readable or (stdin in readable and not os.read(stdin, 4096)):
            return int(signal.SIGKILL)
        if wake in readable and signal.SIGTERM in os.read(wake, 4096) and deadline is None:
            deadline = time.monotonic() + grace_s
            with contextlib.suppress(ProcessLookupError):
                os.kill(engine, signal.SIGTERM)


def _reap(engine: int) -> int | None:
    """Collect every dead child; the engine's wait status when it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == engine:
            found = status


def _kill_tree() -> None:
    """Kill and reap descendants until there is none: thanks to rule 1 the last ones are children."""
    deadline = time.monotonic() + KILL_DEADLINE_S
    while time.monotonic() < deadline:
        for pid in _descendants(os.getpid()):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        _reap(0)
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
        time.sleep(KILL_RETRY_S)


def _descendants(root: int) -> list[int]:
    children: dict[int, list[int]] = defaultdict(list)
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (parent := _parent(entry)) is not None:
            children[parent].append(int(entry))
    found, frontier = [], [root]
    while frontier:
        below = children.get(frontier.pop(), [])
        found += below
        frontier += below
    return found


def _parent(pid: str) -> int | None:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The command's name is in parentheses and may hold anything, spaces and parentheses too.
            return int(file.read().rpartition(b")")[2].split()[1])
    except (OSError, IndexError, ValueError):
        return None


def _tell(status: int) -> int:
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        _say(f"signalled {number}")
        return 128 + number
    code = os.WEXITSTATUS(status)
    _say(f"exited {code}")
    return code


def _refuse(reason: str) -> int:
    _say(f"refused {reason}")
    return REFUSED


def _say(line: str) -> None:
    with contextlib.suppress(OSError):
        os.write(sys.stdout.fileno(), f"{line}\n".encode())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
