"""Answers that a newcomer has to understand: what is said at a stop, of a prompt that is too long, of a server that is not there."""

import json
import pathlib
import re
import signal

import pytest

import cluster
from cluster import MILLRACE, millrace, refused, send, wait_until
from runs import free_port

ROOT = pathlib.Path(__file__).resolve().parents[2]
HOME = "any workers were sent home: start them again, too"


def test_a_stop_says_that_workers_started_by_hand_went_home(workplaces, corpus):
    place = workplaces(corpus, training__max_steps=3000, training__save_steps=0, training__eval_steps=0)
    by_hand = place.start("coordinator", place.file)
    wait_until((place.output / "state" / "endpoint").exists, 30, "the coordinator is up")
    worker = place.start("worker", "--connect", (place.output / "state" / "endpoint").read_text())
    place.wait_for_step(by_hand, 2)
    send(signal.SIGINT, by_hand.pid)
    assert by_hand.wait() == 130 and worker.wait() == 0
    assert by_hand.stderr().splitlines()[-1].endswith(f"the same command goes on from there; {HOME}"), by_hand.stderr()
    assert "sent home by the coordinator" in worker.stderr()
    run = place.start("run", place.file, "--workers", 1)
    step = max(place.steps())
    place.wait_for_step(run, step + 1)
    send(signal.SIGINT, run.pid)
    assert run.wait() == 130 and HOME not in run.stderr()


def test_worker_units_start_again_after_they_were_sent_home():
    unit = (ROOT / "deploy" / "millrace-worker.service").read_text()
    assert re.search(r"^Restart=always$", unit, re.M) and re.search(r"^RestartPreventExitStatus=2$", unit, re.M)


def test_a_worker_that_met_no_coordinator_waits_for_none(workplaces):
    place = workplaces()
    worker = place.start("worker", "--connect", f"tcp://127.0.0.1:{free_port()}")
    wait_until(lambda: "coordinator at" in worker.stderr(), 30, "it is up")
    send(signal.SIGINT, worker.pid)
    assert worker.wait() == 130
    assert "no coordinator was met" in worker.stderr() and "can do without" not in worker.stderr()


def test_a_worker_tells_the_grace_that_it_was_given(place):
    process = place.run("--set", "training.max_steps=3000", "--grace", 25)
    place.wait_for_step(process, 2)
    send(signal.SIGINT, process.children("worker")[0])
    log = place.output / "logs" / "worker-1.log"
    wait_until(lambda: "asked to leave" in log.read_text() + (place.output / "logs" / "worker-2.log").read_text(), 30, "it is asked")
    assert "asked to leave: within 25 s" in log.read_text() + (place.output / "logs" / "worker-2.log").read_text()


def test_a_prompt_longer_than_the_context_is_told(gpt2_reference):
    checkpoint = gpt2_reference.result["checkpoint"]
    long = millrace("generate", checkpoint, "--prompt", "river " * 60, "--max-new-tokens", 1)
    tokens = len(millrace("tokenize", stdin=b"river " * 60).stdout.split())
    told = re.search(r"the prompt has (\d+) tokens and the model's context 32: only the last (\d+) are seen, as the window", long.stderr)
    assert told and int(told[1]) == tokens and 16 <= int(told[2]) <= 32, long.stderr
    assert millrace("generate", checkpoint, "--prompt", "river", "--max-new-tokens", 40).stderr == ""


def test_a_server_that_refuses_connections_is_told_before_it_is_given_up(workplaces):
    url = f"http://127.0.0.1:{free_port()}/text.txt"
    place = workplaces(dataset__sources=[url])
    said = refused("run", place.file, code=1, says=["6 times in a row; check the URL and the network"])
    first = said.splitlines()[0]
    assert f"cannot reach {url}: " in first and first.endswith("; trying again, 2 of 6"), said
    assert not place.output.exists()


def test_both_numbers_of_memory_are_told(workplaces, corpus):
    wide = {"n_layer": 96, "n_head": 96, "n_embd": 12288, "n_positions": 2048}
    place = workplaces(corpus, model=wide, dataset__sequence_length=2048)
    said = refused("run", place.file, code=1, says=["training needs", "in 2 workers of"])
    whole, each = re.search(r"needs ([\d.]+) GiB .* parameters, ([\d.]+) GiB in each, and this machine", said).groups()
    assert float(whole) == pytest.approx(2 * float(each), rel=1e-3)
    alone = refused("run", place.file, "--workers", 1, code=1, says=["in 1 worker of"])
    assert "in each" not in alone and " parameters, and this machine" in alone


def test_nothing_left_out_is_said_in_a_word(workplaces, tmp_path):
    (tmp_path / "a.txt").write_text("the river and the mill and the stone " * 200)
    place = workplaces(dataset__sources=[str(tmp_path / "a.txt")], dataset__validation_fraction=0)
    millrace("dataset", "build", place.file)
    assert millrace("dataset", "inspect", place.output).stdout.splitlines()[-1] == "left out: nothing"
    place.write(dataset__sources=[str(tmp_path / "a.txt")], dataset__validation_fraction=0, run_name="run")
    run = millrace("run", place.file, "--set", "training.max_steps=1", "--set", "output_dir=elsewhere")
    assert run.stderr.splitlines()[0] == f"millrace {json.loads(millrace('version', '--json').stdout)['version']}"
    hint = re.search(r"^Look at the run again: +\S+ (.*)$", run.stdout, re.M)[1]
    assert "run: done" in millrace(*hint.split(), cwd="/").stdout and MILLRACE in run.stdout


def test_help_fits_a_screen_and_a_hint_is_a_sentence():
    listed = re.findall(r"^  (\w+) ", millrace("--help").stdout, re.M)
    assert len(listed) > 8
    for words in [[name] for name in listed] + [["dataset", "build"], ["tokenizer", "train"], ["bench", "train"]]:
        wide = [line for line in millrace(*words, "--help").stdout.splitlines() if len(line) > 132]
        assert not wide, wide
    assert "did you mean 'run'? 'millrace --help' lists" in refused("rum", code=2, says=[])
    assert "unknown command 'xyzzy'; 'millrace --help' lists" in refused("xyzzy", code=2, says=[])


def test_a_path_that_is_no_text_file_is_answered_with_what_to_do(tmp_path):
    (tmp_path / "odd [1] names").mkdir()
    out = ("--vocab-size", 300, "-o", tmp_path / "out")
    refused("tokenizer", "train", tmp_path / "nix", *out, code=1, says=["No such file", "give the path of a text file"])
    refused("tokenizer", "train", tmp_path / "odd [1] names", *out, code=2, says=["no file is in", "odd [1] names"])
    assert millrace("tokenize", "-d", stdin=b"15496 995 99999", code=1).stdout == ""


def test_a_folder_is_no_text_to_evaluate_on(reference, tmp_path):
    (tmp_path / "odd [1] names").mkdir()
    refused("evaluate", reference.result["checkpoint"], "--text", tmp_path / "odd [1] names", code=2,
            says=["odd [1] names is a folder; give the path of a text file in it"])
