"""`millrace status`: while a run runs, after it ended, and where there is none."""
import fcntl
import json
import os
import re
import shutil
import signal
import socket
import time

import pytest

from cluster import STEPS, alive, millrace, refused, wait_until

STATES = {"joining", "ready", "busy", "lost", "left"}


def test_status_while_it_runs(workplaces, corpus):
    place = workplaces(corpus, training__max_steps=2000, training__save_steps=0, training__eval_steps=0)
    process = place.run("--workers", 3)
    place.wait_for_step(process, 3)
    trained = wait_until(lambda: [s for s in [place.status()] if s["stages"][2]["done"] >= 3], 15, "it is told")  # up to 50 ms later
    status = trained[0]
    assert status["state"] == "running" and status["pid"] == process.children("coordinator")[0]
    assert [(stage["name"], stage["state"]) for stage in status["stages"]] == [("tokenize", "done"), ("pack", "done"), ("train", "running")]
    assert status["stages"][2]["total"] == 2000 and status["stages"][2]["done"] >= 3 and status["stages"][2]["rate"] > 0
    assert status["training"]["step"] >= 3 and status["training"]["loss"] > 0
    workers = status["workers"]
    assert {worker["pid"] for worker in workers} == set(process.children("worker")) and len(workers) == 3
    assert len({worker["id"] for worker in workers}) == 3
    assert all(worker["host"] == socket.gethostname() and worker["state"] in ("ready", "busy") for worker in workers)
    assert sorted(slice for worker in workers for slice in worker["slices"]) == [0, 1, 2, 3]
    shown = millrace("status", cwd=place.folder).stdout  # ./pipeline.yaml by itself
    assert "train     running" in shown and str(workers[0]["pid"]) in shown
    assert json.loads(millrace("status", place.output, "--json").stdout)["state"] == "running"
    dead = workers[0]["pid"]
    os.kill(dead, 9)
    wait_until(lambda: [w for w in place.status()["workers"] if w["pid"] == dead and w["state"] == "lost"], 15, "the dead worker is told")
    wait_until(lambda: len([w for w in place.status()["workers"] if w["state"] in ("ready", "busy")]) == 3, 15, "another one is there")
    assert not alive(dead)


def test_watching_ends_when_the_run_ends(place):
    process = place.run()
    place.wait_for_step(process, 1)
    watching = place.start("status", place.file, "--watch")
    wait_until(lambda: "e2e: running" in watching.stdout() or not watching.running(), 60, "it shows the run")
    assert watching.running()
    place.finish(process)
    assert watching.wait() == 0
    assert "e2e: running" in watching.stdout() and "e2e: done" in watching.stdout()


def test_watching_goes_on_while_the_run_stops(reference, tmp_path):
    """Until nobody holds the lock of its state any more, as a coordinator does that saves."""
    output = shutil.copytree(reference.output, tmp_path / "out")
    file, lock = output / "state" / "status.json", output / "state" / "lock"
    status = json.loads(file.read_text())
    status.update(state="stopping", output_dir=str(output))
    file.write_text(json.dumps(status))
    (output / "state" / "endpoint").unlink(missing_ok=True)
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        watching = reference.start("status", output, "--watch")
        wait_until(lambda: watching.stdout().count("e2e: stopping") >= 2 or not watching.running(), 60, "it looks again")
        assert watching.running()
    assert watching.wait() == 0
    assert watching.stdout().count("e2e: stopped") == 1


def test_watching_goes_on_while_a_killed_coordinator_is_not_started_again_yet(place):
    """`run` is made to take its time for that."""
    process = place.run()
    place.wait_for_step(process, 2)
    watching = place.start("status", place.file, "--watch")
    wait_until(lambda: "e2e: running" in watching.stdout() or not watching.running(), 60, "it shows the run")
    os.kill(process.pid, signal.SIGSTOP)
    os.kill(process.children("coordinator")[0], signal.SIGKILL)
    wait_until(lambda: watching.stdout().count("is started again") >= 2 or not watching.running(), 60, "it looks again")
    assert watching.running()
    assert place.status()["state"] == "running" and place.status()["unanswered"] is True
    os.kill(process.pid, signal.SIGCONT)
    place.finish(process)
    assert watching.wait() == 0
    assert "e2e: done" in watching.stdout() and "e2e: stopped" not in watching.stdout()


def status_at_once(place):
    """Nobody is asked who is not there: an answer would be waited for every time, for longer than a second; a busy machine is not."""
    for _ in range(20):
        began = time.monotonic()
        status = place.status()
        if time.monotonic() - began < 1:
            return status
    pytest.fail("an answer is waited for")


def test_status_after_the_end(reference):
    status = status_at_once(reference)
    assert status["state"] == "done" and status["result"] == reference.result
    assert [(stage["name"], stage["state"]) for stage in status["stages"]] == [("tokenize", "done"), ("pack", "done"), ("train", "done")]
    assert len(status["workers"]) == 2 and len({worker["pid"] for worker in status["workers"]}) == 2
    assert all(worker["state"] in STATES and worker["host"] and worker["id"] for worker in status["workers"])
    assert status["training"]["step"] == STEPS
    assert "e2e: done" in millrace("status", reference.file, "--watch").stdout


def stages(place):
    return [stage["state"] for stage in place.status()["stages"]]


def test_a_dataset_alone_does_not_count_as_training(workplaces, corpus):
    place = workplaces(corpus, training__max_steps=4, training__save_steps=2)
    assert "account" in place.finish(place.start("dataset", "build", place.file, "--json"))
    assert place.status()["state"] == "done" and stages(place) == ["done", "done", "not started"]
    assert "train     not started\n" in re.sub(" +\n", "\n", millrace("status", place.file).stdout)
    process = place.run("--set", "training.max_steps=2000")
    place.wait_for_step(process, 2)
    os.kill(process.pid, signal.SIGTERM)
    place.finish(process, 130)
    place.finish(place.start("dataset", "build", place.file, "--json", "--set", "training.max_steps=2000"))
    assert stages(place) == ["done", "done", "stopped"]


