"""When nothing is finished any more, screen, log and status say what is waited for, from whom, since when."""

import re
import signal

from cluster import digests, millrace, send, wait_until

SINCE = r"nothing was finished since \d\d:\d\d:\d\d UTC"


def waits_for(place, *words):
    """status, its --json: all say it."""
    status = place.status()
    told = status.get("waiting_for") or ""
    return all(word in told for word in words) and status["stalled_ms"] and told in millrace("status", place.file).stdout


def test_what_is_waited_for_is_told(place, reference):
    process = place.run("--workers", 0, "--set", "cluster.lease_seconds=600")
    wait_until((place.output / "state" / "endpoint").exists, 30, "the coordinator is up")
    address = (place.output / "state" / "endpoint").read_text()
    wait_until(lambda: waits_for(place, "none is there", f"millrace worker --connect {address}"), 40, "it waits for a worker")
    assert re.search(f"waiting: a worker: none is there.*{SINCE}", place.events()), place.events()
    worker = place.start("worker", "--connect", address)
    place.wait_for_step(process, 2)
    assert place.status()["stalled_ms"] is None
    send(signal.SIGSTOP, worker.pid)  # its connection counts as gone after about as long as a stall takes: either is told
    wait_until(lambda: waits_for(place, f"(pid {worker.pid} on ") or waits_for(place, "none is there"), 60, "it waits for it")
    assert place.status()["stalled_ms"] >= 10_000
    send(signal.SIGCONT, worker.pid)
    assert digests(place.finish(process)) == reference.digests


def test_a_time_without_workers_is_part_of_no_speed(workplaces, corpus):
    place = workplaces(corpus, training__max_steps=3000, training__eval_steps=0, training__save_steps=0)
    millrace("dataset", "build", place.file)
    process = place.start("run", place.file, "--workers", 0)
    wait_until(lambda: "  0 of 3,000 steps; 0 of 4 slices of step 1" in process.stderr(), 30, "the way of the first step is told")
    wait_until(lambda: waits_for(place, "none is there"), 40, "it waits for a worker")  # for ten seconds at least
    worker = place.start("worker", "--connect", (place.output / "state" / "endpoint").read_text())
    place.wait_for_step(process, 3)
    first = next(line for line in place.metrics() if line.get("step") == 1)
    assert 8 * 32 / first["tokens_per_second"] < 10, first  # of a step of 256 tokens
    assert place.status()["training"]["tokens_per_second"] > 0 and "tokens/s" in millrace("status", place.file).stdout
    worker.kill()
    wait_until(lambda: not place.status()["training"]["tokens_per_second"], 60, "no speed is told while nobody is there")
    told = millrace("status", place.file).stdout
    assert "tokens/s" not in told and "ETA" not in told and not re.search(r" $", told, re.M), told
