"""What a user does, rightly and wrongly, and what is seen."""

import hashlib
import json
import math
import os
import shutil
import struct
import subprocess

import pytest
from runs import Running, make_project, millrace, result_of, wait_for


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    folder = make_project(tmp_path_factory.mktemp("finished"))
    return folder, result_of(millrace("run", "pipeline.yaml", "--json", cwd=folder))


def shard_tokens(folder, split):
    raw = b""
    for path in sorted((folder / "out/dataset").glob(f"{split}-*.tok.zst")):
        raw += subprocess.run(["zstd", "-dcq", path], check=True, stdout=subprocess.PIPE).stdout
    return raw


def test_the_result_says_where_everything_is(result):
    folder, told = result
    assert set(told) == {"state", "steps", "account", "dataset_digest", "weights_digest", "train_loss", "eval_loss", "checkpoint",
                         "warnings"}
    assert told["state"] == "done" and told["steps"] == 10 and told["checkpoint"] == str(folder / "out/checkpoint-10")
    with open(folder / "out/checkpoint-10/model.safetensors", "rb") as f:
        assert hashlib.sha256(f.read()).hexdigest() == told["weights_digest"]
    assert hashlib.sha256(shard_tokens(folder, "train") + shard_tokens(folder, "validation")).hexdigest() == told["dataset_digest"]
    for name in ("metrics.jsonl", "state", "logs", "checkpoint-4", "checkpoint-8"):
        assert (folder / "out" / name).exists()


def test_the_shards_hold_each_document_once(result):
    folder, _ = result
    files = sorted((folder / "text").glob("**/*.txt"), key=lambda p: os.fsencode(p))
    text = b"".join(p.read_bytes().replace(b"\0", b"") + b"\0" for p in files)
    lines = millrace("tokenize", "-0", input=text).stdout.decode().splitlines()
    documents = [tuple(map(int, line.split())) for line in lines if line]
    found = []
    for split in ("train", "validation"):
        raw = shard_tokens(folder, split)
        ids, document = struct.unpack(f"<{len(raw) // 2}H", raw), []
        for token in ids:
            if token == 50256:
                found.append(tuple(t for t in document if t != 188))
                document = []
            else:
                document.append(token)
        assert not document and ids
    with_nul = 188  # the NUL in one document, which -0 cannot carry
    assert sorted(found) == sorted(tuple(t for t in d if t != with_nul) for d in documents)


def test_the_checkpoint_has_the_tensors_of_gpt2lmheadmodel(result):
    folder, _ = result
    raw = (folder / "out/checkpoint-10/model.safetensors").read_bytes()
    size = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + size])
    assert header.pop("__metadata__") == {"format": "pt"}
    assert header["transformer.wte.weight"]["shape"] == [50257, 32]
    assert header["transformer.h.1.attn.c_attn.weight"]["shape"] == [32, 96]
    assert all(t["dtype"] == "F32" for t in header.values()) and len(header) == 2 + 2 * 12 + 2
    assert "lm_head.weight" not in header
    assert max(t["data_offsets"][1] for t in header.values()) == len(raw) - 8 - size


def test_status_after_the_end(result):
    folder, _ = result
    status = json.loads(millrace("status", "--json", cwd=folder).stdout)
    assert status["state"] == "done" and [s["state"] for s in status["stages"]] == ["done"] * 3
    assert millrace("status", "--watch", cwd=folder).returncode == 0
    assert millrace("status", folder / "text").returncode == 1


def test_status_while_it_runs(tmp_path):
    make_project(tmp_path, steps=500)
    with Running("run", "pipeline.yaml", cwd=tmp_path) as run:
        run.wait_step(1)
        workers = wait_for(lambda: [w for w in run.workers() if w["slices"]], what="two members") and run.workers()
        assert len({w["pid"] for w in workers}) == 2 and all({"id", "host", "state"} <= set(w) for w in workers)
        assert run.status()["state"] == "running"
        second = millrace("coordinator", "pipeline.yaml", cwd=tmp_path)
        assert second.returncode == 1 and str(run.coordinator()) in second.stderr.decode()  # fault 11: named by its pid


