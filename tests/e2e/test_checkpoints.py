"""Checkpoints as other programs read and write them. What needs no transformers; tests/outside asks transformers itself."""

import hashlib
import json
import os
import shutil
import signal
import struct

import pytest

import cluster
from cluster import END_OF_TEXT, GPT2, STEPS, digests, millrace, refused, send, wait_until

# What TrainerState of transformers 4.41 to 5.23 takes, and of which types; it refuses any other key. tests/outside compares.
NUMBER = (int, float)
TRAINER_STATE = {
    "best_metric": type(None),
    "best_model_checkpoint": type(None),
    "epoch": NUMBER,
    "eval_steps": int,
    "global_step": int,
    "is_hyper_param_search": bool,
    "is_local_process_zero": bool,
    "is_world_process_zero": bool,
    "log_history": list,
    "logging_steps": int,
    "max_steps": int,
    "num_input_tokens_seen": int,
    "num_train_epochs": int,
    "save_steps": int,
    "stateful_callbacks": dict,
    "total_flos": NUMBER,
    "train_batch_size": int,
    "trial_name": type(None),
    "trial_params": type(None),
}


def checkpoints(place):
    return sorted(place.output.glob("checkpoint-*[0-9]"), key=lambda path: int(path.name.split("-")[1]))


def record(folder):
    return json.loads((folder / "millrace_state.json").read_text())


def trainer_state(folder):
    return json.loads((folder / "trainer_state.json").read_text())


def contents(folder):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def copy_of(folder, target):
    shutil.copytree(folder, target)
    return target


def seal(state):
    """The digest that a record ends with."""
    state.pop("sha256", None)
    return hashlib.sha256(reals(json.dumps(state, separators=(",", ":"), sort_keys=True, default=str)).encode()).hexdigest()


def reals(text):
    """Numbers are kept as the text that they were read as."""
    return text.replace('"@', "").replace('@"', "")


def as_the_first_release(folder):
    """Its record had Hugging Face's name, and there was no file of theirs."""
    state = json.loads((folder / "millrace_state.json").read_text(), parse_float=lambda number: f"@{number}@")
    del state["eval_step"], state["run_sha256"], state["self_test"], state["files_sha256"]["trainer_state.json"]
    state["sha256"] = seal(dict(state))
    (folder / "trainer_state.json").write_text(reals(json.dumps(state, indent=2)))
    (folder / "millrace_state.json").unlink()


# ---- trainer_state.json --------------------------------------------------------------------------------------------------------


def test_trainer_state_has_the_keys_and_types_of_transformers(reference):
    folders = checkpoints(reference)
    assert len(folders) == STEPS // 8
    for folder in folders:
        state, step = trainer_state(folder), int(folder.name.split("-")[1])
        assert state.keys() == TRAINER_STATE.keys()
        for key, types in TRAINER_STATE.items():
            assert isinstance(state[key], types) and (types is bool or not isinstance(state[key], bool)), key
        assert (state["global_step"], state["max_steps"]) == (step, STEPS)
        assert (state["train_batch_size"], state["save_steps"], state["eval_steps"]) == (8, 8, 10)
        control = state["stateful_callbacks"]["TrainerControl"]
        assert control["attributes"] == {} and len(control["args"]) == 5 and not any(control["args"].values())


def test_the_log_of_a_checkpoint_is_the_run_up_to_it(reference):
    metrics = reference.metrics()
    for folder in checkpoints(reference):
        step = int(folder.name.split("-")[1])
        told = [(row["step"], row.get("loss"), row.get("eval_loss")) for row in trainer_state(folder)["log_history"]]
        wanted = [(row["step"], row.get("loss"), row.get("eval_loss")) for row in metrics if row["step"] <= step]
        assert [pytest.approx(row, rel=1e-8) for row in wanted] == told


def test_the_last_checkpoint_carries_the_last_evaluation(reference):
    last = checkpoints(reference)[-1]
    assert record(last)["eval_step"] == STEPS and record(last)["eval_loss"] == pytest.approx(reference.result["eval_loss"], rel=1e-8)
    assert trainer_state(last)["log_history"][-1]["eval_loss"] == record(last)["eval_loss"]


