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
Rule 5. When the tree is dead its files go too: its temporary folder, and the shared memory it used that no process of
        this machine maps any more. A process that is killed removes neither.

On stdout, one line each: `started PID`, then `exited CODE` or `signalled NUMBER`; or `refused REASON`. The engine's
output goes to the keeper's stderr. The exit code is the engine's, 128 + the signal's number, or 127 when refused.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import fcntl
import os
import re
import select
import signal
import stat
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator

PR_SET_PDEATHSIG = 1
PR_SET_CHILD_SUBREAPER = 36

KILL_DEADLINE_S = 30.0
"""A process in uninterruptible sleep can't be killed; after this long the keeper leaves it to the kernel."""

KILL_RETRY_S = 0.02
"""Between two sweeps: the tree may grow while it is being killed."""

REFUSED = 127

SHARED_MEMORY = "/dev/shm/"

LOOK_PERIOD_S = 5.0
"""The tree's shared memory is looked up when a file appears there, and this often: afterwards nobody can tell whose it
was. Often enough for a machine that has no inotify left."""

LOOK_PAUSE_S = 0.05
"""Between two lookups: one costs some milliseconds, and files may appear in crowds."""

IN_CREATE = 0x100

RUN_FILES = re.compile(r"(core|port)-\d+|e-\w+")
"""What a run folder holds: claims of cores and ports, and engines' temporary folders. Nothing else is ever removed."""


def main(argv: list[str]) -> int:
    options = _parse(argv)
    shared_memory = SharedMemory()
    try:
        return _keep(options, shared_memory)
    finally:
        shared_memory.remove_unused()
        if options.scratch:
            _remove_tree(options.scratch)
            sweep(os.path.dirname(options.scratch))


def _keep(options: argparse.Namespace, shared_memory: SharedMemory) -> int:
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
    status = _watch(engine, wake, options.grace, shared_memory)
    _kill_tree(shared_memory)
    return _tell(status)


