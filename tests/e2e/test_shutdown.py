"""Asked to stop as Slurm, systemd, a shutdown and a closed terminal do it: every process at once, or any of them. What is committed is
saved first, the workers leave last, and the same command gives the digests of an undisturbed run."""

import contextlib
import http.server
import json
import os
import pty
import random
import re
import signal
import threading
import time

import pytest

import cluster
from cluster import MILLRACE, alive, digests, needs_terminals, send, wait_until

MORE_STEPS = 150  # of few milliseconds each: the vocabulary is small
TRIES = 5  # of what a busy machine may be too late for
CHANGES = {"training__max_steps": MORE_STEPS, "training__save_steps": 0, "training__eval_steps": 0, "training__eval_sequences": 8}


@pytest.fixture(scope="module")
def settings(base_folder, corpus):
    tokenizer = base_folder / "small-tokenizer"
    cluster.millrace("tokenizer", "train", corpus / "document-1.txt", corpus / "document-2.txt", "--vocab-size", 280, "--output", tokenizer)
    return {**CHANGES, "dataset__tokenizer": str(tokenizer), "model__n_positions": 32}


@pytest.fixture(scope="module")
def undisturbed(base_folder, corpus, settings):
    place = cluster.Workplace(base_folder / "undisturbed", corpus, **settings)
    try:
        yield digests(place.go())
    finally:
        place.close()


def members(process):
    return {"run": [process.pid], "coordinator": process.children("coordinator"), "workers": process.children("worker")}


def signal_together(place, process, number, names):
    """While the coordinator stands still after some step, so that all of them have the signal before anything happens."""
    there = members(process)
    coordinator = there["coordinator"][0]
    send(signal.SIGSTOP, coordinator)
    pids = [pid for name in names for pid in there[name]]
    send(number, *pids)
    send(signal.SIGCONT, coordinator)
    return there["coordinator"] + there["workers"]


def check_saved(place, process):
    """The last line says what is saved, and it is there: at most the step under way was lost."""
    last = process.stderr().strip().splitlines()[-1]
    saved = re.fullmatch(r"millrace: saved step (\d+) to checkpoint-(\d+); the same command goes on from there", last)
    assert saved and saved[1] == saved[2], process.stderr() + place.logs()
    assert int(saved[1]) == max(place.steps())
    assert (place.output / f"checkpoint-{saved[1]}" / "model.safetensors").exists()


class SilentServer(http.server.BaseHTTPRequestHandler):
    """A file of 100,000 bytes, for as many questions as server.answers says; then it takes questions and says nothing."""

    def do_GET(self):
        self.server.asked += 1
        if self.server.asked > self.server.answers:
            return self.server.over.wait()
        first, last = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        last = min(last, 99999)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/100000")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(b"x" * (last + 1 - first))

    def log_message(self, *arguments):
        pass


@contextlib.contextmanager
def silent_server(answers):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), SilentServer)
    server.daemon_threads, server.answers, server.asked, server.over = True, answers, 0, threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server
    finally:
        server.over.set()
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("answers", range(4))
def test_a_coordinator_that_begins_and_waits_for_a_server_is_ended_by_two_signals(workplaces, answers):
    """While it looks for sources, notes them, and reads what they are."""
    with silent_server(answers) as server:
        place = workplaces(dataset__sources=[f"http://127.0.0.1:{server.server_port}/all.txt"])
        coordinator = place.start("coordinator", place.file)
        wait_until(lambda: server.asked > answers, what="it waits for the server")
        for _ in range(2):
            send(signal.SIGINT, coordinator.pid)
            time.sleep(0.2)  # else they are one wish
        wait_until(lambda: not coordinator.running(), what="it ended")
        assert coordinator.wait() == 130, coordinator.stderr()


@pytest.mark.parametrize("answers", (0, 1))
@pytest.mark.parametrize("command", ("run", "coordinator"))
def test_one_signal_ends_the_waiting_for_a_server_before_there_is_anything(workplaces, command, answers):
    with silent_server(answers) as server:
        place = workplaces(dataset__sources=[f"http://127.0.0.1:{server.server_port}/all.txt"])
        process = place.start(command, place.file, *(["--json"] if command == "run" else []))
        wait_until(lambda: server.asked > answers, what="it waits for the server")
        send(signal.SIGINT, process.pid)
        wait_until(lambda: not process.running(), 20, what="it ended")
        assert process.wait() == 130, process.stderr()
        if command == "run":
            assert json.loads(process.stdout().splitlines()[-1])["state"] == "stopped"