def test_every_file_of_a_checkpoint_is_the_same_for_another_cluster(place, reference):
    """Also an evaluation and the checkpoint of the same step, which come in any order, and a stop."""
    process = place.run("--workers", 3)
    place.wait_for_step(process, 5)
    cluster.send(cluster.signal.SIGINT, process.pid)
    place.finish(process, 130)
    stopped = checkpoints(place)[-1]
    assert digests(place.go("--workers", 1)) == reference.digests
    if int(stopped.name.split("-")[1]) % 8:
        shutil.rmtree(stopped)
    for mine, theirs in zip(checkpoints(place), checkpoints(reference), strict=True):
        assert contents(mine) == contents(theirs)


def test_a_crash_between_evaluation_and_note_is_made_good(place, reference):
    """The folder as it is when the evaluation is recorded and the checkpoint does not tell it yet."""
    before = place.output
    shutil.copytree(reference.output, before)
    last = checkpoints(place)[-1]
    state = json.loads((last / "millrace_state.json").read_text(), parse_float=lambda number: f"@{number}@")
    whole = contents(last)
    theirs = (last / "trainer_state.json").read_bytes().replace(b"eval_loss", b"eval_lost")
    (last / "trainer_state.json").write_bytes(theirs)
    state["files_sha256"]["trainer_state.json"] = hashlib.sha256(theirs).hexdigest()
    state["eval_step"] = 20
    state["sha256"] = seal(dict(state))
    (last / "millrace_state.json").write_text(reals(json.dumps(state, indent=2)))
    assert contents(last) != whole
    place.go()
    assert contents(last) == whole


def test_a_checkpoint_that_a_crash_left_between_two_names_is_gone_on_from(place, reference):
    """Where two names cannot be exchanged, the old folder and the new one have drafts' names for a moment."""
    shutil.copytree(reference.output, place.output)
    *before, last = checkpoints(place)
    for folder in before:
        shutil.rmtree(folder)
    whole = contents(last)
    nobody = 2**22 + 1  # a process
    copy_of(last, f"{last}.draft-{nobody}-0")
    last.rename(f"{last}.draft-{nobody}-0-whole")
    result = place.go()
    assert digests(result) == reference.digests and result["warnings"] == []
    assert place.status()["training"]["began_at"] == STEPS  # not at nothing
    assert [path.name for path in place.output.glob("checkpoint-*")] == [last.name] and contents(last) == whole


def test_checkpoints_of_the_first_release_are_gone_on_from(place, reference):
    process = place.run("--set", "training.save_steps=4")
    place.wait_for_step(process, 6)
    cluster.send(cluster.signal.SIGINT, process.pid)
    place.finish(process, 130)
    stopped = int(checkpoints(place)[-1].name.split("-")[1])
    for folder in checkpoints(place):
        as_the_first_release(folder)
    assert digests(place.go()) == reference.digests
    assert place.status()["training"]["began_at"] == stopped >= 6  # not at nothing
    assert "passed over" not in place.events()


# ---- going on ----------------------------------------------------------------------------------------------------------------------


def test_a_checkpoint_that_nobody_can_read_any_more_ends_a_run_of_one_worker(place, reference):
    """It was whole when the coordinator opened it. A worker that begins anew reads the state from it, again and again in vain."""
    process = place.run("--workers", 1, "--set", "training.save_steps=8")
    place.wait_for_files(process, "checkpoint-8/millrace_state.json", 1)
    worker = process.children("worker")
    send(signal.SIGSTOP, *worker)  # no other checkpoint comes
    wait_until(lambda: not list(place.output.glob("checkpoint-*draft*")), 30, "none is under way")
    for checkpoint in checkpoints(place):
        os.truncate(checkpoint / "model.safetensors", 1000)
    send(signal.SIGKILL, *worker)
    place.finish(process, 1)
    assert "could not take the state of step 8 over" in process.stderr() and "run the same command again" in process.stderr()
    assert digests(place.go()) == reference.digests


# ---- damage --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(gpt2_reference, tmp_path):
    return copy_of(checkpoints(gpt2_reference)[-1], tmp_path / "a model's copy")


@pytest.fixture
def text(tmp_path):
    (tmp_path / "text").write_text("the water of the mill and the wheel " * 30)
    return tmp_path / "text"


def commands(checkpoint, text):
    for named in (checkpoint, checkpoint / "model.safetensors"):
        yield "generate", named, "--prompt", "the"
        yield "evaluate", named, "--text", text
        yield "evaluate", named, "--text", text, "--dtype", "int8"