def test_a_finished_run_is_shown_again_and_refuses_another_pipeline(result):
    folder, told = result
    assert result_of(millrace("run", "pipeline.yaml", "--json", "--set", "training.logging_steps=2", cwd=folder)) == told
    changed = millrace("run", "pipeline.yaml", "--set", "training.learning_rate=0.5", cwd=folder)
    text = changed.stderr.decode()
    assert changed.returncode == 2 and "training.learning_rate: 0.001 -> 0.5" in text and "--restart" in text


def test_a_source_that_changed_is_noticed(tmp_path):
    make_project(tmp_path, steps=1)
    result_of(millrace("run", "pipeline.yaml", "--json", cwd=tmp_path))
    (tmp_path / "text/001.txt").write_text("something else")
    again = millrace("run", "pipeline.yaml", cwd=tmp_path)
    assert again.returncode == 0 and "note      text/001.txt changed since the dataset was made; " in again.stderr.decode()
    told = result_of(millrace("run", "pipeline.yaml", "--json", cwd=tmp_path))
    assert any("text/001.txt changed since the dataset was made; " in warning for warning in told["warnings"])
    more = millrace("run", "pipeline.yaml", "--set", "training.max_steps=2", cwd=tmp_path)
    assert more.returncode == 2 and "--restart" in more.stderr.decode()
    assert result_of(millrace("run", "pipeline.yaml", "--json", "--restart", cwd=tmp_path))["state"] == "done"


def test_a_source_that_was_touched_is_named_when_the_dataset_is_lost(tmp_path):
    make_project(tmp_path, steps=1)
    first = result_of(millrace("run", "pipeline.yaml", "--json", cwd=tmp_path))
    (tmp_path / "text/001.txt").touch()
    shutil.rmtree(tmp_path / "out/dataset")
    lost = millrace("run", "pipeline.yaml", cwd=tmp_path)
    assert lost.returncode == 1 and "text/001.txt changed since the dataset was made from it, which is lost" in lost.stderr.decode()
    again = result_of(millrace("run", "pipeline.yaml", "--json", cwd=tmp_path))
    assert (again["state"], again["weights_digest"]) == ("done", first["weights_digest"])


def test_generate_evaluate_and_tokenize(result):
    folder, _ = result
    checkpoint = folder / "out/checkpoint-10"
    first = json.loads(millrace("generate", checkpoint, "--prompt", "The house", "--greedy", "--max-new-tokens", 8, "--json").stdout)
    assert first["ids"][:2] == [464, 2156] and len(first["ids"]) <= 10
    assert first == json.loads(
        millrace("generate", checkpoint, "--prompt", "The house", "--greedy", "--max-new-tokens", 8, "--json").stdout
    )
    (folder / "short.txt").write_text("the river and the mill " * 20)
    told = json.loads(millrace("evaluate", checkpoint, "--text", folder / "short.txt", "--json").stdout)
    ids = millrace("tokenize", input=(folder / "short.txt").read_bytes()).stdout.split()
    assert told["tokens"] == len(ids) - 1 and told["perplexity"] == pytest.approx(math.exp(told["loss"]))
    assert (
        millrace("tokenize", input=b"a<|endoftext|>").stdout
        != millrace("tokenize", "--special", input=b"a<|endoftext|>").stdout
        == b"64 50256\n"
    )
    assert millrace("tokenize", "-0", input=b"ab\0\0cd").stdout == b"397\n\n10210\n"
    assert millrace("tokenize", "--decode", input=b" ".join(ids)).stdout == (folder / "short.txt").read_bytes()


def test_dataset_commands(result):
    folder, told = result
    info = json.loads(millrace("dataset", "info", folder / "out", "--json").stdout)
    assert info["digest"] == told["dataset_digest"] and info["documents"] == 12
    assert info["tokens"] * 2 == len(shard_tokens(folder, "train")) + len(shard_tokens(folder, "validation"))
    assert millrace("dataset", "verify", folder / "out").returncode == 0
    assert (
        millrace("dataset", "cat", folder / "out", "--document", 1, "--text").stdout
        == sorted((folder / "text").glob("**/*.txt"))[1].read_bytes()
    )