SUBSETS = [
    (signal.SIGTERM, ("run", "coordinator", "workers")),
    (signal.SIGHUP, ("run", "coordinator", "workers")),
    (signal.SIGTERM, ("run", "workers")),
    (signal.SIGTERM, ("coordinator", "workers")),
    (signal.SIGINT, ("coordinator",)),
    (signal.SIGHUP, ("run",)),
]


@pytest.mark.parametrize("number, names", SUBSETS, ids=lambda value: "+".join(value) if isinstance(value, tuple) else value.name)
def test_fault_40_asked_to_stop_it_saves_the_last_step_first(workplaces, corpus, settings, undisturbed, number, names):
    for _ in range(TRIES):
        workers = random.choice([1, 2, 3, 5])
        print("workers:", workers)
        place = workplaces(corpus, **settings)
        process = place.run("--workers", workers)
        place.wait_for_step(process, 3)
        daemons = signal_together(place, process, number, names)
        wait_until(lambda: not process.running(), 120, "it ended")
        if max(place.steps()) < MORE_STEPS:
            break  # else the last step was done before anybody had the time to hear of it
    place.finish(process, 130)
    assert not any(alive(pid) for pid in daemons)
    check_saved(place, process)
    assert "roll-back" not in place.events()
    assert digests(place.go()) == undisturbed


def test_when_only_the_workers_are_asked_the_state_is_saved_and_others_go_on(workplaces, corpus, settings, undisturbed):
    for _ in range(TRIES):
        place = workplaces(corpus, **settings)
        process = place.run("--workers", 2)
        place.wait_for_step(process, 3)
        signal_together(place, process, signal.SIGTERM, ("workers",))
        assert digests(place.finish(process)) == undisturbed
        events = place.events()
        if events.count("worker-leaving") == 2:
            break  # else the last step was done before both had told that they leave
    assert events.count("worker-leaving") == 2 and events.count("was asked to leave, and had nothing") == 2
    assert "roll-back" not in events and place.steps() == list(range(1, MORE_STEPS + 1))


def test_workers_that_leave_during_the_last_evaluation_leave_it_to_others(workplaces, corpus, settings):
    """It takes long: all of the validation split. The run is not done without it."""
    for _ in range(TRIES):
        place = workplaces(corpus, **{**settings, "training__max_steps": 3, "training__eval_sequences": 0})
        process = place.run("--workers", 1)
        place.wait_for_step(process, 3)
        coordinator, worker = process.children("coordinator"), process.children("worker")
        send(signal.SIGSTOP, *coordinator)
        evaluated = any("eval_loss" in line for line in place.metrics())
        send(signal.SIGTERM, *worker)
        send(signal.SIGCONT, *coordinator)
        result = place.finish(process)
        if not evaluated and "worker-leaving" in place.events():
            break  # else it was evaluated before anybody had the time to hear of it
    assert not evaluated and "worker-leaving" in place.events(), place.events()
    assert result["steps"] == 3 and result["eval_loss"] is not None


def test_one_worker_of_three_leaves_at_the_boundary_and_nothing_is_saved_for_it(workplaces, corpus, settings, undisturbed):
    for _ in range(TRIES):
        place = workplaces(corpus, **settings)
        process = place.run("--workers", 3)
        place.wait_for_step(process, 3)
        worker = process.children("worker")[0]
        send(signal.SIGTERM, worker)
        wait_until(lambda: not alive(worker), 30, "it has left")
        assert digests(place.finish(process)) == undisturbed
        events = place.events()
        if "worker-leaving" in events:
            break  # else the last step was done before anybody had the time to hear of it
    assert "was asked to leave, and had nothing" in events and "roll-back" not in events and "worker-lost" not in events
    assert [path.name for path in place.output.glob("checkpoint-*")] == [f"checkpoint-{MORE_STEPS}"]


