"""The one promise with other optimizers, schedules and losses than the default: whatever the state of a run is made of, it is the same for
any number of workers, through kills, joins and checkpoints.
"""

import json
import math
import random
import signal
import struct

import pytest

from cluster import SEED, Workplace, digests, millrace, prose, refused, send

SGD = {
    "training__optim": "sgd",
    "training__sgd_nesterov": True,
    "training__learning_rate": 0.5,
    "training__lr_scheduler_type": "warmup_stable_decay",
    "training__num_decay_steps": 4,
    "training__min_lr_rate": 0.1,
    "training__ema_decay": 0.8,
    "training__eval_ema": True,
    "training__label_smoothing_factor": 0.1,
    "training__z_loss": 1e-4,
    "training__micro_batch": 1,
}
BF16 = {
    "training__bf16": True,
    "training__optim_state": "bf16",
    "training__ema_decay": 0.8,
    "model__n_layer": 1,
    "model__n_inner": 33,  # with one layer an odd number of parameters: the last segment of a moment is no whole number of words
}
RUNS = {"sgd": SGD, "bf16-state": BF16}
SHORT = {"training__max_steps": 4, "training__eval_steps": 0}
OTHERS = [
    {"training__optim": "adam", "training__optim_state": "bf16", "training__lr_scheduler_type": "inverse_sqrt", **SHORT},
    {"training__optim": "sgd", "training__sgd_momentum": 0, "training__lr_scheduler_type": "polynomial", **SHORT},
]


def last_state(place):
    """Of the last checkpoint: the state's digest, and those of its large files by name."""
    newest = max(place.output.glob("checkpoint-*[0-9]"), key=lambda path: int(path.name.split("-")[1]))
    state = json.loads((newest / "millrace_state.json").read_text())
    return newest, state["state_xxh128"], {name: sha for name, sha in state["files_sha256"].items() if name.endswith(".safetensors")}


@pytest.fixture(scope="module")
def corpus(base_folder):
    """Text for a few steps."""
    folder, chooser = base_folder / "few-documents", random.Random(SEED)
    folder.mkdir()
    for i in range(60):
        folder.joinpath(f"{i}.txt").write_text(prose(chooser, 2000), newline="")
    return folder


@pytest.fixture(scope="module")
def undisturbed(base_folder, corpus):
    """A run with one worker by its name in RUNS; each is made once."""
    places = {}

    def run(name):
        if name not in places:
            places[name] = Workplace(base_folder / name, corpus, **RUNS[name])
            places[name].result = places[name].go("--workers", 1)
        return places[name]

    yield run
    for place in places.values():
        place.close()


@pytest.mark.parametrize("name", RUNS)
def test_a_state_of_other_parts_has_one_digest_for_any_workers_and_through_kills(workplaces, corpus, undisturbed, name):
    alone, place = undisturbed(name), workplaces(corpus, **RUNS[name])
    process = place.run("--workers", 3)
    place.wait_for_step(process, 2)
    send(signal.SIGKILL, process.children("worker")[0])  # whoever comes for it takes the state from the others
    place.wait_for_step(process, 6)
    send(signal.SIGKILL, *process.children("coordinator"), *process.children("worker"))  # and now from the checkpoint
    result = place.finish(process)
    assert digests(result) == digests(alone.result)
    assert result["eval_loss"] == alone.result["eval_loss"]
    assert last_state(place)[1:] == last_state(alone)[1:]
    assert "roll-back" in place.events()
    other = {"fp32": "bf16", "bf16": "fp32"}[RUNS[name].get("training__optim_state", "fp32")]
    refused("run", place.file, "--set", f"training.optim_state={other}", code=2, says=["training.optim_state: ", f"-> {other}"])


def test_moments_of_bfloat16_are_tensors_of_that_type(undisturbed):
    place = undisturbed("bf16-state")
    raw = (last_state(place)[0] / "optimizer.safetensors").read_bytes()
    size = int.from_bytes(raw[:8], "little")
    tensors = {name: tensor for name, tensor in json.loads(raw[8 : 8 + size]).items() if name != "__metadata__"}
    assert {tensor["dtype"] for tensor in tensors.values()} == {"BF16"}
    elements = sum(math.prod(tensor["shape"]) for tensor in tensors.values())
    assert elements % 4 == 2 and len(raw) == 8 + size + 2 * elements
    planned = json.loads(millrace("plan", place.file, "--json", "--no-calibration").stdout)
    assert planned["workers"]["memory_bytes"]["optimizer"] == (2 + 2 + 4) * elements // 2
    begin, end = tensors["exp_avg_sq.transformer.ln_f.bias"]["data_offsets"]
    for at in range(8 + size + begin, 8 + size + end, 2):  # bfloat16 is the upper half of a float
        assert 0 < struct.unpack("<f", b"\0\0" + raw[at : at + 2])[0] < 1e-3


def test_the_average_is_a_model_that_evaluations_see(workplaces, corpus, undisturbed):
    with_average = undisturbed("sgd")
    folder, _, files = last_state(with_average)
    assert set(files) == {"model.safetensors", "optimizer.safetensors", "model.ema.safetensors"}
    assert files["model.safetensors"] != files["model.ema.safetensors"]
    assert millrace("generate", folder / "model.ema.safetensors", "--prompt", "the mill", "--max-new-tokens", 3).stdout
    weights = workplaces(corpus, **{**SGD, "training__eval_ema": False})
    result = weights.go()
    assert digests(result) == digests(with_average.result)
    assert result["eval_loss"] != with_average.result["eval_loss"]


@pytest.mark.parametrize("changes", OTHERS, ids=["adam in bf16", "sgd without momentum"])
def test_other_optimizers_have_one_digest_for_any_workers(workplaces, corpus, changes):
    few, many = workplaces(corpus, **changes), workplaces(corpus, **changes)
    assert digests(few.go("--workers", 1)) == digests(many.go("--workers", 3))
    assert last_state(few)[1:] == last_state(many)[1:]


@pytest.mark.parametrize("bf16", [False, True])
def test_steps_without_a_finite_gradient_are_named_skipped_and_counted_until_there_are_too_many(workplaces, corpus, bf16):
    """A rate at which the weights run away."""
    wild = {"training__optim": "sgd", "training__sgd_momentum": 0.99, "training__learning_rate": 10, "training__max_grad_norm": 0}
    place = workplaces(corpus, training__max_bad_steps=2, training__max_steps=100, training__eval_steps=0, training__bf16=bf16, **wild)
    process = place.run("--workers", 2)
    assert process.wait() == 1
    assert "max_bad_steps" in process.stderr()
    skipped = [line["step"] for line in place.metrics() if line.get("skipped")]
    assert len(skipped) == 2 and all(line["loss"] is None for line in place.metrics() if line.get("skipped"))
    named = [line for line in place.events().splitlines() if "bad-step" in line]
    assert len(named) == 2 and all(f"step {step}: the gradient is not finite" in line for step, line in zip(skipped, named))
