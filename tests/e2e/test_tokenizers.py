"""Tokenizers through the binary: trained, looked into, used by path, and read from a checkpoint's folder."""

import json
import random
import os
import shutil

import pytest

from cluster import END_OF_TEXT, WORDS, millrace, refused

VOCABULARY = 600


def files_of(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def texts(corpus):
    return sorted(corpus.rglob("*.txt"))


@pytest.fixture(scope="module")
def trained(base_folder, texts):
    folder = base_folder / "trained"
    told = json.loads(millrace("tokenizer", "train", *texts, "--vocab-size", VOCABULARY, "--output", folder, "--json").stdout)
    assert told["vocab_size"] == VOCABULARY and told["text_bytes"] == sum(path.stat().st_size for path in texts)
    return folder


def test_training_writes_the_same_hugging_face_folder_with_any_threads_and_order(trained, texts, tmp_path):
    names = {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt"}
    assert set(files_of(trained)) == names
    for threads in (1, 3):
        folder = tmp_path / str(threads)
        millrace("tokenizer", "train", *reversed(texts), "--vocab-size", VOCABULARY, "-o", folder, "--threads", threads)
        assert files_of(folder) == files_of(trained)
    vocabulary = json.loads((trained / "vocab.json").read_text())
    assert len(vocabulary) == VOCABULARY and vocabulary["<|endoftext|>"] == 0
    assert len((trained / "merges.txt").read_text().splitlines()) == 1 + VOCABULARY - 257


def test_a_trained_tokenizer_is_used_by_folder_or_file_and_loses_nothing(trained, texts):
    text = b"".join(path.read_bytes() for path in texts) + b"<|endoftext|>\n"
    ids = millrace("tokenize", "--tokenizer", trained, stdin=text).stdout
    assert ids == millrace("tokenize", "-t", trained / "tokenizer.json", stdin=text).stdout
    assert max(map(int, ids.split())) < VOCABULARY
    special = millrace("tokenize", "-t", trained, "--special", stdin=text).stdout.split()
    assert special[-2] == "0" and text.decode(errors="replace").count("<|endoftext|>") == special.count("0")
    back = millrace("tokenize", "-t", trained, "--decode", stdin=ids.encode(), text=False).stdout
    assert back.decode() == text.decode(errors="replace")


def test_info_tells_what_a_pipeline_needs_to_know(trained):
    gpt2 = json.loads(millrace("tokenizer", "info", "gpt2", "--json").stdout)
    assert gpt2["vocab_size"] == 50257 and gpt2["eos_token_id"] == END_OF_TEXT and gpt2["token_bytes"] == 2 and gpt2["cuts"]
    ours = json.loads(millrace("tokenizer", "info", trained, "--json").stdout)
    assert ours["vocab_size"] == VOCABULARY and ours["eos_token_id"] == ours["bos_token_id"] == 0
    assert len(ours["digest"]) == 64 and ours["digest"] != gpt2["digest"]
    assert ours["digest"] in millrace("tokenizer", "info", trained).stdout


def test_a_dataset_can_be_trained_on(reference, tmp_path):
    millrace("tokenizer", "train", reference.output, "--vocab-size", 500, "--special-token", "<s>", "--output", tmp_path / "out")
    vocabulary = json.loads((tmp_path / "out" / "vocab.json").read_text())
    assert vocabulary["<s>"] == 0 and len(vocabulary) == 500 and "Ġmill" in vocabulary


@pytest.mark.parametrize("packing", ["concat", "pad", "best_fit"])
def test_documents_of_a_dataset_are_texts_also_where_no_end_token_ends_them(packing, tmp_path):
    """Truncated ones (pad), and those that fill their sequences (best_fit), have none: their words are not joined with the next one's."""
    chooser, T = random.Random(7), 8
    words, lengths = WORDS[:50], [3, 5, T] if packing == "pad" else [3, 11, T, 2 * T]  # words of a token each
    if packing == "concat":  # long ones, and four shards, which end in the middle of them
        words, lengths = ["".join(chooser.choices("bcdfgjkqvwxz", k=9)) for _ in range(40)], [100, 200]
    texts = [" ".join(chooser.choices(words, k=chooser.choice(lengths))) for _ in range(200)]
    lines = millrace("tokenize", "-0", stdin="\0".join(texts).encode()).stdout.splitlines()
    ids = [int(id) for line in lines for id in (*line.split(), END_OF_TEXT)]
    (tmp_path / "ids.bin").write_bytes(b"".join(id.to_bytes(2, "little") for id in ids))
    millrace("dataset", "import", tmp_path / "ids.bin", "-o", tmp_path / "data", "-T", T, "--packing", packing, "--validation-fraction", 0,
             "--shard-tokens", 65536)  # fmt: skip
    assert len(list((tmp_path / "data").glob("train-*"))) == (4 if packing == "concat" else 1)
    (tmp_path / "texts").mkdir()
    for i, text in enumerate(texts):
        (tmp_path / "texts" / f"{i}.txt").write_text(text)
    train = ("tokenizer", "train", "--vocab-size", 2000, "--min-frequency", 1, "-o")
    millrace(*train, tmp_path / "of-data", tmp_path / "data")
    millrace(*train, tmp_path / "of-texts", tmp_path / "texts")
    assert files_of(tmp_path / "of-data") == files_of(tmp_path / "of-texts")


def test_a_model_reads_text_with_the_tokenizer_beside_its_weights(gpt2_reference, trained, tmp_path):
    folder, text = tmp_path / "checkpoint", tmp_path / "text"
    without_record = shutil.ignore_patterns("millrace_state.json")  # its tokenizer changes
    shutil.copytree(gpt2_reference.result["checkpoint"], folder, ignore=without_record)
    text.write_text("Parliaments quarrel about the history of physics. " * 30)

    def evaluated():
        return json.loads(millrace("evaluate", folder, "--text", text, "--json").stdout)["tokens"]

    def tokens(*options):
        return len(millrace("tokenize", *options, stdin=text.read_bytes()).stdout.split())

    assert evaluated() == tokens() - 1
    for name in ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json"):
        shutil.copy(trained / name, folder / name)
    assert evaluated() == tokens("-t", trained) - 1 != tokens() - 1
    told = json.loads(millrace("generate", folder, "--prompt", "the mill", "--greedy", "--max-new-tokens", 0, "--json").stdout)
    assert told["text"] == "the mill" and max(told["ids"]) < VOCABULARY
    for name in ("tokenizer.json", "vocab.json"):
        (folder / name).unlink()
    assert evaluated() == tokens() - 1


@pytest.mark.parametrize(
    "words, code, says",
    [
        (["tokenizer", "train", "{text}"], 2, ["--vocab-size", "--output"]),
        (["tokenizer", "train", "{text}", "--vocab-size", "256", "-o", "{folder}/out"], 2, ["256", "257"]),
        (["tokenizer", "train", "{folder}/nowhere", "--vocab-size", "300", "-o", "{folder}/out"], 1, ["nowhere"]),
        (["tokenizer", "train", "{folder}/nowhere", "--vocab-size", "300", "-o", "{folder}/out", "--special-token", "<a>",
          "--special-token", "<b>", "--special-token", "<a>"], 2, ["--special-token <a>", "twice"]),
        (["tokenizer", "train", "{folder}/nowhere", "--vocab-size", "300", "-o", "{folder}/out", "--special-token", "caf\udce9"], 2,
         ["--special-token", "UTF-8"]),
        (["tokenizer", "train", "{folder}/hollow", "--vocab-size", "300", "-o", "{folder}/out"], 2, ["no file is in", "hollow"]),
        (["tokenizer", "train", "/dev/null", "--vocab-size", "300", "-o", "{folder}/out"], 2, ["there is no text"]),
        (["tokenizer", "train", "{folder}/empty", "--vocab-size", "300", "-o", "{folder}/out"], 2, ["there is no text"]),
        (["tokenizer", "info", "{folder}/nowhere"], 2, ["nowhere", "gpt2"]),
        (["tokenizer", "info", "{folder}"], 2, ["tokenizer.json", "merges.txt"]),
        (["tokenize", "-t", "{folder}/nowhere"], 2, ["nowhere", "gpt2"]),
        (["tokenizer", "info", "{text}"], 1, ["not a JSON object"]),
        (["tokenize", "-t", "{folder}/other.json"], 1, ["other.json", "Unigram"]),
        (["tokenizer", "inform"], 2, ["did you mean 'info'"]),
    ],
)
def test_what_cannot_be_done_is_answered_with_a_reason(words, code, says, tmp_path):
    (tmp_path / "text").write_text("some text")
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "hollow").mkdir()
    (tmp_path / "other.json").write_text(json.dumps({"model": {"type": "Unigram", "vocab": []}}))
    refused(*(word.format(folder=tmp_path, text=tmp_path / "text") for word in words), code=code, says=says)
    assert not (tmp_path / "out").exists()


def test_a_folder_of_texts_is_its_text_files(texts, tmp_path):
    (tmp_path / "texts" / "deep").mkdir(parents=True)
    for i, text in enumerate(texts):
        shutil.copy(text, tmp_path / "texts" / ("deep" if i % 2 else ".") / f"{i}.txt")
    (tmp_path / "texts" / "image.txt").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
    train = ("tokenizer", "train", "--vocab-size", 400, "-o")
    (tmp_path / "texts" / ".hidden.txt").write_text("hidden")
    (tmp_path / "texts" / "link").symlink_to(texts[0].parent)
    os.mkfifo(tmp_path / "texts" / "pipe")
    told = millrace(*train, tmp_path / "of-folder", tmp_path / "texts")
    assert "left out" in told.stderr and "image.txt" in told.stderr
    for name, why in ((".hidden.txt", "its name begins with a dot"), ("link", "a link to a folder"), ("pipe", "a pipe")):
        assert f"sources   skipped: {tmp_path}/texts/{name}, {why}\n" in told.stderr, told.stderr
    millrace(*train, tmp_path / "of-files", *texts)
    assert files_of(tmp_path / "of-folder") == files_of(tmp_path / "of-files")


def test_another_tokenizer_a_run_and_a_dataset_stay_what_they_are(reference, trained, texts, tmp_path):
    out = tmp_path / "out"
    for _ in range(2):  # the same one again does no harm
        millrace("tokenizer", "train", *texts[:1], "--vocab-size", 300, "-o", out)
    before = files_of(out)
    refused("tokenizer", "train", *texts[:1], "--vocab-size", 301, "-o", out, code=2, says=["another tokenizer", "choose another folder"])
    assert files_of(out) == before
    for folder, what in ((reference.output, "output_dir of a run"), (reference.output / "dataset", "a dataset"),
                         (reference.result["checkpoint"], "a model")):
        refused("tokenizer", "train", *texts, "--vocab-size", 301, "-o", folder, code=2, says=[what, "choose another folder"])


def test_what_is_wrong_with_the_output_is_told_before_training(trained, tmp_path):
    """All of it that can be known: here it is told before anybody sees that there is no text."""
    (tmp_path / "file").write_text("no folder")
    (tmp_path / "damaged").mkdir()
    (tmp_path / "damaged" / "tokenizer.json").write_text("{")
    (tmp_path / "taken" / "tokenizer.json").mkdir(parents=True)
    for folder, says in (("file", ["file", "not a folder"]), ("file/below", ["file/below"]), ("damaged", ["another tokenizer"]),
                         ("taken", ["taken/tokenizer.json"]), (trained, ["another tokenizer", "choose another folder"])):
        words = ("tokenizer", "train", tmp_path / "nowhere", "--vocab-size", VOCABULARY - 1, "-o", tmp_path / folder)
        assert "nowhere" not in refused(*words, code=2 if folder in ("damaged", trained) else 1, says=says)
    refused("tokenizer", "train", tmp_path / "nowhere", "--vocab-size", VOCABULARY, "-o", tmp_path / "new", code=1, says=["nowhere"])
    refused("tokenizer", "train", tmp_path / "nowhere", "--vocab-size", VOCABULARY, "-o", tmp_path / "new/below", code=1, says=["nowhere"])
    assert not (tmp_path / "new").exists()


def test_what_was_trained_for_the_place_of_another_one_is_kept(texts, tmp_path):
    train = ("tokenizer", "train", *texts[:1], "--min-frequency", 2, "-o")
    millrace(*train, tmp_path / "out", "--vocab-size", 300)
    millrace(*train, tmp_path / "apart", "--vocab-size", 301)
    for _ in range(2):
        said = refused(*train, f"{tmp_path}/out/", "--vocab-size", 301, code=2, says=["another tokenizer", "is in"])
        (aside,) = tmp_path.glob("out.*")
        assert str(aside) in said and files_of(aside) == files_of(tmp_path / "apart")


def test_the_last_line_tells_of_fewer_tokens_than_were_asked_for(tmp_path):
    (tmp_path / "text").write_text("one two two")
    lines = millrace("tokenizer", "train", tmp_path / "text", "--vocab-size", 5000, "-o", tmp_path / "out").stdout.splitlines()
    assert lines[-1].startswith("fewer ") and "5,000 tokens asked for" in lines[-1]
    plenty = millrace("tokenizer", "train", tmp_path / "text", "--vocab-size", 257, "-o", tmp_path / "other").stdout
    assert "fewer" not in plenty