def test_a_damaged_checkpoint_that_is_passed_over_is_named_with_what_is_wrong(workplaces, corpus):
    """On the screen, in status and in the result; by generate, too, which looks for the newest one."""
    place = workplaces(corpus, training__max_steps=4, training__save_steps=2)
    result = place.go()
    weights = place.output / "checkpoint-4" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    weights.write_bytes(content)
    said = millrace("generate", place.output, "--max-new-tokens", 1).stderr
    assert said.startswith(f"warning   {weights}: digest differs") and "this checkpoint is passed over" in said, said
    process = place.start("run", place.file)
    assert process.wait() == 0 and said in process.stderr() and "resumed   at step 2" in process.stderr(), process.stderr()
    assert said.removeprefix("warning   ").strip() in place.status()["training"]["warnings"]
    assert "checkpoint-damaged" in place.events() and result["weights_digest"] in process.stdout()


def test_words_of_generate_that_do_not_go_together_are_refused(checkpoint):
    for other in (["--temperature", 1], ["--top-k", 3], ["--top-p", 0.5], ["--num-return-sequences", 2]):
        refused("generate", checkpoint, "--greedy", *other, code=2, says=["exclude each other", f"--greedy and {other[0]}"])
    refused("generate", checkpoint, "The old", code=2, says=["one word too many: The old", "--prompt TEXT"])


def test_a_checkpoint_that_is_named_is_checked_against_its_digests(checkpoint, text):
    for words in commands(checkpoint, text):
        millrace(*words)
    weights = checkpoint / "model.safetensors"
    whole = weights.read_bytes()
    (size,) = struct.unpack("<Q", whole[:8])
    weights.write_bytes(whole[: 8 + size] + bytes(len(whole) - 8 - size))
    for words in commands(checkpoint, text):
        refused(*words, code=1, says=["model.safetensors", "digest differs"])
    record = checkpoint / "millrace_state.json"
    told = record.read_text()
    record.write_text(told.replace("millrace checkpoint 1", "millrace checkpoint 2"))
    for words in commands(checkpoint, text):
        refused(*words, code=1, says=["millrace_state.json was written by another version"])
    for damaged in (told.replace("millrace checkpoint 1", "nillrace checkpoint 1"), told + " " * (1 << 24)):
        record.write_text(damaged)  # nobody else has a file of that name: it does not make the folder a foreign one
        refused("generate", checkpoint, code=1, says=["millrace_state.json"])
    record.write_text(told)
    weights.write_bytes(whole)
    (checkpoint / "config.json").write_text((checkpoint / "config.json").read_text().replace('"n_head": 2', '"n_head": 4'))
    refused("generate", checkpoint, code=1, says=["config.json", "digest differs", "without millrace_state.json"])
    (checkpoint / "millrace_state.json").unlink()  # on purpose, then
    millrace("generate", checkpoint, "--prompt", "the", "--max-new-tokens", 3)


def test_weights_that_are_no_numbers_are_an_error(checkpoint, text):
    weights = checkpoint / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-4] + struct.pack("<f", float("nan")))
    (checkpoint / "millrace_state.json").unlink()
    for dtype in ("fp32", "bf16"):
        refused("evaluate", checkpoint, "--text", text, "--dtype", dtype, "--json", code=1, says=["not a number", "damaged"])
    refused("generate", checkpoint, "--prompt", "the", "--greedy", "--json", code=1, says=["not a number"])


def test_pickles_are_answered_with_the_line_that_converts_them(checkpoint, text):
    os.rename(checkpoint / "model.safetensors", checkpoint / "pytorch_model.bin")
    for command in (("generate", checkpoint), ("evaluate", checkpoint, "--text", text)):
        refused(*command, code=1, says=["python3 -c", "save_pretrained", str(checkpoint)])


# ---- generation_config.json ----------------------------------------------------------------------------------------------------


def asks_for(checkpoint, **changes):
    """A foreign folder with that generation_config.json."""
    (checkpoint / "millrace_state.json").unlink(missing_ok=True)
    (checkpoint / "generation_config.json").write_text(json.dumps(changes))


def generated(checkpoint, *options):
    return json.loads(millrace("generate", checkpoint, "--prompt", "the mill", "--json", *options).stdout)["ids"]


