"""A coordinator and workers by hand: other users, other folders, coming and going, and a second coordinator."""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import tempfile
import time

import pytest

from cluster import MILLRACE, STEPS, digests, millrace, refused, send, wait_until
from runs import free_port

NOBODY = 65534


@pytest.fixture
def empty_folders():
    """Folders in /tmp that anybody may use."""
    made = []

    def make():
        folder = pathlib.Path(tempfile.mkdtemp(prefix="millrace-empty-"))
        folder.chmod(0o777)
        made.append(folder)
        return folder

    yield make
    for folder in made:
        shutil.rmtree(folder, ignore_errors=True)


def finish(place, coordinator, *workers):
    assert coordinator.wait() == 0, coordinator.stderr()
    for worker in workers:
        assert worker.wait(10) == 0, worker.stderr()
    return digests(place.go())


def test_fault_08_workers_join_one_by_one_and_leave(place, reference):
    address = f"tcp://127.0.0.1:{free_port()}"
    coordinator = place.start("coordinator", place.file, "--bind", address, "--set", "cluster.lease_seconds=60")
    first = place.start("worker", "--connect", address, "--threads", 2)
    place.wait_for_step(coordinator, 2)
    send(signal.SIGSTOP, first.pid)  # no step is done before the second one is there
    second = place.start("worker", "--connect", address)
    wait_until(lambda: second.pid in [worker["pid"] for worker in place.status()["workers"]], 30, "the second is there")
    send(signal.SIGCONT, first.pid)
    wait_until(
        lambda: [w for w in place.status()["workers"] if w["pid"] == second.pid and w["slices_done"]], 30, "the second computes slices"
    )
    send(signal.SIGSTOP, second.pid)  # nor before the third one is
    third = place.start("worker", "--connect", address)
    wait_until(lambda: third.pid in [worker["pid"] for worker in place.status()["workers"]], 30, "the third is there")
    send(signal.SIGTERM, first.pid)
    send(signal.SIGCONT, second.pid)
    assert first.wait(10) == 130
    wait_until(lambda: {w["pid"]: w["state"] for w in place.status()["workers"]}[first.pid] == "left", 30, "the first is said to have left")
    assert finish(place, coordinator, second, third) == reference.digests


def test_workers_may_come_before_their_coordinator(place, reference):
    address = f"tcp://127.0.0.1:{free_port()}"
    worker = place.start("worker", "--connect", address)
    wait_until(lambda: "coordinator at" in worker.stderr(), 10, "the worker is up")
    coordinator = place.start("coordinator", place.file, "--bind", address)
    assert finish(place, coordinator, worker) == reference.digests


def test_coordinator_killed_and_started_by_hand_goes_on_with_the_same_workers(place, reference):
    address = f"tcp://127.0.0.1:{free_port()}"
    coordinator = place.start("coordinator", place.file, "--bind", address)
    workers = [place.start("worker", "--connect", address) for _ in range(2)]
    place.wait_for_step(coordinator, 6)
    send(signal.SIGKILL, coordinator.pid)
    coordinator.wait(5)
    coordinator = place.start("coordinator", place.file, "--bind", address)
    assert finish(place, coordinator, *workers) == reference.digests
    assert "roll-back" not in coordinator.stderr()


def test_run_without_workers_of_its_own_takes_those_that_come(place, reference):
    process = place.run("--workers", 0)
    wait_until(lambda: (place.output / "state" / "endpoint").exists() or not process.running(), 10, "the coordinator is up")
    assert not process.children("worker")
    place.start("worker", "--connect", (place.output / "state" / "endpoint").read_text())
    assert digests(place.finish(process)) == reference.digests


DAMAGES = {
    "removed": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-2]),
    "another": lambda path: path.write_text("tcp://127.0.0.1:9"),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_coordinator_s_address_that_was_damaged_is_there_again(place, reference, how):
    """Before `run` has read it for the first time, and while it trains."""
    process = place.run()
    endpoint = place.output / "state" / "endpoint"
    wait_until(lambda: process.children("coordinator"), 30, "the coordinator is started")
    send(signal.SIGSTOP, process.pid)
    wait_until(endpoint.exists, 30, "the coordinator is up")
    DAMAGES[how](endpoint)
    send(signal.SIGCONT, process.pid)
    if how == "a folder":
        wait_until(lambda: "nobody finds this run's address" in place.events(), 30, "it is told")
        endpoint.rmdir()
    place.wait_for_step(process, 1)
    assert place.events().count("endpoint-again") == 1
    assert digests(place.finish(process)) == reference.digests