def test_fault_16_a_damaged_shard_is_found(tmp_path):
    make_project(tmp_path, steps=1)
    result_of(millrace("run", "pipeline.yaml", "--json", cwd=tmp_path))
    shard = sorted((tmp_path / "out/dataset").glob("train-*"))[0]
    raw = bytearray(shard.read_bytes())
    raw[1000] ^= 1
    shard.write_bytes(raw)
    found = millrace("dataset", "verify", tmp_path / "out")
    assert found.returncode == 1 and shard.name in found.stderr.decode()


@pytest.mark.parametrize(
    "arguments, code, words",
    [
        (["run", "--frobnicate"], 2, "frobnicate"),
        (["frobnicate"], 2, "frobnicate"),
        (["worker"], 2, "--connect"),
        (["run", "missing.yaml"], 2, "missing.yaml"),
        (["run", "pipeline.yaml", "--set", "training.slices=5"], 2, "slices"),
        (["run", "pipeline.yaml", "--set", "dataset.sources=[nothing/*.txt]"], 2, "matches no file"),
        (["run", "pipeline.yaml", "--set", "dataset.sources=[text/empty.txt]"], 2, "every file is empty"),
        (["coordinator", "pipeline.yaml", "--bind", "tcp://0.0.0.0:5599"], 2, "insecure"),
        (["run", "pipeline.yaml", "--set", "output_dir=/proc/nowhere"], 1, "/proc/nowhere"),
    ],
)
def test_mistakes_are_told(tmp_path, arguments, code, words):
    make_project(tmp_path, documents=4, large_bytes=3000)
    process = millrace(*arguments, cwd=tmp_path)
    assert (process.returncode, words in process.stderr.decode()) == (code, True), process.stderr.decode()


def test_fault_35_a_broken_pipeline_is_told_with_its_place(tmp_path):
    (tmp_path / "pipeline.yaml").write_text("dataset:\n  sources: [ a ]\n  sequence_lenght: 3\n")
    process = millrace("run", "pipeline.yaml", cwd=tmp_path)
    assert process.returncode == 2 and "pipeline.yaml:3:3" in process.stderr.decode() and "sequence_length" in process.stderr.decode()


def test_fault_19_a_port_in_use_is_told(tmp_path):
    import socket

    make_project(tmp_path, documents=4, large_bytes=3000)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        process = millrace("coordinator", "pipeline.yaml", "--bind", f"tcp://127.0.0.1:{s.getsockname()[1]}", cwd=tmp_path)
    assert process.returncode == 1 and "in use" in process.stderr.decode()


def test_fault_12_a_full_disk_is_waited_for(tmp_path):
    if os.geteuid() != 0:
        pytest.skip("needs to mount a small file system")
    make_project(tmp_path, documents=8)
    small = tmp_path / "out"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", small], stderr=subprocess.DEVNULL).returncode != 0:
        pytest.skip("may not mount")
    try:
        with Running("run", "pipeline.yaml", "--json", cwd=tmp_path) as run:  # a checkpoint takes 22 MB
            waiting = wait_for(lambda: (run.status() or {}).get("waiting_for"), 60, "a reason to wait")
            assert "space" in waiting
            subprocess.run(["mount", "-o", "remount,size=400m", small], check=True)
            assert result_of(run.end())["state"] == "done"
    finally:
        subprocess.run(["umount", "-l", small], check=False)


def test_fault_31_one_long_line_is_tokenized_in_bounded_memory(tmp_path):
    make_project(tmp_path, steps=1, documents=2, large_bytes=3000)
    with open(tmp_path / "text/line.txt", "wb") as f:
        for _ in range(60):
            f.write(b"words without an end " * 50_000)
    with Running("run", "pipeline.yaml", "--json", cwd=tmp_path) as run:
        peak = 0
        while run.process.poll() is None:
            stages = {s["name"]: s["state"] for s in (run.status() or {}).get("stages", [])}
            if stages.get("train") in ("running", "done"):
                break
            for worker in run.workers("ready", "busy", "joining"):
                try:
                    with open(f"/proc/{worker['pid']}/status", encoding="utf-8") as f:
                        peak = max(peak, int(f.read().split("VmHWM:")[1].split()[0]))
                except (FileNotFoundError, ProcessLookupError, IndexError):
                    pass
        assert 0 < peak < 256 * 1024, f"{peak} kB"
        assert result_of(run.end())["state"] == "done"
