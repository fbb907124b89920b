"""What a person sees of a run: on a terminal, in its log, in metrics.jsonl."""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import threading
import time

import pytest

import cluster
from cluster import MILLRACE, STEPS, digests, millrace, send, wait_until

ESCAPES = re.compile(r"\x1b\[K|\r")


class Terminal:
    """`millrace run` with a terminal for its progress; .seen is all that came."""

    def __init__(self, place, *arguments):
        ours, theirs = pty.openpty()
        self.seen = ""
        words = [MILLRACE, "run", str(place.file), *map(str, arguments)]
        self.popen = subprocess.Popen(words, cwd=place.folder, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=theirs,
                                      start_new_session=True)
        os.close(theirs)
        self.pid, self.ours = self.popen.pid, ours
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        while True:
            try:
                some = os.read(self.ours, 65536)
            except OSError:
                return
            self.seen += some.decode("utf-8", "replace")

    def running(self):
        return self.popen.poll() is None

    def stderr(self):
        return self.seen

    children = cluster.Process.children

    def kill(self):
        cluster.Process.kill(self)

    def end(self):
        out, _ = self.popen.communicate(timeout=cluster.RUN_SECONDS * cluster.PATIENCE)
        self.reader.join(10)
        return out.decode()

    def lines(self):
        return [line for line in ESCAPES.split(self.seen.replace("\r\n", "\r")) if line]


@pytest.fixture
def terminal():
    if not cluster.has_terminals():
        pytest.skip(cluster.NO_TERMINALS)
    started = []

    def start(place, *arguments):
        started.append(Terminal(place, *arguments))
        place.started.append(started[-1])
        return started[-1]

    yield start


def test_a_terminal_shows_evaluations_one_eta_and_what_was_saved(workplaces, corpus, terminal):
    place = workplaces(corpus, training__max_steps=6, training__eval_steps=3, training__eval_sequences=4000, training__save_steps=3,
                       **cluster.GPT2)  # fmt: skip  # so large a vocabulary that an evaluation takes longer than `millrace status`
    run = terminal(place, "--workers", 1)
    wait_until(lambda: run.children("worker") and (place.status().get("training") or {}).get("evaluation"), what="an evaluation")
    worker = run.children("worker")
    send(signal.SIGSTOP, *worker)  # however fast the machine is
    wait_until(lambda: "evaluate " in run.seen, what="its line")
    send(signal.SIGCONT, *worker)
    out = run.end()
    lines = run.lines()
    assert "done: 6 steps" in out, out
    evaluating = [line for line in lines if line.startswith("evaluate ")]
    assert evaluating, "\n".join(lines)
    assert all(re.match(r"evaluate +\d+\.\d %  [\d,]+ of [\d,]+ sequences", line) for line in evaluating), lines
    steps = [line for line in lines if re.match(r"step +\d+ of", line)]
    assert len(steps) == 6 and not any("ETA" in line for line in steps)  # the line below them has it
    assert not any("ETA 0 s" in line or "0.00/s" in line or line.count("ETA") > 1 for line in lines)
    assert f"saved     {place.output}/checkpoint-3" in lines
    assert f"logs      {place.output}/logs" in lines
    assert not any(line.startswith("resumed") for line in lines)


def test_the_screen_of_a_short_run_has_each_thing_once_and_in_its_order(workplaces, corpus):
    """A run that takes no longer than a few looks at it, whose folder a shell takes for several words."""
    place = workplaces(corpus, output_dir="a [b] 'c' $d")
    process = place.start("run", place.file)
    assert process.wait() == 0, process.stderr()
    lines = process.stderr().splitlines()
    steps = [line for line in lines if re.match(r"step +\d+ .*loss", line) and "validation" not in line]
    assert len(steps) == STEPS and all(re.match(rf"step +{i} of {STEPS}  ", line) for i, line in enumerate(steps, 1)), lines
    kinds = ["dataset", "step", "saved"]
    first = [next(i for i, line in enumerate(lines) if line.startswith(kind)) for kind in kinds]
    assert first == sorted(first), lines
    for line in lines:  # a checkpoint is told before steps that came when it was known
        if line.startswith("saved"):
            number = int(line.rpartition("-")[2])
            assert any(re.match(rf"step +{number} of", earlier) for earlier in lines[: lines.index(line)]), lines
    for stage in ("tokenize", "pack"):
        shown = [line for line in lines if line.startswith(stage + " ")]
        assert not shown or (" 100.0 %  " in shown[-1] and len(shown) == len(set(shown))), shown
    last = max(i for i, line in enumerate(lines) if line.startswith("step"))
    assert not any(line.startswith("train") for line in lines[last:]), lines
    everything = (process.stderr() + process.stdout()).splitlines()
    told = [line for line in everything if line.startswith(("left out", "changed"))]
    assert told and len(told) == len(set(told)) and all(line in lines for line in told), everything
    command = next(line for line in everything if line.startswith("Try the model:")).split(":", 1)[1]
    words = shlex.split(command)
    assert words[:3] == [MILLRACE, "generate", f"{place.output}/checkpoint-{STEPS}"]
    shown = subprocess.run(command.replace('"..."', "the --max-new-tokens 1"), shell=True, cwd="/", check=False)
    assert shown.returncode == 0


