"""One worker of three lies, in every way that can be found out: it is named and its work is done elsewhere, with the digests of an
undisturbed run. What only doing the work again would show is not among them."""
import pytest

import cluster
from cluster import digests, wait_until
from test_hostile import HOSTILE, endpoint


def liar(place, lie, address, *more):
    """A worker behind tests/hostile/meddler.c."""
    program = HOSTILE / "meddler"
    assert program.exists(), f"{program} is not there; run 'make unit-tests'"
    files = place.folder / f"meddler-{len(place.started)}"
    meddler = cluster.Process([str(program), lie, address, *map(str, more)], place.folder, files)
    place.started.append(meddler)
    wait_until(lambda: meddler.stdout().endswith("\n"), 10, "the meddler is up")
    return place.start("worker", "--connect", meddler.stdout().strip())


def with_a_liar(place, lie, *more, honest=2):
    """A run with one liar, who comes first, and honest workers; the result, and the liar's process."""
    process = place.run("--workers", 0)
    address = endpoint(place, process)
    wrong = liar(place, lie, address, *more)
    wait_until(lambda: f" pid {wrong.pid} " in place.events() or f"(pid {wrong.pid} " in place.events(), 20, "the liar has joined")
    for _ in range(honest):
        place.start("worker", "--connect", address)
    return place.finish(process), wrong


@pytest.mark.parametrize("lie", ["digest", "size", "huge", "tokens", "documents", "next"])
def test_outputs_are_checked_on_arrival(workplaces, corpus, reference, lie):
    place = workplaces(corpus, training__max_steps=1, training__eval_steps=0)
    result, wrong = with_a_liar(place, lie, honest=1)
    assert result["dataset_digest"] == reference.digests[0]
    failed = [line for line in place.events().splitlines() if "job-failed" in line]
    assert failed and all(f" on w-{wrong.pid}-" in line for line in failed)
    assert not list(place.output.glob("state/runs/*draft*")) and not list(place.output.glob("dataset/*draft*"))