@pytest.mark.parametrize("names", [("run", "coordinator", "workers"), ("run",)], ids="+".join)
def test_asked_to_save_all_go_on(workplaces, corpus, settings, undisturbed, names):
    for _ in range(TRIES):
        place = workplaces(corpus, **settings)
        process = place.run("--workers", 2)
        place.wait_for_step(process, 3)
        signal_together(place, process, signal.SIGUSR1, names)
        wait_until(lambda: "checkpoint: " in place.events() or not process.running(), 30, "a checkpoint is there")
        assert digests(place.finish(process)) == undisturbed
        if "save-asked: a checkpoint is made now" in place.events():
            break  # else the last step was done before anybody had the time to hear of it
    saved = [int(path.name.split("-")[1]) for path in place.output.glob("checkpoint-*")]
    assert len(saved) in (2, 3) and min(saved) < MORE_STEPS and "save-asked: a checkpoint is made now" in place.events()


@pytest.mark.parametrize("pattern, count, stage", [("state/runs/*.tok", 3, "tokenize"), ("dataset/*.tok.zst", 1, "pack")])
def test_in_other_stages_what_is_done_is_kept(large_place, large_reference, pattern, count, stage):
    process = large_place.run()
    large_place.wait_for_files(process, pattern, count)
    there = members(process)
    send(signal.SIGTERM, *there["run"], *there["workers"], *there["coordinator"])
    large_place.finish(process, 130)
    last = process.stderr().strip().splitlines()[-1]
    assert re.search(r"stopped in stage \w+: \d+ of \d+ jobs are done and kept|stopped before the first step|saved step", last), last
    kept = {path: path.stat().st_ino for path in large_place.output.glob("state/runs/*.tok")}
    assert digests(large_place.go()) == large_reference.digests
    assert all(path.stat().st_ino == kept[path] for path in kept if path.exists()), "nothing was done again"


@needs_terminals
def test_a_closed_terminal_saves_the_last_step(workplaces, corpus, settings, undisturbed):
    place = workplaces(corpus, **settings)
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(place.folder)
        os.execv(MILLRACE, [MILLRACE, "run", str(place.file), "--workers", "2"])
    try:
        wait_until(lambda: place.steps() and max(place.steps()) >= 3, 60, "step 3 was done")
        os.close(terminal)
        wait_until(lambda: os.waitpid(pid, os.WNOHANG)[0] == pid, 30, "it ended")
    finally:
        send(signal.SIGKILL, pid)
    steps = max(place.steps())
    assert steps == MORE_STEPS or (place.output / f"checkpoint-{steps}" / "model.safetensors").exists()
    assert digests(place.go()) == undisturbed


def test_a_grace_that_is_too_short_ends_it_and_says_what_is_lost(workplaces, corpus, settings, undisturbed):
    place = workplaces(corpus, **settings)
    process = place.run("--workers", 2, "--grace", 0.5)
    place.wait_for_step(process, 3)
    there = members(process)
    send(signal.SIGSTOP, *there["workers"])  # whoever holds the state does not answer
    place.wait_for_step(process, 3)
    send(signal.SIGTERM, process.pid)
    place.finish(process, 130)
    assert not any(alive(pid) for pid in there["workers"] + there["coordinator"])
    last = process.stderr().strip().splitlines()[-1]
    why = "which is not saved: the grace is over; the same command begins at the first step"
    assert re.fullmatch(rf"millrace: stopped at step \d+, {why}", last), last
    assert digests(place.go()) == undisturbed


def test_a_signal_that_comes_twice_at_once_is_one_wish(workplaces, corpus, settings, undisturbed):
    """timeout(1) signals the process and then its group; a shutdown signals all, and `run` passes it on. Two signals of one sender lie
    there when the process goes on, so that it hears both in a row however busy the machine is; two of one number would be one."""
    place = workplaces(corpus, **settings)
    process = place.run("--workers", 2)
    place.wait_for_step(process, 3)
    there = members(process)
    send(signal.SIGSTOP, *there["workers"], *there["run"])
    send(signal.SIGTERM, *there["run"], *there["coordinator"])
    send(signal.SIGHUP, *there["run"])
    wait_until(lambda: "stop-asked" in place.events(), 30, "the coordinator heard it")
    send(signal.SIGCONT, *there["run"])
    wait_until(lambda: "once more to stop at once" in process.stderr() or not process.running(), 30, "`run` heard it")
    assert process.running(), "it waits for the workers"
    send(signal.SIGCONT, *there["workers"])
    place.finish(process, 130)
    check_saved(place, process)
