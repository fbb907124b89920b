"""Whatever is killed, whenever: the run goes on, or the same command does, and ends with the bytes of the undisturbed run."""
import contextlib
import random
import re
import signal
import socket
import time

import pytest

from cluster import SEED, alive, digests, millrace, send, wait_until

RUNS = "state/runs/*.tok"
SHARDS = "dataset/*.tok.zst"


def stage_running(place, name):
    stages = {stage["name"]: stage["state"] for stage in place.status()["stages"]}
    return stages[name] == "running"


def working(place, process):
    """The pids of the workers that are there and have a job. One that was started just now is unknown, and nobody misses it."""
    busy = {worker["pid"] for worker in place.status()["workers"] if worker["state"] == "busy"}
    return [pid for pid in process.children("worker") if pid in busy]


# ---- making the dataset --------------------------------------------------------------------------------------------------------

def test_fault_01_workers_killed_while_they_tokenize(large_place, large_reference):
    process = large_place.run()
    killed = []
    for done in (2, 6, 12):
        large_place.wait_for_files(process, RUNS, done)
        if done == 2:
            assert stage_running(large_place, "tokenize")
        killed.append(wait_until(lambda: working(large_place, process), 30, "a worker has something to do")[0])
        send(signal.SIGKILL, killed[-1])
        wait_until(lambda: large_place.events().count("worker-lost") >= len(killed), 30, "the killed worker was missed")
    assert digests(large_place.finish(process)) == large_reference.digests


def test_all_workers_killed_at_once_while_they_tokenize(large_place, large_reference):
    process = large_place.run("--workers", 3)
    large_place.wait_for_files(process, RUNS, 4)
    wait_until(lambda: len(working(large_place, process)) == 3, 30, "all have something to do")
    send(signal.SIGKILL, *process.children("worker"))
    wait_until(lambda: large_place.events().count("worker-lost") >= 3, 30, "the killed workers were missed")
    assert digests(large_place.finish(process)) == large_reference.digests


def test_workers_killed_while_they_pack(large_place, large_reference):
    process = large_place.run()
    large_place.wait_for_files(process, SHARDS, 2)
    assert len(list(large_place.output.glob(SHARDS))) < len(list(large_reference.output.glob(SHARDS))), "packing was over before the kill"
    send(signal.SIGKILL, *process.children("worker"))
    assert digests(large_place.finish(process)) == large_reference.digests


@pytest.mark.parametrize("pattern, count", [(RUNS, 3), (RUNS, 14), (SHARDS, 3)], ids=["tokenize early", "tokenize late", "pack"])
def test_fault_04_coordinator_killed_while_the_dataset_is_made(large_place, large_reference, pattern, count):
    process = large_place.run()
    large_place.wait_for_files(process, pattern, count)
    first = process.children("coordinator")
    send(signal.SIGKILL, *first)
    assert digests(large_place.finish(process)) == large_reference.digests
    assert large_place.events().count("coordinator started: generation") == 2
    assert len(set(re.findall(r"coordinator started: generation \d+ at \S+, pid (\d+)", large_place.events()))) == 2


def test_shards_that_change_places_while_nobody_is_there(large_place, large_reference):
    """Both are whole, and neither is where it belongs."""
    process = large_place.run()
    large_place.wait_for_files(process, SHARDS, 3)
    process.kill()
    first, second = sorted(large_place.output.glob(SHARDS))[:2]
    assert not (large_place.output / "dataset/dataset.pb").exists(), "packing was over before the kill"
    aside = first.with_name("aside")
    for old, new in ((first, aside), (second, first), (aside, second)):
        old.rename(new)
    assert digests(large_place.go()) == large_reference.digests
    assert f"{first.name} is not the file that its job made" in large_place.events()
    millrace("dataset", "verify", large_place.output)


# ---- training ------------------------------------------------------------------------------------------------------------------

def check_metrics(place, reference):
    """Every step once, with the numbers of the undisturbed run."""
    def kept(line):
        return {key: value for key, value in line.items() if key not in ("tokens_per_second", "time")}
    assert [kept(line) for line in place.metrics()] == [kept(line) for line in reference.metrics()]


def test_fault_09_workers_killed_one_after_the_other_while_they_train(place, reference):
    process = place.run("--workers", 3)
    for step in (2, 4, 6, 9):
        place.wait_for_step(process, step)
        send(signal.SIGKILL, random.Random(SEED + step).choice(process.children("worker")))
    assert digests(place.finish(process)) == reference.digests
    check_metrics(place, reference)


def test_all_workers_killed_at_once_while_they_train(place, reference):
    process = place.run()
    place.wait_for_step(process, 6)
    send(signal.SIGKILL, *process.children("worker"))
    assert digests(place.finish(process)) == reference.digests
    check_metrics(place, reference)
    assert "roll-back" in place.events()


