"""Cores and ports are used by one engine of a node at a time."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from hekla.deployments.engines.claims import RUN_DIR_CHARS_MAX, Claims
from hekla.deployments.engines.node import default_run_dir

HOST = "127.0.0.1"


def test_two_supervisors_never_share_a_core(tmp_path: Path) -> None:
    one, two = Claims(tmp_path), Claims(tmp_path)
    assert one.cores(2, (0, 1, 2, 3)) == (0, 1)
    assert two.cores(2, (0, 1, 2, 3)) == (2, 3)


def test_too_few_free_cores_claim_none_and_hold_none(tmp_path: Path) -> None:
    one, two, three = Claims(tmp_path), Claims(tmp_path), Claims(tmp_path)
    assert one.cores(2, (0, 1, 2)) == (0, 1)
    assert two.cores(2, (0, 1, 2)) == ()
    assert three.cores(1, (0, 1, 2)) == (2,)


def test_a_released_core_can_be_claimed_again(tmp_path: Path) -> None:
    one, two = Claims(tmp_path), Claims(tmp_path)
    assert one.cores(1, (0,)) == (0,)
    one.release()
    assert two.cores(1, (0,)) == (0,)


def test_the_kernel_releases_what_a_killed_holder_had(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from hekla.deployments.engines.claims import Claims\n"
        "claims = Claims(pathlib.Path(sys.argv[1])); print(claims.cores(1, (0,)), flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"(0,)\n"
        mine = Claims(tmp_path)
        assert mine.cores(1, (0,)) == ()
        holder.kill()
        holder.wait()
        assert mine.cores(1, (0,)) == (0,)


def test_ports_are_free_and_different(tmp_path: Path) -> None:
    one, two = Claims(tmp_path), Claims(tmp_path)
    mine, theirs = one.ports(4, HOST), two.ports(4, HOST)
    assert len({*mine, *theirs}) == 8


def test_a_port_that_somebody_listens_on_is_not_taken(tmp_path: Path) -> None:
    (port,) = Claims(tmp_path / "a").ports(1, HOST)
    with socket.socket() as listener:
        # As servers do: another test's connections to an engine on this port may have only just ended.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((HOST, port))
        listener.listen()
        assert Claims(tmp_path / "b").ports(1, HOST, preferred=port) != (port,)
    assert Claims(tmp_path / "c").ports(1, HOST, preferred=port) == (port,)


def test_the_last_holder_takes_the_run_folder_with_it(tmp_path: Path) -> None:
    run = tmp_path / "run"
    one, two = Claims(run), Claims(run)
    one.cores(1, (0,))
    two.ports(2, HOST)
    assert two.scratch().path.is_dir()
    one.release()
    assert not (run / "core-0").exists()
    assert len([path for path in run.iterdir() if path.name.startswith("port-")]) == 2
    scratch = two.scratch().path
    two.release()
    assert not run.exists()
    assert not scratch.exists()


def test_what_a_killed_holder_left_goes_with_the_next_release(tmp_path: Path) -> None:
    run = tmp_path / "run"
    program = (
        "import os, sys, pathlib; from hekla.deployments.engines.claims import Claims\n"
        "claims = Claims(pathlib.Path(sys.argv[1])); claims.cores(2, (0, 1)); claims.ports(2, '127.0.0.1')\n"
        "os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", program, str(run)], check=False, timeout=60)
    assert len(list(run.iterdir())) == 4
    mine = Claims(run)
    assert mine.cores(1, (1,)) == (1,)
    mine.release()
    assert not run.exists()


def test_a_run_folder_with_a_long_path_is_not_used_for_sockets(tmp_path: Path) -> None:
    short, long = Path("/tmp/hekla-test-run"), tmp_path / ("x" * RUN_DIR_CHARS_MAX)
    assert len(f"{default_run_dir()}/e-12345678/7d205545-1515-4d77-a631-e1fb4ff75513") <= 107
    for run, parent in ((short, short), (long, default_run_dir())):
        claims = Claims(run)
        assert claims.scratch().path.parent == parent
        claims.release()
    assert not short.exists()


RACER = """
import os, pathlib, sys
from hekla.deployments.engines.claims import RUN_DIR_CHARS_MAX, Claims
from hekla.deployments.engines.node import default_run_dir
run, witness = map(pathlib.Path, sys.argv[1:])
won = 0
print("ready", flush=True)
sys.stdin.readline()
while won < 100:
    claims = Claims(run)
    if claims.cores(1, (0,)):
        os.close(os.open(witness, os.O_CREAT | os.O_EXCL))  # fails if another holds the same core
        os.unlink(witness)
        won += 1
    claims.release()
print(won, flush=True)
"""


def test_racing_processes_never_hold_one_core_twice_while_the_folder_comes_and_goes(tmp_path: Path) -> None:
    run = tmp_path / "run"
    command = [sys.executable, "-c", RACER, str(run), str(tmp_path / "witness")]
    racers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == b"ready\n"
    outcomes = []
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write(b"go\n")
        racer.stdin.flush()
    for racer in racers:
        outcomes.append(racer.communicate(timeout=120))
    assert [out for out, _ in outcomes] == [b"100\n"] * 4, outcomes
    assert not run.exists()
