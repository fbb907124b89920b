"""A message of each kind is lost on a connection that lives on, on each link: whoever waits for it asks again, or says again."""

import contextlib
import os
import pathlib
import shutil
import tempfile
import threading
import time

import pytest

import proxy
from cluster import PATIENCE, SEED, wait_until
from runs import free_port

HEAL_SECONDS = 30  # 1 s, 4 s for a read, on a machine that has nothing else to do; it was a minute, or for ever
# FAILED needs a fault, REFUSED a liar, GOODBYE an end: each has a test of its own in other files.
TO_COORDINATOR = "HELLO READY HEARTBEAT SELF_TEST_RESULT DONE READ DATA SLICE REDUCED APPLIED".split()
FROM_COORDINATOR = "WELCOME HEARTBEAT SELF_TEST LEASE SETTLED READ DATA JOIN STEP COMMIT WHO".split()
BETWEEN_WORKERS = [("up", "READ"), ("down", "DATA")]


class Damage:
    """Which message is damaged next: one of each kind in the end, the next one when the run has gone on since the last."""

    def __init__(self):
        self.lock = threading.Lock()
        self.left = {("coordinator", "up", kind) for kind in TO_COORDINATOR}
        self.left |= {("coordinator", "down", kind) for kind in FROM_COORDINATOR}
        self.left |= {("worker", *one) for one in BETWEEN_WORKERS}
        self.first = {("coordinator", "up", "READ"), ("coordinator", "down", "DATA")}  # later on workers have all that they need
        self.done = []
        self.armed = True

    def judge(self, link):
        def flips(way, kind):
            if kind == "COMMIT":
                time.sleep(0.05)  # fewer steps for the undisturbed run to do again
            with self.lock:
                if not self.armed or (link, way, kind) not in (self.first & self.left or self.left):
                    return False
                self.left.discard((link, way, kind))
                self.done.append((link, way, kind))
                self.armed = False
                return True

        return flips


@pytest.fixture
def sockets():
    """A short path: a socket's may have 107 characters."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mr-"))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def progress(place):
    """A number that grows with each finished job and each step."""
    with contextlib.suppress(Exception):
        status = place.status()
        training = status.get("training") or {}
        return sum(worker["jobs_done"] for worker in status["workers"]) + training.get("step", 0)
    return 0


def came_by(damage, seconds):
    until = time.monotonic() + seconds * PATIENCE
    while damage.armed and time.monotonic() < until:
        time.sleep(0.01)
    return not damage.armed


def check_weights(place, other):
    """The newest checkpoint has the bytes of that of an undisturbed run."""
    steps = [path.parent.name.split("-")[1] for path in place.output.glob("checkpoint-*/model.safetensors")]
    newest = place.output / f"checkpoint-{max(int(step) for step in steps if step.isdigit())}" / "model.safetensors"
    twin = other.output / newest.relative_to(place.output)
    process = other.run()
    wait_until(lambda: twin.exists() or not process.running(), 100, f"the undisturbed run comes to {newest.parent.name}")
    assert twin.read_bytes() == newest.read_bytes()
    assert digest(other) == digest(place)


def slices_done(place):
    return [worker["slices_done"] for worker in place.status()["workers"]]


def digest(place):
    return place.status()["dataset"]["digest"]


@pytest.mark.seconds(300)
def test_fault_20_one_message_of_each_kind_is_lost_on_each_link(workplaces, corpus, sockets):
    changes = dict(training__max_steps=9999, training__eval_steps=2, training__save_steps=5, training__slices=6, training__global_batch=6)
    place = workplaces(corpus, cluster__lease_seconds=60, **changes)
    damage = Damage()
    port, proxy_port = free_port(), free_port()
    proxies = [proxy.Proxy(("127.0.0.1", proxy_port), ("127.0.0.1", port), damage.judge("coordinator"), SEED)]
    coordinator = place.start("coordinator", place.file, "--bind", f"tcp://127.0.0.1:{port}")
    workers = []
    try:
        for i in range(3):
            path = sockets / f"w{i}"
            workers.append(place.start("worker", "--connect", f"tcp://127.0.0.1:{proxy_port}", "--bind", f"ipc://{path}"))
            wait_until(path.exists, 10, "the worker listens")
            os.rename(path, f"{path}.own")
            proxies.append(proxy.Proxy(str(path), f"{path}.own", damage.judge("worker"), SEED + i))
        while damage.left:
            count = len(damage.done)
            while not came_by(damage, 1):
                proxies[0].part()  # what is said at the beginning comes again after a break
            before, began = progress(place), time.monotonic()
            wait_until(lambda: progress(place) > before, HEAL_SECONDS, f"the run goes on without {damage.done[count]}\n{place.logs()}")
            print(f"{time.monotonic() - began:5.1f} s after {damage.done[count]}")
            damage.armed = True
        before = slices_done(place)
        try:
            wait_until(lambda: all(now != then for now, then in zip(slices_done(place), before)), HEAL_SECONDS, "all compute slices")
        except AssertionError as failure:
            logs = "".join(process.stderr()[-2500:] for process in [coordinator, *workers])
            raise AssertionError(f"{failure}\n{before}\n{place.status()}\n{logs}") from None
        place.wait_for_files(coordinator, "checkpoint-5/model.safetensors", 1)
        check_weights(place, workplaces(corpus, **changes))
    finally:
        for one in proxies:
            one.close()
