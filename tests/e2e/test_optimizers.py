"""The one promise with other optimizers, schedules and losses than the default: whatever the state of a run is made of, it is the same for
any number of workers, through kills, joins and checkpoints.
"""

import json
import random
import signal

import pytest

from cluster import SEED, Workplace, digests, millrace, prose, send

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
SHORT = {"training__max_steps": 4, "training__eval_steps": 0}
OTHERS = [
    {"training__optim": "adam", "training__ema_decay": 0.8, "training__lr_scheduler_type": "inverse_sqrt", **SHORT},
    {"training__optim": "sgd", "training__sgd_momentum": 0, "training__lr_scheduler_type": "polynomial", **SHORT},
]


def last_state(place):
    """Of the last checkpoint: the state's digest, and those of its large files by name."""
    newest = max(place.output.glob("checkpoint-*[0-9]"), key=lambda path: int(path.name.split("-")[1]))
    state = json.loads((newest / "trainer_state.json").read_text())
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
    """A run of SGD with one worker."""
    place = Workplace(base_folder / "sgd", corpus, **SGD)
    try:
        place.result = place.go("--workers", 1)
        yield place
    finally:
        place.close()


def test_sgd_with_an_average_has_one_digest_for_any_workers_and_through_kills(workplaces, corpus, undisturbed):
    place = workplaces(corpus, **SGD)
    process = place.run("--workers", 3)
    place.wait_for_step(process, 2)
    send(signal.SIGKILL, process.children("worker")[0])  # whoever comes for it takes the state from the others
    place.wait_for_step(process, 6)
    send(signal.SIGKILL, *process.children("worker"))  # and now from the checkpoint
    result = place.finish(process)
    assert digests(result) == digests(undisturbed.result)
    assert result["eval_loss"] == undisturbed.result["eval_loss"]
    assert last_state(place)[1:] == last_state(undisturbed)[1:]
    assert "roll-back" in place.events()


def test_the_average_is_a_model_that_evaluations_see(workplaces, corpus, undisturbed):
    folder, _, files = last_state(undisturbed)
    assert set(files) == {"model.safetensors", "optimizer.safetensors", "model.ema.safetensors"}
    assert files["model.safetensors"] != files["model.ema.safetensors"]
    assert millrace("generate", folder / "model.ema.safetensors", "--prompt", "the mill", "--max-new-tokens", 3).stdout
    weights = workplaces(corpus, **{**SGD, "training__eval_ema": False})
    result = weights.go()
    assert digests(result) == digests(undisturbed.result)
    assert result["eval_loss"] != undisturbed.result["eval_loss"]


@pytest.mark.parametrize("changes", OTHERS, ids=["adam", "sgd without momentum"])
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
