"""Who the ingress replicas are, in virtual time."""

from __future__ import annotations

from hekla.platform.base.clock import VirtualClock
from hekla.platform.root.ingress_peers import PEER_ANNOUNCE_S, PEER_EXPIRY_S, IngressPeers


async def test_each_replica_learns_of_the_others_and_not_of_itself() -> None:
    peers = IngressPeers(VirtualClock())
    assert peers.announce("a", "10.0.0.1", 1) == []
    assert peers.announce("b", "10.0.0.2", 2) == [("10.0.0.1", 1)]
    assert peers.announce("c", "10.0.0.1", 3) == [("10.0.0.1", 1), ("10.0.0.2", 2)]
    assert peers.announce("a", "10.0.0.1", 1) == [("10.0.0.1", 3), ("10.0.0.2", 2)]


async def test_a_silent_replica_is_forgotten_and_comes_back_when_it_speaks() -> None:
    clock = VirtualClock()
    peers = IngressPeers(clock)
    peers.announce("a", "10.0.0.1", 1)
    await clock.advance(PEER_EXPIRY_S)
    assert peers.announce("b", "10.0.0.2", 2) == [("10.0.0.1", 1)]
    await clock.advance(PEER_ANNOUNCE_S)
    assert peers.announce("b", "10.0.0.2", 2) == []
    peers.announce("a", "10.0.0.1", 1)
    assert peers.announce("b", "10.0.0.2", 2) == [("10.0.0.1", 1)]


async def test_four_lost_announcements_do_not_make_a_replica_disappear() -> None:
    clock = VirtualClock()
    peers = IngressPeers(clock)
    peers.announce("a", "10.0.0.1", 1)
    for _ in range(4):
        await clock.advance(PEER_ANNOUNCE_S)
        assert peers.announce("b", "10.0.0.2", 2) == [("10.0.0.1", 1)]


async def test_a_replica_that_moved_to_another_port_is_known_by_the_new_one_only() -> None:
    peers = IngressPeers(VirtualClock())
    peers.announce("a", "10.0.0.1", 1)
    peers.announce("a", "10.0.0.1", 9)
    assert peers.announce("b", "10.0.0.2", 2) == [("10.0.0.1", 9)]
