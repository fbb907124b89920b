"""Stopping on purpose, and the same command again: what a person does with a run."""
import contextlib
import fcntl
import json
import os
import pathlib
import pty
import shutil
import signal
import subprocess
import termios
import time

import pytest

from cluster import MILLRACE, STEPS, alive, children_of, digests, millrace, needs_terminals, refused, send, wait_until
from test_kills import check_metrics

# What waits for the end of the grace would wait for longer than a test does: so it is known, on however busy a machine, that nothing did.
NO_END_OF_GRACE = ("--grace", 3600)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_fault_40_a_stop_saves_the_last_step_and_the_same_command_goes_on(place, reference, number):
    process = place.run(*NO_END_OF_GRACE)
    place.wait_for_step(process, 6)
    daemons = process.children("worker") + process.children("coordinator")
    send(number, process.pid)
    place.finish(process, 130)
    assert "the same command goes on" in process.stderr()
    told = json.loads(process.stdout().splitlines()[-1])
    assert told["state"] == "stopped" and "the same command goes on" in told["reason"]
    assert not any(alive(pid) for pid in daemons)
    done = max(place.steps())
    assert 6 <= done < STEPS
    assert (place.output / f"checkpoint-{done}" / "millrace_state.json").exists()
    assert place.status()["state"] == "stopped"
    assert digests(place.go()) == reference.digests
    assert place.steps() == list(range(1, STEPS + 1))
    check_metrics(place, reference)


def test_ctrl_c_while_tokenizing_keeps_what_is_done(large_place, large_reference):
    process = large_place.run(*NO_END_OF_GRACE)
    large_place.wait_for_files(process, "state/runs/*.tok", 5)
    send(signal.SIGINT, process.pid)
    large_place.finish(process, 130)
    kept = {path: path.stat().st_ino for path in large_place.output.glob("state/runs/*.tok")}
    assert len(kept) >= 5
    process = large_place.run()
    large_place.wait_for_files(process, "state/runs/*.tok", len(kept) + 1)
    now = {path: path.stat().st_ino for path in kept if path.exists()}
    assert all(now[path] == kept[path] for path in now), "what was tokenized before is not done again"
    assert digests(large_place.finish(process)) == large_reference.digests


def stop_at_once(process):
    """Two signals of one sender; what comes from it within 40 ms is one wish (cli/signals.c)."""
    send(signal.SIGINT, process.pid)
    wait_until(lambda: "once more to stop at once" in process.stderr(), 30, "the first Ctrl-C was noticed")
    assert process.running()
    time.sleep(0.05)
    send(signal.SIGINT, process.pid)


def test_fault_40_ctrl_c_twice_stops_at_once(place, reference):
    process = place.run(*NO_END_OF_GRACE)
    place.wait_for_step(process, 2)
    daemons = process.children("worker") + process.children("coordinator")
    send(signal.SIGSTOP, *daemons)  # nobody will answer the first one
    stop_at_once(process)
    place.finish(process, 130)
    assert not any(alive(pid) for pid in daemons)
    assert digests(place.go()) == reference.digests