def test_generation_config_gives_the_defaults(checkpoint):
    assert len(generated(checkpoint)) == 2 + 50  # untrained enough never to end
    greedy = generated(checkpoint, "--greedy", "--max-new-tokens", 7)
    asks_for(checkpoint, do_sample=False, max_new_tokens=7)
    assert generated(checkpoint) == greedy
    assert generated(checkpoint, "--temperature", 5, "--top-k", 0) != greedy  # asks for sampling
    asks_for(checkpoint, do_sample=True, max_length=9, temperature=2.5, top_k=1000, top_p=0.9, eos_token_id=None)
    options = ["--temperature", 2.5, "--top-k", 1000, "--top-p", 0.9, "--max-new-tokens", 7]
    assert generated(checkpoint) == generated(checkpoint, *options)
    assert len(generated(checkpoint, "--max-new-tokens", 3)) == 5
    asks_for(checkpoint, max_length=2)  # shorter than the prompt: says nothing
    assert len(generated(checkpoint)) == 2 + 50
    asks_for(checkpoint, temperature="hot")
    refused("generate", checkpoint, code=1, says=["generation_config.json", "temperature", "a number"])


def test_each_of_several_ends_is_one(checkpoint):
    ids = generated(checkpoint, "--seed", 1, "--max-new-tokens", 30)
    for ends in ([END_OF_TEXT, ids[6], ids[9]], ids[6]):
        asks_for(checkpoint, eos_token_id=ends)
        first = next(i for i in range(2, len(ids)) if ids[i] in (ends if isinstance(ends, list) else [ends]))
        assert generated(checkpoint, "--seed", 1, "--max-new-tokens", 30) == ids[: first + 1]
        assert len(generated(checkpoint, "--seed", 1, "--max-new-tokens", 30, "--min-new-tokens", 30)) == 32
    asks_for(checkpoint, repetition_penalty=1.2, num_beams=1, top_h=None, typical_p=1.0)
    warning = millrace("generate", checkpoint, "--max-new-tokens", 1).stderr
    assert "repetition_penalty" in warning and "num_beams" not in warning


# ---- padded vocabularies -------------------------------------------------------------------------------------------------------


def test_the_text_at_the_end_of_a_run_is_what_generate_gives(workplaces, corpus):
    """Also at temperature 0, which is the likeliest token, and with a padded vocabulary."""
    changes = {**GPT2, "model__vocab_size": 50304, "training__max_steps": 1, "training__eval_steps": 0}
    place = workplaces(corpus, **changes, sample__temperature=0, sample__prompt="The mill")
    process = place.start("run", place.file)
    assert process.wait() == 0, process.stderr()
    words = ["--prompt", "The mill", "--greedy", "--max-new-tokens", 5, "--json"]
    told = json.loads(millrace("generate", place.output, *words).stdout)["text"]
    assert f"\n{told}\n" in process.stderr()


def test_a_padded_vocabulary_is_trained_and_its_padding_never_chosen(workplaces, corpus):
    changes = {**GPT2, "model__vocab_size": 50304, "training__max_steps": 2, "training__eval_steps": 0}
    place = workplaces(corpus, **changes, training__learning_rate=1e-9)
    result = place.go()
    assert json.loads(open(f"{result['checkpoint']}/config.json").read())["vocab_size"] == 50304
    folder = place.folder / "copy"
    shutil.copytree(result["checkpoint"], folder)
    (folder / "millrace_state.json").unlink()
    weights = folder / "model.safetensors"  # embeddings of the padding that would always win
    raw = bytearray(weights.read_bytes())
    (size,) = struct.unpack("<Q", raw[:8])
    width = 32 * 4
    begin = 8 + size + json.loads(raw[8 : 8 + size])["transformer.wte.weight"]["data_offsets"][0]
    final = 8 + size + json.loads(raw[8 : 8 + size])["transformer.ln_f.bias"]["data_offsets"][0]
    raw[begin + 50257 * width : begin + 50304 * width] = struct.pack("<32f", *[1000.0] * 32) * 47
    raw[final : final + width] = struct.pack("<32f", *[1.0] * 32)
    weights.write_bytes(raw)
    for options in (["--greedy"], ["--top-k", 0], ["--top-k", 5, "--temperature", 5]):
        assert max(generated(folder, *options)) < 50257


def test_a_whole_checkpoint_of_another_run_is_not_taken_for_the_own_one(workplaces, corpus):
    """Nor for the result of a finished run. Without it the run goes on from the checkpoint before."""
    own, other = workplaces(corpus), workplaces(corpus, training__seed=7)
    wanted = digests(own.go())
    assert digests(other.go()) != wanted
    last, foreign = (checkpoints(place)[-1] for place in (own, other))
    before = contents(foreign)
    shutil.rmtree(last)
    copy_of(foreign, last)
    refused("run", own.file, code=2, says=[f"{last} is not the checkpoint that this run made"])
    assert contents(last) == before
    shutil.rmtree(last)
    assert digests(own.go()) == wanted