def test_going_on_shows_no_packing_and_a_stop_no_progress(place):
    length = ("--set", "training.max_steps=3000", "--set", "training.save_steps=3000")
    place.go("--stop-after", "dataset", *length)
    process = place.start("run", place.file, *length)
    place.wait_for_step(process, 5)
    wait_until(lambda: "step " in process.stderr(), 30, "steps are shown")
    send(signal.SIGSTOP, *process.children("worker"))  # so that saving takes its time
    send(signal.SIGINT, process.pid)
    wait_until(lambda: re.search(r"^saving    step \d+$", process.stderr(), re.M), 30, f"it is told what is saved {process.stderr()}")
    send(signal.SIGCONT, *process.children("worker"))
    assert process.wait() == 130
    assert not re.search("^(pack|check|tokenize) ", process.stderr(), re.M), process.stderr()
    after = process.stderr().split("stopping: ")[1]
    step = re.search(r"^saving    step (\d+)$", after, re.M)[1]
    assert f"saved step {step} to checkpoint-{step}" in after, after
    assert "ETA" not in after and after.count("saving ") == 1 and not re.search("^train", after, re.M), after


def test_a_coordinator_that_does_not_answer_is_told_once(place):
    process = place.start("run", place.file, "--set", "training.max_steps=3000")
    place.wait_for_step(process, 2)
    coordinator = process.children("coordinator")
    wait_until(lambda: "step " in process.stderr(), 30, "steps are shown")
    send(signal.SIGSTOP, *coordinator)
    told = "waiting   the coordinator has not answered for 3 s; it may be busy\n"
    wait_until(lambda: told in process.stderr(), 30, "it is told")
    time.sleep(1)  # some looks more, and nothing is said
    send(signal.SIGINT, process.pid)
    wait_until(lambda: "stopping: " in process.stderr(), 30, "it stops")
    send(signal.SIGCONT, *coordinator)
    assert process.wait() == 130
    assert process.stderr().count("waiting ") == 1, process.stderr()


def test_ends_of_processes_are_told(place, reference, terminal):
    run = terminal(place)
    place.wait_for_step(run, 2)
    worker = run.children("worker")[0]
    send(signal.SIGKILL, worker)
    place.wait_for_step(run, 5)
    coordinator = run.children("coordinator")[0]
    send(signal.SIGKILL, coordinator)
    run.end()
    told = "\n".join(run.lines())
    assert re.search(rf"^worker [12] \(pid {worker}\) was killed by signal 9 \(Killed\); it is started again; its log is .*worker-\d.log$",
                     told, flags=re.M), told
    assert re.search(rf"^the coordinator \(pid {coordinator}\) was killed by signal 9", told, flags=re.M), told
    assert told.count("was killed") == 2, told  # nothing is said about those that are ended on purpose
    assert digests(place.status()["result"]) == reference.digests


def test_what_is_resumed_is_told_and_lines_keep_their_time(place, reference):
    process = place.start("run", place.file)
    place.wait_for_step(process, 6)
    send(signal.SIGINT, process.pid)
    assert process.wait() == 130
    done, before = max(place.steps()), place.metrics()
    again = place.start("run", place.file)
    assert again.wait() == 0
    assert f"resumed   at step {done}, from {place.output}/checkpoint-{done}\n" in again.stderr()
    after = place.metrics()
    assert after[: len(before)] == before  # with their times
    times = [line["time"] for line in after]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time) for time in times) and times == sorted(times)
    assert "ETA" in again.stderr() and not re.search(r"ETA.*ETA", again.stderr())
    (place.output / "metrics.jsonl").unlink()  # no promised file: a new one has no times, and the same numbers
    assert place.start("run", place.file).wait() == 0
    assert [{**line, "time": None} for line in after] == place.metrics()
    assert place.status()["result"]["weights_digest"] == reference.digests[1]


def test_a_coordinator_started_by_hand_logs_the_run(place):
    coordinator = place.start("coordinator", place.file)
    address = place.output / "state" / "endpoint"
    wait_until(lambda: address.exists() or not coordinator.running(), 20, "the coordinator is up")
    worker = place.start("worker", "--connect", address.read_text())
    assert coordinator.wait() == 0, coordinator.stderr()
    worker.wait()
    log = coordinator.stderr()
    for step in range(1, STEPS + 1):
        assert re.search(rf"step {step} of {STEPS}: loss \d+\.\d+, learning rate .*, gradient norm .*, \d+ tokens/s", log), log
    for step in (10, 20, STEPS):
        assert re.search(rf"evaluation of step {step}: validation loss \d+\.\d+, perplexity \d+\.\d+, \d+ tokens", log), log
    assert f"checkpoint: {place.output}/checkpoint-{STEPS}" in log