@pytest.mark.parametrize("every", [8, STEPS])
def test_steps_that_no_checkpoint_has_are_told_and_made_again(place, reference, every):
    """With a checkpoint before them and with none: when it stops, by `status` and `plan`, and when the same command goes on."""
    process = place.run(*NO_END_OF_GRACE, "--set", f"training.save_steps={every}")
    if every < STEPS:
        place.wait_for_files(process, f"checkpoint-{every}/millrace_state.json", 1)
    place.wait_for_step(process, every % STEPS + 2)
    send(signal.SIGSTOP, *process.children("worker"), *process.children("coordinator"))
    stop_at_once(process)
    place.finish(process, 130)
    done, saved = max(place.steps()), max((int(path.name.split("-")[1]) for path in place.output.glob("checkpoint-*[0-9]")), default=0)
    assert saved < done
    begins = f"goes on from checkpoint-{saved}" if saved else "begins at the first step"
    assert f"stopped at once; the same command {begins}: steps {saved + 1} to {done} are not saved" in process.stderr()
    shown = millrace("status", place.file).stdout
    assert "e2e: stopped (asked to stop at once; what was not saved by then is done again)" in shown, shown
    told = json.loads(millrace("plan", place.file, "--no-calibration", "--json").stdout)["training"]
    assert told["steps_done"] in (done, done + 1) and told["steps_saved"] == saved  # metrics.jsonl may lack the last one
    done = told["steps_done"]
    planned = millrace("plan", place.file, "--no-calibration").stdout
    assert f" {done - saved}  of these, {saved + 1} to {done}, are in no checkpoint" in " ".join(planned.split("\n")), planned
    again = place.start("run", place.file)
    assert again.wait() == 0, again.stderr()
    where = f"at step {saved}, from {place.output}/checkpoint-{saved}" if saved else "from the beginning"
    lines = again.stderr().splitlines()
    told = f"resumed   {where} (steps {saved + 1} to {done} are made again: no checkpoint has them)"
    assert told in lines, lines
    resumed = lines.index(told)
    assert not [line for line in lines[:resumed] if line.startswith(("step ", "train "))]  # nothing false before
    assert any(line.startswith(f"step {saved + 1:>6} of") for line in lines[resumed:]), lines
    training = place.status()["training"]
    assert training["rolled_back"] == {"number": 1, "first": saved + 1, "last": done} and training["began_at"] == saved
    assert digests(place.status()["result"]) == reference.digests


def test_a_finished_run_whose_newest_checkpoint_is_gone_tells_from_where_it_goes_on(place, reference):
    place.go()
    newest = place.output / f"checkpoint-{STEPS}"
    shutil.rmtree(newest)
    left = max(int(path.name.split("-")[1]) for path in place.output.glob("checkpoint-*"))
    shown = millrace("status", place.file).stdout
    assert f"  saved     {place.output}/checkpoint-{left}\n  unsaved   steps {left + 1} to {STEPS}: they are made again" in shown, shown
    training = place.status()["training"]
    assert (training["step"], training["saved_step"]) == (STEPS, left) and training["checkpoint"] == f"{place.output}/checkpoint-{left}"
    again = place.start("run", place.file)
    assert again.wait() == 0, again.stderr()
    told = f"resumed   at step {left}, from {place.output}/checkpoint-{left} (steps {left + 1} to {STEPS} are made again: no"
    assert told in again.stderr(), again.stderr()
    assert digests(place.status()["result"]) == reference.digests
    for checkpoint in place.output.glob("checkpoint-*"):
        shutil.rmtree(checkpoint)
    shown = millrace("status", place.file).stdout
    assert "  saved " not in shown and f"  unsaved   steps 1 to {STEPS}: they are made again" in shown, shown


def test_who_stops_a_run_that_began_anew_is_told_that_the_same_command_would_do_so_again(place, reference):
    place.go("--set", "training.max_steps=2")
    process = place.run("--restart")
    place.wait_for_step(process, 3)
    send(signal.SIGINT, process.pid)
    place.finish(process, 130)
    assert "leave --restart out then: it would begin from nothing again" in process.stderr()
    assert digests(place.go()) == reference.digests and place.status()["training"]["began_at"] >= 3


def test_a_result_is_that_of_the_run_whatever_lies_in_output_dir(place, reference):
    """status.json cannot be written, as on a full disk: it stays what the command before has left there."""
    place.finish(place.run("--stop-after", "dataset"))
    (place.output / "state/status.json.draft").mkdir()
    before = (place.output / "state/status.json").read_bytes()
    result = place.go()
    assert (place.output / "state/status.json").read_bytes() == before
    assert result["steps"] == STEPS and digests(result) == reference.digests


def test_a_limit_of_files_that_no_checkpoint_fits_into_ends_the_run_at_the_first_one(place, reference):
    process = place.run(prefix=("prlimit", "--fsize=3000000"))
    assert process.wait() == 1
    assert "File too large; see ulimit -f" in process.stderr() and "tried again" not in process.stderr(), process.stderr()
    assert max(place.steps()) == 8  # the first one is due there
    assert digests(place.go()) == reference.digests


