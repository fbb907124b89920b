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