def test_all_workers_killed_before_the_first_checkpoint(place, reference):
    process = place.run()
    place.wait_for_step(process, 2)
    send(signal.SIGKILL, *process.children("worker"))
    assert digests(place.finish(process)) == reference.digests
    check_metrics(place, reference)


def test_fault_06_coordinator_killed_while_it_trains(place, reference):
    process = place.run()
    place.wait_for_step(process, 1)
    workers = process.children("worker")
    send(signal.SIGKILL, *process.children("coordinator"))
    result = place.finish(process)
    assert digests(result) == reference.digests
    check_metrics(place, reference)
    left = {worker["pid"] for worker in place.status()["workers"]}
    assert set(workers) <= left, "workers outlive their coordinator and go on with the next"


def test_a_coordinator_whose_port_was_taken_meanwhile_goes_on_at_another(place, reference):
    """Its workers know the old address alone: they are started anew."""
    process = place.run()
    place.wait_for_step(process, 2)
    endpoint = place.output / "state" / "endpoint"
    before, coordinator = endpoint.read_text(), process.children("coordinator")
    send(signal.SIGSTOP, process.pid)  # it does not start the next one yet
    send(signal.SIGKILL, *coordinator)
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)

        def taken():
            with contextlib.suppress(OSError):
                other.bind(("127.0.0.1", int(before.rsplit(":", 1)[1])))
                return True

        wait_until(taken, 30, "the port is somebody else's")
        other.listen()
        send(signal.SIGCONT, process.pid)
        assert digests(place.finish(process)) == reference.digests
        assert endpoint.read_text() != before
    check_metrics(place, reference)


def test_coordinator_killed_again_and_again(place, reference):
    process = place.run()
    for step in (3, 6, 9):
        place.wait_for_step(process, step)
        wait_until(lambda: process.children("coordinator"), 30, "the coordinator is back")
        send(signal.SIGKILL, *process.children("coordinator"))
    assert digests(place.finish(process)) == reference.digests
    check_metrics(place, reference)


def test_everything_killed_at_random_moments(place, reference):
    chooser = random.Random(SEED)
    process = place.run("--workers", 3)
    for _ in range(6):
        time.sleep(chooser.uniform(0.1, 0.7))
        victims = process.children("worker") + process.children("coordinator")
        if not victims:
            continue
        send(signal.SIGKILL, *chooser.sample(victims, chooser.randint(1, len(victims))))
    assert digests(place.finish(process)) == reference.digests
    check_metrics(place, reference)


# ---- `millrace run` itself -----------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("large, moment", [(True, RUNS), (True, SHARDS), (False, 5)], ids=["tokenize", "pack", "train"])
def test_run_killed_takes_its_daemons_along_and_the_same_command_goes_on(large, moment, request):
    place, reference = (request.getfixturevalue(name) for name in (("large_place", "large_reference") if large else ("place", "reference")))
    process = place.run()
    if large:
        place.wait_for_files(process, moment, 3)
    else:
        place.wait_for_step(process, moment)
    daemons = process.children("worker") + process.children("coordinator")
    assert len(daemons) == 3
    send(signal.SIGKILL, process.pid)
    wait_until(lambda: not any(alive(pid) for pid in daemons), 5, "the daemons ended")
    assert digests(place.go()) == reference.digests


# ---- stopped and coming back ---------------------------------------------------------------------------------------------------

def test_fault_07_worker_that_slept_past_its_lease_while_it_tokenized(large_place, large_reference):
    process = large_place.run("--set", "cluster.lease_seconds=1")
    large_place.wait_for_files(process, RUNS, 2)
    sleeper = process.children("worker")[0]
    send(signal.SIGSTOP, sleeper)
    wait_until(lambda: "worker-lost" in large_place.events(), 10, "the sleeper was given up")
    send(signal.SIGCONT, sleeper)
    assert digests(large_place.finish(process)) == large_reference.digests


def test_fault_07_worker_that_slept_past_its_lease_while_it_trained(place, reference):
    process = place.run("--set", "cluster.lease_seconds=1")
    place.wait_for_step(process, 3)
    sleeper = process.children("worker")[0]
    send(signal.SIGSTOP, sleeper)
    wait_until(lambda: "worker-lost" in place.events(), 10, "the sleeper was given up")
    place.wait_for_step(process, 5)
    send(signal.SIGCONT, sleeper)
    assert digests(place.finish(process)) == reference.digests
    check_metrics(place, reference)


def test_coordinator_that_slept_past_its_own_leases(place, reference):
    process = place.run("--set", "cluster.lease_seconds=1")
    place.wait_for_step(process, 3)
    coordinator = process.children("coordinator")[0]
    send(signal.SIGSTOP, coordinator)
    time.sleep(2.5)
    send(signal.SIGCONT, coordinator)
    assert digests(place.finish(process)) == reference.digests
    check_metrics(place, reference)