def _parse(argv: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--parent", type=int, default=0, help="pid that must be the keeper's parent")
    parser.add_argument("--grace", type=float, default=10.0, help="seconds between SIGTERM and SIGKILL")
    parser.add_argument("--scratch", default="", help="the engine's temporary folder, removed at the end")
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


def _watch(engine: int, wake: int, grace_s: float, shared_memory: SharedMemory) -> int:
    """Returns the engine's wait status once it is over, or SIGKILL's when the tree has to go."""
    deadline = None
    stdin = sys.stdin.fileno()
    while True:
        left = LOOK_PERIOD_S if deadline is None else min(LOOK_PERIOD_S, max(0.0, deadline - time.monotonic()))
        readable = select.select([wake, stdin, *shared_memory.news], [], [], left)[0]
        if not set(readable).isdisjoint(shared_memory.news):
            time.sleep(LOOK_PAUSE_S)
        shared_memory.look(_descendants(os.getpid()))
        status = _reap(engine)
        if status is not None:
            return status
        is_overdue = deadline is not None and time.monotonic() >= deadline
        if is_overdue or (stdin in readable and not os.read(stdin, 4096)):
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


def _kill_tree(shared_memory: SharedMemory) -> None:
    """Kill and reap descendants until there is none: thanks to rule 1 the last ones are children."""
    deadline = time.monotonic() + KILL_DEADLINE_S
    while time.monotonic() < deadline:
        tree = _descendants(os.getpid())
        shared_memory.look(tree)
        for pid in tree:
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


class SharedMemory:
    """Files of /dev/shm that the engine's processes have used, made after the keeper's start by this user.

    They are known by inode: a semaphore is made under another name than the one it gets.
    """

    def __init__(self) -> None:
        self.news = _told_of_new_files(SHARED_MEMORY)
        """At most one descriptor, readable when a file has appeared since the last look."""
        self._before = set(_shared_files())
        self._seen: set[tuple[str, int]] = set()

    def look(self, pids: Iterable[int]) -> None:
        """Remember what these processes use now."""
        for descriptor in self.news:
            with contextlib.suppress(BlockingIOError):
                os.read(descriptor, 65536)
        if used := _inodes_used_by(pids):
            self._seen |= {file for file in _shared_files() if file[1] in used} - self._before

    def remove_unused(self) -> None:
        """Those that no process has mapped or open any more; an engine beside this one may share them."""
        left = self._seen.intersection(_shared_files())
        if not left:
            return
        used = _inodes_used_by(int(entry) for entry in _list("/proc") if entry.isdigit())
        for path in (path for path, inode in left if inode not in used):
            with contextlib.suppress(OSError):
                os.unlink(path)


def _told_of_new_files(folder: str) -> list[int]:
    """inotify(7); empty where the user's share of it is used up."""
    libc = ctypes.CDLL(None)
    descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    if descriptor >= 0 and libc.inotify_add_watch(descriptor, folder.encode(), IN_CREATE) < 0:
        os.close(descriptor)
        return []
    return [descriptor] if descriptor >= 0 else []


def _shared_files() -> list[tuple[str, int]]:
    """Path and inode of this user's; not of folders: what has one there was put there by a person."""
    found = []
    for name in _list(SHARED_MEMORY):
        with contextlib.suppress(OSError):
            status = os.lstat(SHARED_MEMORY + name)
            if stat.S_ISREG(status.st_mode) and status.st_uid == os.getuid():
                found.append((SHARED_MEMORY + name, status.st_ino))
    return found


def _inodes_used_by(pids: Iterable[int]) -> set[int]:
    return {inode for pid in pids for inode in (*_mapped(pid), *_opened(pid))}


def _mapped(pid: int) -> list[int]:
    try:
        with open(f"/proc/{pid}/maps", errors="replace") as file:
            # address, rights, offset, device, inode, path
            return [int(line.split(maxsplit=5)[4]) for line in file if SHARED_MEMORY in line]
    except (OSError, ValueError):
        return []


def _opened(pid: int) -> list[int]:
    found = []
    for descriptor in _list(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{descriptor}"
        with contextlib.suppress(OSError):
            if os.readlink(path).startswith(SHARED_MEMORY):
                found.append(os.stat(path).st_ino)
    return found


def _list(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []


@contextlib.contextmanager
def locked_folder(path: str, *, make: bool = False) -> Iterator[None]:
    """Holds the lock of a run folder, which may be removed at any time by another holder of it.

    The lock is on the folder itself, and counts only if the folder still has its name once the lock is there. Raises
    OSError: FileNotFoundError when it isn't there and `make` is off, PermissionError when it is another user's.
    """
    while True:
        if make:
            # It says so also when the folder was there and is removed just now.
            with contextlib.suppress(FileExistsError):
                os.makedirs(path, mode=0o700)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            if make:
                continue
            raise
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            if os.fstat(descriptor).st_uid != os.getuid():
                raise PermissionError(f"{path} is another user's; set HEKLA_RUN_DIR to a folder of your own")
            if _is_named(descriptor, path):
                yield
                return
        finally:
            os.close(descriptor)


def _is_named(descriptor: int, path: str) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def sweep(folder: str) -> None:
    """Remove a run folder's files that nobody holds, and the folder itself when it is empty then.

    Whoever makes and locks a file there holds the folder's lock meanwhile, so no file is removed under a new holder.
    """
    with contextlib.suppress(OSError), locked_folder(folder):
        for name in _list(folder):
            if RUN_FILES.fullmatch(name):
                with contextlib.suppress(OSError):
                    _remove_unheld(os.path.join(folder, name))
        os.rmdir(folder)


def _remove_unheld(path: str) -> None:
    """Raises BlockingIOError when it is held."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.isdir(path):
            _remove_tree(path)
        else:
            os.unlink(path)
    finally:
        os.close(descriptor)


def _remove_tree(path: str) -> None:
    import shutil  # it brings every compression library with it, and is needed once, at the end

    shutil.rmtree(path, ignore_errors=True)


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
