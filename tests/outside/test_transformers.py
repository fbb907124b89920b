"""Checkpoints with transformers itself: loaded, generated from, gone on from, and its own read by millrace."""

import dataclasses
import json
import math

import pytest
import torch
from cluster import STEPS, Workplace, make_corpus, millrace
from test_checkpoints import TRAINER_STATE
from transformers import AutoModelForCausalLM, AutoTokenizer, GPT2LMHeadModel, Trainer, TrainerState, TrainingArguments, pipeline, set_seed

SEQUENCE = 32


def rows(count):
    torch.manual_seed(3)
    ids = torch.randint(0, 5000, (count, SEQUENCE))
    return [{"input_ids": row, "labels": row} for row in ids]


def test_trainer_state_takes_each_of_our_keys():
    assert TRAINER_STATE.keys() <= {field.name for field in dataclasses.fields(TrainerState)}


def test_trainer_goes_on_from_a_checkpoint(checkpoint, tmp_path):
    state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    assert (state.global_step, state.max_steps) == (8, STEPS) and state.log_history[-1]["step"] == 8
    model = GPT2LMHeadModel(AutoModelForCausalLM.from_pretrained(checkpoint).config)  # other weights, until it loads ours
    arguments = TrainingArguments(output_dir=str(tmp_path), max_steps=11, per_device_train_batch_size=8, logging_steps=1, save_steps=4,
                                  report_to=[], use_cpu=True, learning_rate=0.0)
    trainer = Trainer(model=model, args=arguments, train_dataset=rows(64))
    trainer.train(resume_from_checkpoint=str(checkpoint))
    assert trainer.state.global_step == 11
    assert [row["step"] for row in trainer.state.log_history if "loss" in row] == list(range(1, 12))
    ours = AutoModelForCausalLM.from_pretrained(checkpoint).state_dict()
    for name, tensor in trainer.model.state_dict().items():
        assert torch.equal(tensor, ours[name]), name  # at rate 0 nothing moves
    again = TrainerState.load_from_json(str(tmp_path / "checkpoint-11" / "trainer_state.json"))
    assert again.global_step == 11 and again.log_history[: len(state.log_history)] == state.log_history


def test_the_average_of_the_weights_is_a_variant_of_the_model(tmp_path):
    from safetensors.torch import load_file

    corpus = make_corpus(tmp_path / "text")
    place = Workplace(tmp_path / "place", corpus, training__max_steps=3, training__ema_decay=0.7)
    try:
        folder = place.go()["checkpoint"]
    finally:
        place.close()
    average = AutoModelForCausalLM.from_pretrained(folder, variant="ema").state_dict()
    weights = AutoModelForCausalLM.from_pretrained(folder).state_dict()
    stored = load_file(f"{folder}/model.ema.safetensors")
    assert stored.keys() <= average.keys()
    for name, tensor in stored.items():
        assert torch.equal(average[name], tensor), name
    assert not torch.equal(average["transformer.wte.weight"], weights["transformer.wte.weight"])


def test_the_pipeline_samples_as_gpt2_s_own_does(checkpoint):
    generator = pipeline("text-generation", model=str(checkpoint), tokenizer=str(checkpoint), device="cpu")
    texts = set()
    for seed in range(4):
        set_seed(seed)
        texts.add(generator("the mill", max_new_tokens=8)[0]["generated_text"])
    assert len(texts) > 1


def loss_of(model, ids):
    total = 0.0
    with torch.no_grad():
        for begin in range(0, len(ids) - 1, SEQUENCE):
            some = torch.tensor(ids[begin : begin + SEQUENCE + 1])
            logits = model(some[None, :-1]).logits[0].double()
            total += torch.nn.functional.cross_entropy(logits, some[1:], reduction="sum").item()
    return total / (len(ids) - 1)


@pytest.mark.parametrize("form", ["float32", "float16", "bfloat16", "shards", "compiled", "tied head kept"])
def test_what_transformers_saved_is_read(checkpoint, form, tmp_path):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3)  # so that rounding shows
    folder = tmp_path / "saved by transformers"
    if form in ("float16", "bfloat16"):
        model = model.to(getattr(torch, form))
    if form == "compiled":
        state = {f"_orig_mod.{name}": tensor for name, tensor in model.state_dict().items() if name != "lm_head.weight"}
        from safetensors.torch import save_file

        model.config.save_pretrained(folder)
        save_file({name: tensor.clone() for name, tensor in state.items()}, folder / "model.safetensors")
    elif form == "tied head kept":
        from safetensors.torch import save_file

        model.config.save_pretrained(folder)
        save_file({name: tensor.clone() for name, tensor in model.state_dict().items()}, folder / "model.safetensors")
    else:
        model.save_pretrained(folder, max_shard_size="100KB" if form == "shards" else "5GB")
    assert (folder / "model.safetensors.index.json").exists() == (form == "shards")
    tokenizer.save_pretrained(folder)
    text = tmp_path / "text"
    text.write_text("the water of the mill and the wheel never turned " * 40)
    told = json.loads(millrace("evaluate", folder, "--text", text, "--json").stdout)
    assert told["loss"] == pytest.approx(loss_of(model.float(), tokenizer(text.read_text())["input_ids"]), rel=2e-5)


def test_the_line_that_converts_pickles_works(checkpoint, tmp_path):
    import shlex
    import subprocess
    import sys

    folder = tmp_path / "pickled"
    model = AutoModelForCausalLM.from_pretrained(checkpoint)
    model.config.save_pretrained(folder)
    torch.save(model.state_dict(), folder / "pytorch_model.bin")
    AutoTokenizer.from_pretrained(checkpoint).save_pretrained(folder)
    said = millrace("generate", folder, "--prompt", "the mill", code=1).stderr
    words = shlex.split(said[said.index("python3 -c") :])
    subprocess.run([sys.executable, *words[1:]], check=True)
    ours = millrace("generate", checkpoint, "--prompt", "the mill", "--greedy", "--max-new-tokens", 8).stdout
    assert millrace("generate", folder, "--prompt", "the mill", "--greedy", "--max-new-tokens", 8).stdout == ours


def test_the_learning_rates_of_a_run_are_those_of_its_schedule(run):
    """What metrics.jsonl tells, beside transformers' scheduler of the name."""
    from transformers import get_scheduler

    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.003)
    schedule = get_scheduler("cosine", optimizer, num_warmup_steps=2, num_training_steps=STEPS)
    for line in run.metrics():
        if "loss" not in line:
            continue
        assert math.isclose(line["learning_rate"], optimizer.param_groups[0]["lr"], rel_tol=1e-8, abs_tol=1e-15)
        optimizer.step()
        schedule.step()
