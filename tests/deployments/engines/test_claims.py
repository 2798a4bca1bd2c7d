"""Cores and ports are used by one engine of a node at a time."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from hekla.deployments.engines.claims import Claims

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
        listener.bind((HOST, port))
        listener.listen()
        assert Claims(tmp_path / "b").ports(1, HOST, preferred=port) != (port,)
    assert Claims(tmp_path / "c").ports(1, HOST, preferred=port) == (port,)
