"""One worker of three lies, in every way that can be found out: it is named and its work is done elsewhere, with the digests of an
undisturbed run. What only doing the work again would show is not among them."""
import pytest

import cluster
from cluster import digests, wait_until
from test_hostile import HOSTILE, endpoint, impostor, ready


def liar(place, lie, address, *more):
    """A worker behind tests/hostile/meddler.c."""
    program = HOSTILE / "meddler"
    assert program.exists(), f"{program} is not there; run 'make unit-tests'"
    files = place.folder / f"meddler-{len(place.started)}"
    meddler = cluster.Process([str(program), lie, address, *map(str, more)], place.folder, files)
    place.started.append(meddler)
    wait_until(lambda: meddler.stdout().endswith("\n"), 10, "the meddler is up")
    return place.start("worker", "--connect", meddler.stdout().strip())


def with_a_liar(place, lie, *more, honest=2, held=False):
    """A run with one liar, who comes first, and honest workers; the result, and the liar's process. held: nothing is done before three
    workers are there, an impostor keeps the first jobs."""
    process = place.run("--workers", 0)
    address = endpoint(place, process)
    if held:
        keeper = impostor(place, "fails", address, place.folder / "go")
        wait_until(lambda: "lease" in keeper.stdout(), 20, "the impostor has a job")
        wrong = liar(place, lie, address, *more)
        wait_until(lambda: any(worker["pid"] == wrong.pid for worker in ready(place)), 20, "the liar is there")  # and asked first
        for _ in range(2):
            place.start("worker", "--connect", address)
        wait_until(lambda: len(ready(place)) == 4, 30, "four are there")
        (place.folder / "go").touch()
        return place.finish(process), wrong
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
    if lie != "documents":  # its first job is one of text; that lie is about shards alone
        assert any("tokenize/" in line for line in failed), failed
    assert not list(place.output.glob("state/runs/*draft*")) and not list(place.output.glob("dataset/*draft*"))


TRAINING_LIES = {
    "count": "worker-set-aside",
    "gradient": "sum-differs",
    "norm": "sum-differs",
    "infinite": "sum-differs",
    "state": "state-differs",
    "answer": "worker-refused",
    "bytes": "worker-set-aside",
}


@pytest.mark.parametrize("lie", TRAINING_LIES)
def test_the_odd_one_of_three_is_named_and_left_alone(workplaces, corpus, reference, lie):
    place = workplaces(corpus, training__save_steps=1)  # whoever is late with a step gives nothing for its checkpoint
    result, wrong = with_a_liar(place, lie, honest=0, held=True)
    assert digests(result) == reference.digests
    named = [line for line in place.events().splitlines() if TRAINING_LIES[lie] in line]
    assert named and all(f"w-{wrong.pid}-" in line for line in named), place.events()
    assert "roll-back" not in place.events()


@pytest.mark.parametrize("lie", ["gradient", "state"])
def test_two_that_differ_about_a_step_again_stop_the_run_also_after_a_restart(place, lie):
    """With two workers nobody is in the majority: the step is done again from the checkpoint, and the second time the run ends."""
    process = place.run("--workers", 0)
    address = endpoint(place, process)
    wrong = liar(place, lie, address, 2)
    honest = place.start("worker", "--connect", address)
    assert process.wait() == 1
    events = place.events()
    assert events.count("doubt: ") == 2 and "step 2" in process.stderr()
    for worker in (wrong, honest):
        assert f"(pid {worker.pid} on " in process.stderr().split("before:")[0], process.stderr()
    assert "before: " in process.stderr()
    again = place.run("--workers", 0)
    wait_until(lambda: endpoint(place, again) and "generation 2" in place.events(), 10, "the second coordinator is up")
    address = endpoint(place, again)
    liar(place, lie, address, 2)
    place.start("worker", "--connect", address)
    assert again.wait() == 1
    assert place.events().count("doubt: ") == 3


def test_of_two_self_tests_the_first_counts_until_a_third_decides(place, reference):
    """The steps are made by one of the two; the other waits outside, and log and status say why."""
    process = place.run("--workers", 0)
    address = endpoint(place, process)
    keeper = impostor(place, "fails", address, place.folder / "go")
    wait_until(lambda: "lease" in keeper.stdout(), 20, "the impostor has a job")
    liar(place, "answer", address)
    place.start("worker", "--connect", address)
    wait_until(lambda: len(ready(place)) == 3, 30, "three are there")
    (place.folder / "go").touch()
    assert digests(place.finish(process)) == reference.digests
    assert "neither is in the majority" in place.events()
    assert any("majority" in (worker["set_aside"] or "") for worker in place.status()["workers"])
    assert "set aside: its self-test gives other bits than " in cluster.millrace("status", place.file).stdout


def test_a_member_alone_that_gives_another_state_than_it_told_stops_the_run(workplaces, corpus):
    """Its memory may be at fault: what it holds is given up and made again from the checkpoint before, but not for ever."""
    place = workplaces(corpus, training__save_steps=1)
    process = place.run("--workers", 0)
    wrong = liar(place, "bytes", endpoint(place, process), 2)
    assert process.wait() == 1
    assert f"(pid {wrong.pid} on " in process.stderr() and "step 2" in process.stderr(), process.stderr()
    assert place.events().count("roll-back: to step 1") == 2
    assert len(list(place.output.glob("checkpoint-*"))) == 1


def test_a_member_alone_that_tells_of_too_many_tokens_ends_the_run(place):
    """Nobody else can compute its slices: they are computed again, but not for ever."""
    process = place.run("--workers", 0)
    wrong = liar(place, "count", endpoint(place, process))
    assert process.wait() == 1
    assert f"(pid {wrong.pid} on " in process.stderr() and "more tokens than a slice has, 3 times" in process.stderr(), process.stderr()


def test_a_checkpoint_that_a_member_refuses_to_give_is_taken_from_another(workplaces, corpus, reference):
    place = workplaces(corpus, training__save_steps=1, cluster__lease_seconds=1)
    result, wrong = with_a_liar(place, "refuses", 2, honest=0, held=True)
    assert digests(result) == reference.digests
    told = [line for line in place.events().splitlines() if "state-not-given" in line]
    assert all(f"(pid {wrong.pid} on " in line for line in told)


def test_a_checkpoint_that_nobody_gives_is_not_waited_for_without_a_word(workplaces, corpus):
    """It counts as a failed one, of which there may be so many until training goes on without (coordinator/trainer.h)."""
    place = workplaces(corpus, training__save_steps=1, cluster__lease_seconds=1)
    liar(place, "refuses", endpoint(place, place.run("--workers", 0)), 2)
    wait_until(lambda: "checkpoint-failed: step 2" in place.events(), 30, "it is said that the checkpoint cannot be had")