def test_status_after_everything_was_killed(place):
    process = place.run()
    place.wait_for_step(process, 2)
    process.kill()
    status = status_at_once(place)
    assert status["state"] == "stopped" and "coordinator was killed" in status["reason"]
    assert "stopped (the coordinator was killed" in millrace("status", place.file).stdout
    assert all(worker["state"] in ("left", "lost") for worker in status["workers"])


def test_a_run_that_failed_says_why_afterwards(place):
    (place.folder / "bad.jsonl").write_text('{"text": "good"}\n' + "{broken\n" * 9)
    place.values["dataset"]["sources"] = [str(place.folder / "bad.jsonl")]
    place.file.write_text(json.dumps(place.values))
    refused("run", place.file, code=2, says=["bad.jsonl", "max_left_out"])
    status = place.status()
    assert status["state"] == "failed" and "bad.jsonl" in status["reason"]


def test_where_there_is_no_run(place, tmp_path):
    refused("status", place.file, code=1, says=["no run", "millrace run"])
    refused("status", tmp_path, code=1, says=["no run"])
    refused("status", tmp_path / "missing.yaml", code=2, says=["missing.yaml"])
    refused("status", code=2, says=["pipeline.yaml: No such file", "pipeline file or of a run's output_dir"], cwd=tmp_path)


def everything(value):
    """Each (key, value) below a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, below in pairs:
        yield key, below
        if isinstance(below, (dict, list)):
            yield from everything(below)


def check_over(place, state, folder=None):
    """A run that is over: nothing runs, works, waits or has a time at which it will be done."""
    status = json.loads(millrace("status", folder or place.output, "--json").stdout)
    assert status["state"] == state
    for key, value in everything(status):
        assert value not in ("running", "busy", "ready", "joining", "evaluating", "stopping"), (key, value)
        assert key not in ("eta_seconds", "rate", "tokens_per_second", "waiting_for", "endpoint", "jobs_leased"), key
    assert "pid" not in status and all(worker["state"] in ("left", "lost") for worker in status["workers"])
    shown = millrace("status", folder or place.output).stdout
    lines = [line for line in shown.splitlines() if not line.startswith(("  output", "  saved"))]
    assert lines[0].startswith(f"e2e: {state}") and not re.search(r"ETA|running|busy|\d/s|B/s|tokens/s", "\n".join(lines[1:])), shown
    return status, shown


def test_a_run_that_is_over_says_that_and_nothing_else_however_it_ended(place):
    process = place.run()
    place.wait_for_step(process, 2)
    process.kill()
    check_over(place, "stopped")
    process = place.run()
    place.wait_for_step(process, max(place.steps()) + 2)  # one may have been recorded, and not be in the file yet, at the kill
    os.kill(process.pid, 15)
    place.finish(process, 130)
    assert check_over(place, "stopped")[0].get("reason") is None
    place.go()
    check_over(place, "done")


def test_a_coordinator_that_does_not_answer_is_not_said_to_have_stopped(place):
    process = place.run()
    place.wait_for_step(process, 2)
    coordinator = process.children("coordinator")[0]
    wait_until(lambda: "running" in (place.output / "state" / "status.json").read_text(), 30, "it has written its status")
    os.kill(coordinator, signal.SIGSTOP)
    status = place.status()
    assert status["state"] == "running" and "may be busy" in status["waiting_for"]
    os.kill(coordinator, signal.SIGCONT)
    place.finish(process)


def test_a_stage_that_failed_is_told(workplaces, tmp_path):
    (tmp_path / "a.txt").write_bytes(b"good \xff bad")
    place = workplaces(tmp_path, dataset__invalid_utf8="refuse")
    place.finish(place.run(), 2)
    status, _ = check_over(place, "failed")
    assert [stage["state"] for stage in status["stages"]] == ["failed", "waiting", "waiting"]


def test_after_a_move_no_old_path_is_left_and_a_copy_is_not_taken_for_the_original(place, tmp_path):
    process = place.run()
    place.wait_for_step(process, 5)
    copy = tmp_path / "a copy"
    shutil.copytree(place.output, copy, ignore=shutil.ignore_patterns("*.draft*", "lock"))
    status, _ = check_over(place, "stopped", copy)  # its address is that of the coordinator that runs
    assert status["output_dir"] == str(copy)
    place.finish(process)
    moved = tmp_path / "moved [1]"
    place.output.rename(moved)
    status, shown = check_over(place, "done", moved)
    assert str(place.output) not in json.dumps(status) + shown
    assert status["training"]["checkpoint"] == status["result"]["checkpoint"] == f"{moved}/checkpoint-{STEPS}"


def test_of_a_moved_folder_only_its_own_path_is_replaced(tmp_path):
    """The old path may also be the end, or the beginning, of another one."""
    was, now = f"/{tmp_path.name}-gone", tmp_path / "now"
    (now / "state").mkdir(parents=True)
    others = [f"/data{was}/part.txt", f"{was}-2/part.txt"]
    reason = "; ".join([f"{was}/state: full", *others, f"{others[0]}: damaged ({was})"])
    written = {"run_name": "e2e", "output_dir": was, "state": "failed", "reason": reason, "stages": [], "workers": []}
    (now / "state" / "status.json").write_text(json.dumps(written))
    status = json.loads(millrace("status", now, "--json").stdout)
    assert status["output_dir"] == str(now)
    assert status["reason"] == "; ".join([f"{now}/state: full", *others, f"{others[0]}: damaged ({now})"])