@pytest.mark.parametrize("how", ["removed", "emptied", "cut"])
def test_metrics_that_were_damaged_are_there_again(place, reference, how):
    process = place.run()
    place.wait_for_step(process, 2)
    DAMAGES[how](place.output / "metrics.jsonl")
    assert digests(place.finish(process)) == reference.digests
    assert place.events().count("metrics-again") == 1
    assert place.steps() == list(range(1, STEPS + 1))


def test_fault_11_second_coordinator_names_the_first_ones_pid(place, reference):
    process = place.run()
    place.wait_for_step(process, 1)
    first = process.children("coordinator")[0]
    refused("coordinator", place.file, code=1, says=[str(first)])
    refused("run", place.file, code=1, says=[str(first)])
    assert process.children("coordinator") == [first]
    assert digests(place.finish(process)) == reference.digests


def test_fault_19_a_port_in_use_is_told(place):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"tcp://127.0.0.1:{taken.getsockname()[1]}"
        refused("coordinator", place.file, "--bind", address, code=1, says=[address, "in use"])
    assert not (place.output / "state" / "endpoint").exists()


def test_addresses_beyond_this_machine_must_be_asked_for(place):
    refused("coordinator", place.file, "--bind", "tcp://0.0.0.0:5599", code=2, says=["tcp://0.0.0.0:5599", "insecure"])
    refused("worker", "--connect", "tcp://192.0.2.1:5599", code=2, says=["tcp://192.0.2.1:5599", "insecure"])
    refused("worker", "--connect", "nonsense", code=2, says=["--connect: nonsense: should start with tcp://"])


def test_an_address_that_is_none_is_told_with_its_option(place):
    refused("worker", "--connect", "", code=2, says=["--connect: the address is empty; it should start with tcp://"])
    refused("worker", "--connect", "tcp://127.0.0.1:5599", "--bind", "", code=2, says=["--bind: the address is empty"])
    refused("coordinator", place.file, "--bind", "nonsense", code=2, says=["--bind: nonsense: should start with tcp://"])


def test_a_worker_without_a_coordinator_ends_when_it_is_told(place):
    worker = place.start("worker", "--connect", f"tcp://127.0.0.1:{free_port()}")
    wait_until(lambda: "coordinator at" in worker.stderr(), 10, "the worker is up")
    send(signal.SIGINT, worker.pid)
    assert worker.wait(5) == 130
    assert millrace("status", place.file, code=1).stderr.startswith("millrace: there is no run in")


def stages_running(place):
    with contextlib.suppress(AssertionError):
        return [stage["name"] for stage in place.status()["stages"] if stage["state"] == "running"]
    return []


def test_a_worker_that_is_asked_twice_leaves_in_the_middle_of_a_slice(workplaces, corpus):
    slow = {"training__global_batch": 8192, "training__slices": 1, "model__n_layer": 4, "model__n_embd": 64}  # a minute, and more
    place = workplaces(corpus, **slow)
    address = f"tcp://127.0.0.1:{free_port()}"
    place.start("coordinator", place.file, "--bind", address)
    worker = place.start("worker", "--connect", address)
    wait_until(lambda: worker.running() and "train" in stages_running(place), what="training has begun")
    time.sleep(3)
    for _ in range(2):
        send(signal.SIGINT, worker.pid)
        time.sleep(0.1)
    asked = time.monotonic()
    assert worker.wait() == 130, worker.stderr()
    assert time.monotonic() - asked < 20 and not place.steps()


def test_what_is_logged_can_be_chosen(place):
    process = place.run("--workers", 1, "--set", "training.max_steps=1", "--log-level", "debug")
    place.finish(process)
    worker = (place.output / "logs" / "worker-1.log").read_text()
    assert " debug coordinator " in place.events() and " info worker " in worker
    alone = place.start("worker", "--connect", f"tcp://127.0.0.1:{free_port()}", "--log-level", "error")
    caught = pathlib.Path(f"/proc/{alone.pid}/status")
    wait_until(lambda: int(caught.read_text().split("SigCgt:")[1].split()[0], 16) >> signal.SIGTERM - 1 & 1, 20, "it hears SIGTERM")
    send(signal.SIGTERM, alone.pid)
    assert alone.wait(10) == 130
    assert " info " not in alone.stderr()
    for command in (["worker", "--connect", "tcp://127.0.0.1:1"], ["coordinator", place.file], ["run", place.file]):
        told = millrace(*command, "--log-level", "loud", code=2).stderr
        assert "--log-level loud: expected debug, info, warn or error" in told