@needs_terminals
def test_each_ctrl_c_that_is_typed_counts(place, reference):
    """The second one as soon as the first is told, which no hand can do: the kernel sends a SIGINT for each."""
    ours, theirs = pty.openpty()
    command = [MILLRACE, "run", str(place.file)]
    process = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
                               preexec_fn=lambda: fcntl.ioctl(theirs, termios.TIOCSCTTY, 0))
    os.close(theirs)
    seen = b""

    def comes(words):
        nonlocal seen
        with contextlib.suppress(OSError):  # nothing is there; at the end, nobody is
            seen += os.read(ours, 1 << 16)
        return words in seen

    try:
        os.set_blocking(ours, False)
        wait_until(lambda: comes(b"") and len(place.steps()) >= 2, 60, "two steps are done")
        send(signal.SIGSTOP, *[pid for pid, *_ in children_of(process.pid)])  # nobody will answer the first one
        os.write(ours, b"\x03")
        wait_until(lambda: comes(b"once more to stop at once"), 30, "the first one is told")
        os.write(ours, b"\x03")
        wait_until(lambda: comes(b"stopped at once"), 30, "the second one counts")
        assert process.wait(60) == 130
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    assert digests(place.go()) == reference.digests


def test_a_finished_pipeline_shows_its_result_again(place, reference):
    first = place.go()
    written = {path: path.stat().st_mtime_ns for path in place.output.glob("checkpoint-*/*")}
    again = place.run("--workers", 1)
    assert place.finish(again) == first
    assert {path: path.stat().st_mtime_ns for path in place.output.glob("checkpoint-*/*")} == written
    text = millrace("run", place.file)
    for part in (first["weights_digest"], first["dataset_digest"], first["checkpoint"]):
        assert part in text.stdout
    assert digests(first) == reference.digests


@pytest.mark.parametrize("key, old, new", [
    ("training.learning_rate", "0.003", "0.001"), ("training.max_steps", str(STEPS), "20"), ("model.n_layer", "2", "3"),
    ("dataset.validation_fraction", "0.3", "0.2"), ("training.seed", "42", "7"),
])
def test_a_changed_key_that_alters_results_is_refused(reference, key, old, new):
    text = refused("run", reference.file, "--set", f"{key}={new}", code=2, says=[f"{key}: {old} -> {new}", "--restart", "output_dir"])
    assert text.count("->") == 1
    refused("coordinator", reference.file, "--set", f"{key}={new}", code=2, says=[f"{key}: {old} -> {new}", "--restart"])


def shown(process, reference):
    assert process.wait() == 0, process.stderr()
    assert process.stdout().splitlines()[1:3] == [f"dataset  {reference.digests[0]}", f"weights  {reference.digests[1]}"]


def test_who_asked_to_stop_gets_the_result_of_a_run_that_is_done_and_no_sample(place, reference):
    process = place.start("run", place.file, "--set", "sample.prompt=What comes")
    place.wait_for_step(process, 2)
    (coordinator,) = process.children("coordinator")
    os.kill(process.pid, signal.SIGSTOP)
    wait_until(lambda: state_of(coordinator) == "Z", 120, "the coordinator is done")
    send(signal.SIGINT, process.pid)
    send(signal.SIGCONT, process.pid)
    shown(process, reference)
    assert "What comes" not in process.stderr()


def test_a_second_ctrl_c_ends_a_sample_at_once_and_the_result_is_shown(workplaces, corpus):
    """In the prefill of a prompt that takes some seconds, where the first one is heard only behind it."""
    place = workplaces(corpus, training__max_steps=1, model__n_positions=16384, sample__prompt="the mill " * 7200)
    process = place.start("run", place.file)
    wait_until(lambda: "the mill the mill" in process.stderr(), 120, "the sample is begun")
    for _ in range(2):
        send(signal.SIGINT, process.pid)
        time.sleep(0.3)  # well beyond the 40 ms in which they would be one wish (cli/signals.c)
    assert process.wait() == 0, process.stderr()
    assert process.stdout().splitlines()[0].startswith("done: 1 step") and "Try the model:" in process.stdout()
    assert not process.stderr().endswith("\n"), "the end of the sample was waited for"


def state_of(pid):
    return pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0]


