"""What a coordinator's start is known by: its generation. Nothing of an earlier one counts, and who was there is taken over."""
import signal

from cluster import digests, send, wait_until
from test_hostile import endpoint, impostor


def test_every_start_has_a_generation_of_its_own_and_takes_each_worker_over_once(place, reference):
    """Workers say hello again when they are asked who they are, and a new coordinator asks at every message."""
    process = place.run("--workers", 3)
    seen = []
    for step in (2, 5):
        place.wait_for_step(process, step)
        coordinator = wait_until(lambda: process.children("coordinator"), 30, "the coordinator is there")
        told = lambda: [s for s in [place.status()] if s.get("pid") in coordinator]  # while it starts there is no pid
        seen.append(wait_until(told, 30, "it answers")[0]["generation"])
        send(signal.SIGKILL, *coordinator)
    result = place.finish(process)
    assert seen == [1, 2] and place.status()["generation"] == 3
    assert digests(result) == reference.digests
    assert "said hello again" not in place.events()


def test_a_result_of_an_earlier_generation_is_fenced_off(place, reference):
    process = place.run("--workers", 0)
    wrong = impostor(place, "done-of-an-earlier-generation", endpoint(place, process))
    wait_until(lambda: wrong.stdout().count("settled") >= 2, 20, "both messages are answered")
    assert "lease" in wrong.stdout()
    place.start("worker", "--connect", endpoint(place, process))
    wrong.kill()
    assert digests(place.finish(process)) == reference.digests
    assert "read" not in wrong.stdout().split(), "the coordinator asked for the output of a job that it did not lease"
    assert "job-failed" not in place.events()

