"""Peers that send or ask for too much while a run goes on: memory stays bounded, and the digests are those of an undisturbed run."""
import pathlib
import time

import pytest

import cluster
from cluster import digests, wait_until
from test_hostile import HOSTILE, endpoint, ready

ABOVE_MIB = 64  # what a hostile peer may cost


def greedy(place, *arguments):
    program = HOSTILE / "greedy"
    assert program.exists(), f"{program} is not there; run 'make unit-tests'"
    process = cluster.Process([str(program), *map(str, arguments)], place.folder, place.folder / f"greedy-{len(place.started)}")
    place.started.append(process)
    return process


def peak_mib(pid):
    """The most memory that the process had, as far as it can still be asked."""
    try:
        text = pathlib.Path("/proc", str(pid), "status").read_text()
    except OSError:
        return 0
    return next((int(line.split()[1]) / 1024 for line in text.splitlines() if line.startswith("VmHWM")), 0)


def watched_run(place, attack=None):
    """A run with two workers; the digests and the peaks of coordinator and workers. attack(address) starts before any of them works,
    attack(address, worker) when it trains."""
    process = place.run("--workers", 0)
    address = endpoint(place, process)
    if attack:
        attack(address, None)
    workers = [place.start("worker", "--connect", address) for _ in range(2)]
    coordinator = process.children("coordinator")[0]
    peaks = [0, 0, 0]
    attacked = not attack
    while process.running():
        for i, pid in enumerate([coordinator, workers[0].pid, workers[1].pid]):
            peaks[i] = max(peaks[i], peak_mib(pid))
        known = [] if attacked or len(ready(place)) < 2 else [w for w in place.status()["workers"] if w["pid"] == workers[0].pid]
        if known:
            attacked = True
            attack(address, known[0])
        time.sleep(0.02)
    return digests(place.finish(process)), peaks[0], max(peaks[1:])


@pytest.fixture(scope="module")
def peaceful(base_folder, corpus):
    place = cluster.Workplace(base_folder / "peaceful", corpus)
    try:
        return watched_run(place)
    finally:
        place.close()


def test_a_coordinator_does_not_keep_what_a_peer_never_reads(place, reference, peaceful):
    """The peer has got rid of a thousand questions before the first worker comes, for 4 GiB in all."""

    def attack(address, worker):
        if worker is None:
            wrong = greedy(place, "reads", address)
            wait_until(lambda: wrong.stdout(), 20, "a thousand questions went out")

    got, coordinator, _ = watched_run(place, attack)
    assert got == reference.digests
    assert coordinator < peaceful[1] + ABOVE_MIB


def test_a_run_bears_greedy_peers_of_every_kind_at_once(place, reference, peaceful):
    at_coordinator, at_worker = ["reads", "hellos", "questions", "data", "frames"], ["state", "data", "frames"]

    def attack(address, worker):
        if worker is None:
            for what in at_coordinator:
                greedy(place, what, address)
        else:
            for what in at_worker:
                greedy(place, what, worker["endpoint"])
            greedy(place, "impostor", address, worker["id"])

    got, coordinator, worker = watched_run(place, attack)
    assert got == reference.digests
    assert coordinator < peaceful[1] + ABOVE_MIB * len(at_coordinator)
    assert worker < peaceful[2] + ABOVE_MIB * len(at_worker)
    until_the_end = place.events().split("done: step")[0]
    assert "worker-left: w-" not in until_the_end and "worker-lost: w-" not in until_the_end, until_the_end