def test_harmless_keys_may_change_in_the_middle(place, reference):
    process = place.run()
    place.wait_for_step(process, 3)
    send(signal.SIGINT, process.pid)
    place.finish(process, 130)
    place.write(dataset__sources=place.values["dataset"]["sources"], run_name="renamed", cluster__workers=1, cluster__threads_per_worker=2,
                cluster__compression="none", training__save_steps=3, training__save_total_limit=2, training__logging_steps=5,
                sample__prompt="Other")
    assert digests(place.go()) == reference.digests


def test_restart_begins_from_nothing(place, reference):
    place.go("--set", "training.seed=5", "--set", "training.max_steps=2", "--set", "training.save_steps=1")
    assert digests(place.go("--restart")) == reference.digests
    assert place.steps() == list(range(1, STEPS + 1))
    assert sorted(path.name for path in place.output.glob("checkpoint-*")) == ["checkpoint-16", f"checkpoint-{STEPS}", "checkpoint-8"]


@pytest.mark.parametrize("name, neighbour", [("exp[1]", "exp1"), ("a b*", "a b2")])
def test_restart_takes_output_dir_by_its_name_and_standard_input_anew(workplaces, name, neighbour):
    place = workplaces(None, output_dir=name, dataset__sources=["-"], dataset__validation_fraction=0)
    build = ("dataset", "build", place.file, "--json", "--workers", 1)

    def built(text, *options):
        return json.loads(millrace(*build, *options, stdin=text).stdout.splitlines()[-1])["dataset_digest"]

    first, other = (b"one text of several words " * 100, b"another text, and longer " * 120)
    digest = built(first)
    shutil.copytree(place.output, place.folder / neighbour)
    before = sorted(path.relative_to(place.folder) for path in (place.folder / neighbour).rglob("*"))
    (place.output / "checkpoint-best").mkdir()
    refused(*build, "--restart", code=2, says=["standard input is empty"])
    assert built(b"") == digest, "nothing was lost"
    anew = built(other, "--restart")
    assert anew != digest and built(b"") == anew
    assert sorted(path.relative_to(place.folder) for path in (place.folder / neighbour).rglob("*")) == before
    assert (place.output / "checkpoint-best").exists()
    assert built(first, "--restart") == digest


@pytest.mark.parametrize("options", [[], ["--restart"]])
def test_standard_input_of_an_earlier_pipeline_is_not_that_of_a_later_one(workplaces, options):
    place = workplaces(None, dataset__sources=["-"], dataset__validation_fraction=0)
    first, other = (b"one text of several words " * 100, b"another text, and longer " * 120)

    def built(source, text, *options):
        place.write(dataset__sources=[source], dataset__validation_fraction=0)
        done = millrace("dataset", "build", place.file, "--json", "--workers", 1, *options, stdin=text)
        return json.loads(done.stdout.splitlines()[-1])["dataset_digest"]

    (place.folder / "b.txt").write_bytes(b"a file of words " * 150)
    once = built("-", first)
    built("b.txt", b"", *options)
    anew = built("-", other)
    assert anew != once, "the first text was taken"
    assert built("-", first, "--restart") == once and built("-", other, "--restart") == anew


def test_sources_that_change_while_they_are_tokenized_are_done_again(workplaces, large_corpus, tmp_path):
    for file in large_corpus.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    changes = {"training__max_steps": 1, "training__save_steps": 0}
    place = workplaces(tmp_path, **changes)
    process = place.run()
    place.wait_for_files(process, "state/runs/*.tok", 3)
    send(signal.SIGINT, process.pid)
    place.finish(process, 130)
    (tmp_path / "part-0.txt").write_text("another beginning")
    result = place.go()
    assert "sources-changed" in place.events()
    assert digests(workplaces(tmp_path, **changes).go()) == digests(result)


def test_old_checkpoints_go_and_the_last_step_is_always_saved(workplaces, corpus, reference):
    place = workplaces(corpus, training__save_steps=10, training__save_total_limit=2)
    assert digests(place.go()) == reference.digests
    assert sorted(path.name for path in place.output.glob("checkpoint-*")) == ["checkpoint-20", f"checkpoint-{STEPS}"]
    only = workplaces(corpus, training__save_steps=1, training__save_total_limit=1)
    assert only.go()["checkpoint"] == str(only.output / f"checkpoint-{STEPS}")
    assert [path.name for path in only.output.glob("checkpoint-*")] == [f"checkpoint-{STEPS}"]
