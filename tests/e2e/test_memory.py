"""Processes that get no memory for the messages of a step or a checkpoint: a run ends with its result or with words of memory, and nobody
waits for ever. Limits (`ulimit -d`) lie between what such a process has when it begins and the most that it has without a limit."""

import contextlib
import resource
import signal
import subprocess
import time

import pytest

import cluster
from cluster import digests, send
from runs import free_port

WORDS = "out of memory: "


def limited(kib):
    return lambda: resource.setrlimit(resource.RLIMIT_DATA, (kib << 10, kib << 10))


def data_kib(pid):
    """What counts for `ulimit -d`."""
    with contextlib.suppress(OSError, IndexError):
        with open(f"/proc/{pid}/status") as status:
            return int(status.read().split("VmData:")[1].split()[0])
    return 0


@pytest.fixture(scope="module")
def between(base_folder, corpus):
    """between(word, share): KiB, at share 0 a little more than a coordinator or worker begins with, at 1 the most that it has in an
    undisturbed run, as far as looking often shows it."""
    place = cluster.Workplace(base_folder / "memory", corpus)
    seen = {"coordinator": [], "worker": []}
    try:
        process = place.run("--workers", 2)
        while process.running():
            for word, had in seen.items():
                had += map(data_kib, process.children(word))
            time.sleep(0.005)
        place.finish(process)
    finally:
        place.close()
    begins = sorted(seen["coordinator"])[len(seen["coordinator"]) // 2]  # threads and their stacks; a worker has as many
    return lambda word, share: int(begins + (max(seen[word]) - begins) * share)


def says_memory(process, kib):
    said = process.stderr().splitlines()[-1]
    assert WORDS in said and f"ulimit -d is {kib} KiB" in said, process.stderr()


def test_a_run_of_too_little_memory_ends_with_words_of_it_or_with_its_result(workplaces, corpus, reference, between):
    limits = [between("worker", share) for share in (0.4, 0.55)]
    runs = [(kib, place, place.run("--workers", 2, preexec_fn=limited(kib))) for kib in limits for place in [workplaces(corpus)]]
    for kib, place, process in runs:
        code = process.wait()
        if code == 0:
            assert digests(place.finish(process)) == reference.digests
        else:
            assert code == 1, process.stderr()
            says_memory(process, kib)


def by_hand(place, workers, **coordinator):
    """A coordinator and a worker for each of these options."""
    address = f"tcp://127.0.0.1:{free_port()}"
    return place.start("coordinator", place.file, "--bind", address, **coordinator), [
        place.start("worker", "--connect", address, **options) for options in workers
    ]


@pytest.mark.parametrize("share", (0.4, 0.8))
def test_a_worker_of_too_little_memory_ends_and_the_others_go_on(place, reference, between, share):
    kib = between("worker", share)
    coordinator, workers = by_hand(place, [{"preexec_fn": limited(kib)}, {}, {}])
    assert coordinator.wait() == 0, coordinator.stderr()
    if workers[0].wait() != 0:
        assert workers[0].wait() == 1
        says_memory(workers[0], kib)
    assert digests(place.go()) == reference.digests


@pytest.mark.parametrize("share", (0.2, 0.5))
def test_a_coordinator_of_too_little_memory_fails_with_words_of_it(place, reference, between, share):
    kib = between("coordinator", share)
    coordinator, workers = by_hand(place, [{}, {}], preexec_fn=limited(kib))
    code, status = coordinator.wait(), place.status()
    if code != 0:
        assert code == 1
        says_memory(coordinator, kib)
    assert status["state"] != "failed" or WORDS in status["reason"]
    send(signal.SIGTERM, *(worker.pid for worker in workers))  # who lost its connection for want of memory was not sent home
    for worker in workers:
        assert worker.wait() in (0, 130), worker.stderr()
    assert digests(place.go()) == reference.digests  # without a limit the same command goes on


def test_a_sample_for_which_there_is_no_memory_is_a_warning_and_the_result_is_shown(place, reference):
    process = place.start("run", place.file)
    place.wait_for_step(process, 2)
    little = min(time.sleep(0.01) or data_kib(process.pid) for _ in range(50)) + 3000 << 10  # the weights take 5 MB
    subprocess.run(["prlimit", f"--pid={process.pid}", f"--data={little}:"], check=True)
    assert process.wait() == 0, process.stderr()
    assert "warning   no sample: " in process.stderr()
    assert process.stdout().splitlines()[1:3] == [f"dataset  {reference.digests[0]}", f"weights  {reference.digests[1]}"]
