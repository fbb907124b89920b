"""A worker that the others cannot reach: nobody listens at the address that it announces, or somebody who never says a word."""

import os
import pathlib
import shutil
import tempfile

import pytest

import proxy
from cluster import SEED, digests, wait_until
from runs import free_port


@pytest.fixture
def sockets():
    """A short path: a socket's may have 107 characters."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mr-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("how", ["nobody listens", "a black hole"])
def test_the_step_goes_on_without_a_worker_that_the_others_cannot_reach(place, reference, sockets, how):
    address = f"tcp://127.0.0.1:{free_port()}"
    paths = [sockets / f"w{i}" for i in range(3)]
    hole = None
    try:
        workers = []
        for path in paths:
            workers.append(place.start("worker", "--connect", address, "--bind", f"ipc://{path}"))
            wait_until(path.exists, 30, "the worker listens")
        wrong = int(SEED) % 3
        os.rename(paths[wrong], sockets / "own")
        if how == "a black hole":
            hole = proxy.BlackHole(str(paths[wrong]))
        coordinator = place.start("coordinator", place.file, "--bind", address)
        wait_until(lambda: "unreachable: " in coordinator.stderr() or not coordinator.running(), 40, f"it is found\n{coordinator.stderr()}")
        lines = [line for line in coordinator.stderr().splitlines() if "unreachable: " in line]
        wrong_address = f"ipc://{paths[wrong]}"
        assert all(wrong_address in line and line.count("ipc://") >= 2 for line in lines), lines
        if coordinator.running():
            unreached = {worker["pid"]: worker["unreached"] for worker in place.status()["workers"]}
            assert wrong_address in (unreached[workers[wrong].pid] or wrong_address), unreached
        assert coordinator.wait(60) == 0, coordinator.stderr()[-3000:]
        assert digests(place.go()) == reference.digests
    finally:
        if hole:
            hole.close()