def test_what_a_model_writes_is_harmless_on_a_screen(workplaces, corpus):
    """One that learned nothing, of 300 ids: most of them are bytes."""
    prompt = "one\ttwo\n\x1b[31mred\x9b"
    place = workplaces(corpus, training__max_steps=1, training__eval_steps=0, sample__prompt=prompt, sample__max_new_tokens=300,
                       sample__temperature=5, sample__top_k=0)
    run = place.start("run", place.file)
    assert run.wait() == 0, run.stderr()
    words = ["--prompt", prompt, "--max-new-tokens", 300, "--temperature", 5, "--top-k", 0]
    texts = [run.err.read_bytes(), millrace("generate", place.output, *words, text=False).stdout]
    for text in (raw.decode() for raw in texts):
        assert "one\ttwo\n\\x1B[31mred\\x9B" in text and "\ufffd" in text, text
        assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e]", text), text
    assert json.loads(millrace("generate", place.output, *words, "--json").stdout)["text"].startswith(prompt)


def test_a_perplexity_of_a_large_loss_is_told_alike_everywhere(workplaces, corpus):
    """A rate at which the loss grows beyond all measure."""
    place = workplaces(corpus, training__max_steps=3, training__learning_rate=10, training__warmup_steps=0, training__eval_steps=1,
                       training__lr_scheduler_type="constant", training__max_grad_norm=0, training__eval_sequences=4)
    run = place.start("run", place.file)
    assert run.wait() == 0, run.stderr()
    status, text = cluster.millrace("status", place.file).stdout, corpus / "document-1.txt"
    evaluated = cluster.millrace("evaluate", place.output, "--text", text).stdout
    told = re.findall(r"loss (\d+\.\d+),?  ?\(?perplexity ([^\s,)]+)", run.stderr() + run.stdout() + status + evaluated)
    assert len(told) == 6, told
    for loss, perplexity in told:
        assert float(loss) > 30, told
        assert perplexity == "inf" if float(loss) > 710 else re.fullmatch(r"\d\.\d{1,3}e\+\d+", perplexity), told


def test_a_warm_up_without_end_and_a_large_validation_part_are_warned_of(workplaces, tmp_path):
    """Two documents of one size, whose digests put one of them into each part."""
    for name, word in (("a", "one"), ("b", "other")):
        (tmp_path / f"{name}.txt").write_text(f"document 0 {word} " * 2000)
    place = workplaces(dataset__sources=[f"{tmp_path}/*.txt"], dataset__validation_fraction=0.2, training__max_steps=2,
                       training__warmup_steps=2, training__eval_sequences=1)
    process = place.start("run", place.file)
    assert process.wait() == 0, process.stderr()
    assert "warning   training.warmup_steps 2 are not over when the run ends, after 2 steps" in process.stderr()
    assert re.search(r"warning   \d\d % of the tokens are held out .*validation_fraction is 20 %", process.stderr())
    assert [len(place.status()[part]["warnings"]) for part in ("training", "dataset")] == [1, 1]
    place.write(dataset__sources=[f"{tmp_path}/*.txt"], dataset__validation_fraction=0.45, training__max_steps=2, training__warmup_steps=1,
                training__eval_sequences=1, output_dir="other")
    quiet = place.start("run", place.file)
    assert quiet.wait() == 0 and "warning" not in quiet.stderr(), quiet.stderr()


def test_a_warm_up_that_the_schedule_does_not_have_is_told_and_left_out(workplaces, corpus):
    without, given = (workplaces(corpus, training__lr_scheduler_type="constant", training__warmup_steps=n, training__max_steps=3)
                      for n in (0, 2))
    assert digests(given.go()) == digests(without.go())
    (warning,) = given.status()["training"]["warnings"]
    assert "training.warmup_steps 2 has no part with training.lr_scheduler_type constant" in warning
    assert {line["learning_rate"] for line in given.metrics() if "loss" in line} == {0.003}


def test_keys_of_another_optimizer_have_no_part_and_are_told(workplaces, corpus):
    without, given = (workplaces(corpus, training__max_steps=2, training__warmup_steps=1, training__eval_sequences=1, **more)
                      for more in ({}, {"training__sgd_nesterov": True}))
    assert digests(given.go()) == digests(without.go())
    assert given.status()["training"]["warnings"] == ["training.sgd_nesterov true has no part with training.optim adamw"]


def test_no_lines_of_steps_are_written_when_none_are_asked_for(workplaces, corpus):
    place = workplaces(corpus, training__max_steps=3, training__eval_steps=0, training__logging_steps=0)
    result = place.go()
    assert all("loss" not in line for line in place.metrics())
    state = json.loads((place.output / "checkpoint-3" / "trainer_state.json").read_text())
    row, = state["log_history"]
    assert row["step"] == 3 and row["eval_loss"] == pytest.approx(result["eval_loss"])
