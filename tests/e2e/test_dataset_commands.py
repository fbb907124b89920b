"""`millrace dataset` on small datasets: what it tells, against numpy, zstd and the source files themselves."""

import io
import json
import random
import subprocess
import tarfile

import numpy
import pytest

import cluster
from cluster import millrace

T = 32
END = cluster.END_OF_TEXT


def prose(chooser, words):
    return " ".join(chooser.choices(cluster.WORDS + ["naïve", "日本語", "👩‍👩‍👧‍👦"], k=words)) + "\n"


@pytest.fixture(scope="module")
def texts(base_folder):
    """Documents from one word to half a shard; three copies and an empty file."""
    chooser = random.Random(4)
    folder = base_folder / "command-texts"
    folder.mkdir()
    for i in range(20):
        (folder / f"{i:02}.txt").write_text(f"{i} " + prose(chooser, [1, 30, 200, 30000][i % 4]))
    for copy in range(3):
        (folder / f"copy-{copy}.txt").write_bytes((folder / "07.txt").read_bytes())
    (folder / "empty.txt").write_bytes(b"")
    return folder


PACKINGS = ["concat", "pad", "best_fit"]


@pytest.fixture(scope="module")
def packed(base_folder, texts):
    """packed(packing): a finished dataset of several shards a split."""
    places = {}

    def make(packing):
        if packing not in places:
            places[packing] = place = cluster.Workplace(
                base_folder / f"commands-{packing}",
                texts,
                **cluster.GPT2,
                dataset__shard_tokens=4096,
                dataset__validation_fraction=0.5,
                dataset__deduplicate="exact",
                dataset__packing=packing,
                training__max_steps=1,
                training__eval_steps=0,
                training__save_steps=0,
                sample__prompt="",
            )
            place.go()
        return places[packing]

    yield make
    for place in places.values():
        place.close()


@pytest.fixture
def made(packed):
    return packed("concat")


def told(*words, **options):
    return json.loads(millrace("dataset", *words, "--json", **options).stdout)


def array(place, split):
    """The tokens of a split as a user of numpy reads them."""
    files = sorted(place.output.glob(f"dataset/{split}-*.tok.zst"))
    assert files
    return numpy.frombuffer(subprocess.run(["zstd", "-dcq", *files], check=True, stdout=subprocess.PIPE).stdout, "<u2")


# ---- cat -----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_sequence_is_what_numpy_reads(made, split):
    tokens = array(made, split)
    count = told("info", made.output)[split]["sequences"]
    assert count == (len(tokens) - 1) // T and told("info", made.output)[split]["shards"] > 1
    for i in {0, 1, 2047, 2048, count // 2, count - 1} & set(range(count)):
        words = ["dataset", "cat", made.output, "--sequence", i, "--split", split]
        assert list(map(int, millrace(*words, "--tokens").stdout.split())) == tokens[i * T : (i + 1) * T].tolist()
    assert f"there is no sequence {count}" in millrace("dataset", "cat", made.output, "--sequence", count, "--split", split, code=1).stderr


@pytest.mark.parametrize("packing", ["concat", "best_fit"])
def test_every_document_is_its_file(packed, texts, packing):
    """Each file is one document, whatever sequences it was cut into; training first, then validation."""
    place = packed(packing)
    info = told("info", place.output)
    found = [millrace("dataset", "cat", place.output, "--document", n, text=False).stdout for n in range(info["documents"])]
    assert sorted(found) == sorted(file.read_bytes() for file in texts.glob("[0-9]*.txt"))
    missing = millrace("dataset", "cat", place.output, "--document", info["documents"], code=1).stderr
    assert f"document {info['documents']}" in missing
    if packing == "concat":
        ids = [millrace("dataset", "cat", place.output, "--document", n, "--tokens").stdout.split() for n in range(info["documents"])]
        for split, part in (("train", ids[: info["train"]["documents"]]), ("validation", ids[info["train"]["documents"] :])):
            assert sum(([*map(int, document), END] for document in part), []) == array(place, split).tolist()


def test_a_padded_document_is_the_beginning_of_its_file(packed, texts):
    place = packed("pad")
    info = told("info", place.output)
    files = {file.read_bytes() for file in texts.glob("[0-9]*.txt")}
    found = {millrace("dataset", "cat", place.output, "--document", n, text=False).stdout for n in range(info["documents"])}
    assert len(found) == info["documents"] == len(files)
    assert all(any(file.startswith(text) for file in files) for text in found)
    assert info["truncated_documents"] == sum(text not in files for text in found) > 0


# ---- trace ---------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("split", ["train", "validation"])
def test_every_token_leads_to_its_bytes_in_the_source_file(packed, packing, split):
    place = packed(packing)
    rows = told("info", place.output)[split]["sequences"]
    tokens = array(place, split)
    chooser = random.Random(f"{packing} {split}")
    for sequence in {0, rows - 1, *(chooser.randrange(rows) for _ in range(5))}:
        words = ["trace", place.output, "--split", split, "--sequence", sequence]
        answer, inside = told(*words), 0
        assert (answer["split"], answer["sequence"], answer["tokens"]) == (split, sequence, T)
        for part in answer["documents"]:
            assert part["first"] == inside and part["member"] is None
            at = sequence * T + part["first"]
            assert part["token"]["number"] == part["first"] and part["token"]["id"] == tokens[at]
            if part["ends"]:
                assert tokens[at + part["tokens"]] == END
            inside += part["tokens"] + part["ends"]
            if not part["tokens"]:
                continue
            text = subprocess.run(
                [cluster.MILLRACE, "tokenize", "--decode"],
                input=" ".join(map(str, tokens[at : at + part["tokens"]])).encode(),
                stdout=subprocess.PIPE,
                check=True,
            ).stdout
            begin = part["offset"] + part["token"]["text_offset"]
            with open(part["source"], "rb") as file:
                assert part["token"]["exact"] and file.read()[begin : begin + len(text)] == text
        assert inside + answer["padding"] == T
        assert (tokens[sequence * T + inside : (sequence + 1) * T] == END).all()
        if answer["padding"]:
            assert "padding" in millrace("dataset", *words, "--token", T - 1, code=1).stderr


def test_one_token_is_traced_alone(made):
    answer = told("trace", made.output, "--sequence", 40, "--token", 9)
    (part,) = answer["documents"]
    assert part["token"]["number"] == 9 and part["first"] <= 9 < part["first"] + part["tokens"] + part["ends"]
    whole = millrace("dataset", "cat", made.output, "--sequence", 40, "--tokens").stdout.split()
    assert part["token"]["id"] == int(whole[9])
    begin = part["offset"] + part["token"]["text_offset"]
    text = open(part["source"], "rb").read()[begin : begin + 100].decode("utf-8", "ignore")
    assert text.startswith(part["token"]["text"].strip("\ufffd"))
    told_people = millrace("dataset", "trace", made.output, "--sequence", 40, "--token", 9).stdout
    assert part["source"] in told_people and f"id {part['token']['id']}" in told_people


@pytest.mark.parametrize("words, code, hint", [
    (["trace"], 2, "--sequence N is missing"),
    (["trace", "--sequence", 10**9], 1, "there is no sequence 1000000000"),
    (["trace", "--sequence", 0, "--token", T], 1, f"there is no token {T}"),
    (["trace", "--sequence", 0, "--split", "test"], 2, "expected train or validation"),
    (["cat", "--document", 0, "--split", "train"], 2, "--split goes with --sequence"),
    (["cat", "--sequence", 0, "--tokenizer", "/nowhere"], 2, "/nowhere"),
    (["inspect", "--reason", "gopher"], 1, "the reasons here: duplicate"),
])  # fmt: skip
def test_what_is_not_there_is_told_with_what_to_do(made, words, code, hint):
    assert hint in millrace("dataset", words[0], made.output, *words[1:], code=code).stderr


def test_members_of_archives_and_records_are_traced(tmp_path):
    """Two texts as members of a packed archive, two as records: the offset of a record is where its line begins."""
    chooser = random.Random(11)
    texts = [f"{i} " + prose(chooser, 120) for i in range(4)]
    with tarfile.open(tmp_path / "all.tar.gz", "w:gz") as archive:
        for i in range(2):
            member = tarfile.TarInfo(f"deep/{i}.txt")
            member.size = len(texts[i].encode())
            archive.addfile(member, io.BytesIO(texts[i].encode()))
    records = [json.dumps({"id": i, "text": texts[i]}).encode() + b"\n" for i in (2, 3)]
    (tmp_path / "all.jsonl").write_bytes(b"".join(records))
    place = cluster.Workplace(
        tmp_path / "run",
        dataset__sources=[{"name": "a", "paths": [f"{tmp_path}/all.tar.gz"]}, {"name": "b", "paths": [f"{tmp_path}/all.jsonl"]}],
        dataset__validation_fraction=0,
        training__global_batch=1,
        training__slices=1,
    )
    told("build", place.file, "--workers", 1)
    seen = {}
    for sequence in range(told("info", place.output)["train"]["sequences"]):
        for part in told("trace", place.output, "--sequence", sequence)["documents"]:
            text = texts[part["document"]].encode()[part["token"]["text_offset"] :]
            assert not part["tokens"] or text.decode("utf-8", "ignore").startswith(part["token"]["text"].strip("\ufffd"))
            seen[part["document"]] = (part["source"], part["member"], part["offset"])
    archive, lines = str(tmp_path / "all.tar.gz"), str(tmp_path / "all.jsonl")
    assert seen == {
        0: (archive, "deep/0.txt", 0),
        1: (archive, "deep/1.txt", 0),
        2: (lines, None, 0),
        3: (lines, None, len(records[0])),
    }
    assert f"{archive}!deep/1.txt" in "".join(millrace("dataset", "trace", place.output, "--sequence", s).stdout for s in range(9))
    assert [group["name"] for group in told("info", place.output)["sources"]] == ["a", "b"]


# ---- info and inspect ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packing", PACKINGS)
def test_info_counts_what_is_there(packed, packing):
    place = packed(packing)
    info = told("info", place.output)
    for split in ("train", "validation"):
        assert info[split]["tokens"] == len(array(place, split)) and info[split]["shards"] == len(
            list(place.output.glob(f"dataset/{split}-*.tok.zst"))
        )
    assert info["packing"] == packing and info["eos"] == END and info["tokenizer"] == "gpt2"
    assert info["empty_documents"] == 1 and info["left_out"] == {"duplicate": 3}
    (group,) = info["sources"]
    assert group["train_documents"] == info["train"]["documents"] and group["validation_documents"] == info["validation"]["documents"]
    assert group["train_tokens"] + group["validation_tokens"] + info["padding"] == info["tokens"]
    text = millrace("dataset", "info", place.output).stdout
    numbers = (f"{info[name]:,}" for name in ("documents", "tokens", "sequences"))
    for number in (*numbers, packing, info["digest"], "duplicate 3"):
        assert number in text


def test_what_was_left_out_can_be_looked_at(made, texts):
    answer = told("inspect", made.output)
    (reason,) = answer["reasons"]
    assert reason["reason"] == "duplicate" and reason["documents"] == 3 == answer["left_out"]
    assert reason["bytes"] == 3 * (texts / "07.txt").stat().st_size
    assert reason["share"] == pytest.approx(3 / 24) and answer["documents"] == 20 and answer["empty_documents"] == 1
    assert [example["source"] for example in reason["examples"]] == [str(texts / f"copy-{i}.txt") for i in range(3)]
    assert all(str(texts / "07.txt") in example["detail"] for example in reason["examples"])
    assert told("inspect", made.output, "--reason", "duplicate") == answer
    text = millrace("dataset", "inspect", made.output).stdout
    assert "duplicate: 3 documents (12 %)" in text and str(texts / "copy-2.txt") in text


# ---- export and import ---------------------------------------------------------------------------------------------------------


def same_tokens(place, split, format, path):
    """The exported file as its own program reads it."""
    tokens = array(place, split)
    if format == "bin":  # nanoGPT: numpy.memmap(path, dtype=numpy.uint16)
        return numpy.array_equal(numpy.fromfile(path, "<u2"), tokens)
    if format == "npy":
        rows = numpy.load(path)
        return rows.ndim == (1 if told("info", place.output)["packing"] == "concat" else 2) and numpy.array_equal(rows.reshape(-1), tokens)
    head = numpy.fromfile(path, "<i4", 256)  # llm.c: data loader's header
    return list(head[:3]) == [20240520, 1, len(tokens)] and numpy.array_equal(numpy.fromfile(path, "<u2", offset=1024), tokens)


@pytest.mark.parametrize("packing", PACKINGS)
@pytest.mark.parametrize("format", ["bin", "llmc", "npy"])
def test_what_is_exported_is_what_others_read_and_comes_back_the_same(packed, tmp_path, packing, format):
    place = packed(packing)
    files = {}
    for split in ("train", "validation"):
        files[split] = tmp_path / f"{split}.{format}"
        answer = told("export", place.output, "--format", format, "--output", files[split], "--split", split)
        assert answer == {"output": str(files[split]), "split": split, "tokens": len(array(place, split)), "token_bytes": 2}
        assert same_tokens(place, split, format, files[split])
    back = tmp_path / "back"
    words = [files["train"], "--validation", files["validation"], "--output", back, "--sequence-length", T]
    made = told("import", *words)
    assert made == told("info", back) and made["tokenizer"] == "gpt2" and made["eos"] == END
    told_by_verify = told("verify", back)
    assert told_by_verify["ok"] and told_by_verify["digest"] == made["digest"]
    if packing == "concat":
        assert made["digest"] == told("info", place.output)["digest"]
    assert "holds a dataset already" in millrace("dataset", "import", *words, code=2).stderr
    (part, *_) = told("trace", back, "--sequence", 7, "--token", 3)["documents"]
    begin = part["offset"] + part["token"]["text_offset"]
    assert part["source"] == str(files["train"])
    assert numpy.frombuffer(files["train"].read_bytes()[begin : begin + 2], "<u2")[0] == part["token"]["id"]


def test_ids_without_a_document_end_are_told(tmp_path):
    ids = numpy.random.default_rng(5).integers(10, 30000, 5000, "u2")
    ids[::100] = 7
    ids.tofile(tmp_path / "ids.bin")
    words = [tmp_path / "ids.bin", "--sequence-length", 50, "--output"]
    said = millrace("dataset", "import", *words, tmp_path / "one").stderr
    assert "each file is one document: token 50256, the end of text of gpt2, is nowhere within" in said, said
    assert "no document is held out for validation: the files have 1 document; more documents, or --validation FILE" in said, said
    assert not millrace("dataset", "import", *words, tmp_path / "some", "--eos", 7, "--validation-fraction", 0.5).stderr
    said = millrace("dataset", "import", *words, tmp_path / "none", "--eos", 40000, "--validation-fraction", 0).stderr
    assert "token 40000, as --eos says, is nowhere within" in said and "held out" not in said, said


def test_ids_of_an_unknown_tokenizer_are_imported_and_shown_as_ids(tmp_path):
    ids = numpy.random.default_rng(5).integers(1, 70000, 5000, "u4")
    ids[::100] = 0
    ids[-1] = 0
    numpy.save(tmp_path / "ids.npy", ids.astype("<u4"))
    words = ["--output", tmp_path / "out", "--sequence-length", 50, "--validation-fraction", 0]
    made = told("import", tmp_path / "ids.npy", "--eos", 0, *words)
    assert made["tokenizer"] is None and made["token_bytes"] == 4 and made["tokens"] == 5000
    shown = millrace("dataset", "cat", tmp_path / "out", "--sequence", 3, "--tokens").stdout
    assert list(map(int, shown.split())) == ids[150:200].tolist()
    assert "--tokenizer" in millrace("dataset", "cat", tmp_path / "out", "--sequence", 3, code=2).stderr


@pytest.mark.parametrize("words, code, hint", [
    (["export", "{made}", "--format", "bin"], 2, "--output FILE"),
    (["export", "{made}", "--format", "parquet", "--output", "x"], 2, "expected bin, llmc or npy"),
    (["export", "{made}", "--format", "bin", "--output", "/nowhere/x.bin"], 1, "/nowhere"),
    (["export", "{made}", "--format", "bin", "-o", "{made}/dataset/train-00000.tok.zst"], 2, "dataset belongs to a dataset"),
    (["export", "{made}", "--format", "bin", "-o", "{made}/dataset/new.bin"], 2, "dataset belongs to a dataset"),
    (["export", "{made}", "--format", "bin", "-o", "{made}/state/millrace.db"], 2, "state belongs to the state of a run"),
    (["export", "{made}", "--format", "bin", "-o", "{made}/state/runs/x.tok"], 2, "runs belongs to the state of a run"),
    (["export", "{made}", "--format", "bin", "-o", "{made}/metrics.jsonl"], 2, "the run whose output_dir is"),
    (["export", "{made}", "--format", "bin", "-o", "{made}/logs/coordinator.log"], 2, "the run whose output_dir is"),
    (["import", "/dev/null", "--output", "{made}/state", "-T", 8], 2, "state belongs to the state of a run"),
    (["import", "{train}", "--output", "{made}", "-T", 8], 2, "is the output_dir of a run"),
    (["import", "{train}", "--output", "{made}/logs", "-T", 8], 2, "the run whose output_dir is"),
    (["import", "{train}", "--output", "{made}/checkpoint-9", "-T", 8], 2, "the run whose output_dir is"),
    (["import", "{made}/pipeline.yaml"], 2, "--sequence-length T"),
    (["import", "/nowhere.bin", "--output", "{tmp}", "-T", 8], 1, "/nowhere.bin"),
    (["import", "/dev/null", "--output", "{tmp}", "-T", 8, "--packing", "tight"], 2, "expected concat, pad or best_fit"),
    (["import", "/dev/null", "--output", "{tmp}", "-T", 8, "--eos", 60000], 2, ""),
    (["build", "/nowhere.yaml"], 2, "/nowhere.yaml"),
])  # fmt: skip
def test_wrong_exports_and_imports_are_refused_with_a_hint(made, tmp_path, words, code, hint):
    train = tmp_path / "train.bin"
    train.write_bytes(bytes(range(200)))
    words = [str(word).format(made=made.output, tmp=tmp_path / "out", train=train) for word in words]
    before = {path: path.stat().st_mtime_ns for path in made.output.rglob("*")}
    done = subprocess.run([cluster.MILLRACE, "dataset", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert done.returncode and (not hint or done.returncode == code) and hint in done.stderr, (done.returncode, done.stderr)
    assert not (tmp_path / "out").exists()
    assert before == {path: path.stat().st_mtime_ns for path in made.output.rglob("*")}


def test_build_makes_the_dataset_of_a_run_without_training(base_folder, texts, tmp_path, made):
    place = cluster.Workplace(
        tmp_path, texts, **cluster.GPT2, dataset__shard_tokens=4096, dataset__validation_fraction=0.5, dataset__deduplicate="exact",
        sample__prompt="",
    )
    answer = told("build", place.file, "--workers", 1)
    assert answer["dataset_digest"] == told("info", made.output)["digest"] and answer["steps"] == 0
    assert told("info", place.output) == told("info", made.output)
    assert not list(place.output.glob("checkpoint-*"))


# ---- verify --------------------------------------------------------------------------------------------------------------------


def test_verify_names_every_broken_shard_and_no_other(made, tmp_path):
    assert told("verify", made.output) == {
        "ok": True, "shards": told("info", made.output)["shards"], "broken": [], "digest": told("info", made.output)["digest"],
    }
    copy = tmp_path / "dataset"
    subprocess.run(["cp", "-r", made.output / "dataset", copy], check=True)
    flipped, cut, gone = sorted(copy.glob("*.tok.zst"))[1:4]
    data = bytearray(flipped.read_bytes())
    data[len(data) // 3] ^= 16
    flipped.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:-1])
    gone.unlink()
    answer = json.loads(millrace("dataset", "verify", copy, "--json", code=1).stdout)
    assert not answer["ok"] and [broken["shard"] for broken in answer["broken"]] == [flipped.name, cut.name, gone.name]
    assert all(broken["shard"] in broken["error"] for broken in answer["broken"])
    done = millrace("dataset", "verify", copy, code=1)
    assert [line.split(": broken: ")[0] for line in done.stdout.splitlines()] == [flipped.name, cut.name, gone.name]
    assert "3 of" in done.stderr and flipped.name in done.stderr


def test_of_one_thing_nobody_speaks_as_of_many(workplaces, tmp_path):
    """One source, document, token too few, shard, sequence, step, slice, layer, worker. cluster.millrace() looks at all that is said."""
    (tmp_path / "one.jsonl").write_text('{"text": "one two three four"}\n{"text": ""}\nx')
    changes = {"dataset__sources": [str(tmp_path / "one.jsonl")], "dataset__sequence_length": 4, "dataset__validation_fraction": 0}
    changes |= {"training__global_batch": 1, "training__slices": 1, "training__max_steps": 1, "training__eval_steps": 0}
    changes |= {"training__lr_scheduler_type": "constant", "training__warmup_steps": 0}
    place = workplaces(**cluster.GPT2, **changes, dataset__max_left_out=1, model__n_layer=1, cluster__workers=1)
    told = [millrace("plan", place.file).stdout, millrace("run", place.file).stderr]
    for name in ("info", "inspect", "verify"):
        told.append(millrace("dataset", name, place.output).stdout)
    told.append(millrace("dataset", "trace", place.output, "--sequence", 0).stdout)
    told.append(millrace("dataset", "export", place.output, "--format", "npy", "--output", tmp_path / "ids").stdout)
    told.append(millrace("status", place.file).stdout + place.events())
    for words in ("of 1 layer,", "from 1 source file; 1 document without a token;", "left out: 1 document (", " 1 byte;", "ok: 1 shard,"):
        assert any(words in text for text in told), f"{words}: {told}"
    assert "of 1 sequence, 1 at a time" in told[0] and "1 document, 5 tokens" in told[-1], told
    assert not any(cluster.PLURAL_OF_ONE.search(text) for text in told), told
    with open(tmp_path / "one.jsonl", "a", encoding="utf-8") as file:
        file.write('\n{"text": "five"}\n')
    said = millrace("run", place.file, "--set", "training.max_steps=2", code=2).stderr
    assert "one.jsonl changed since" in said and "1 step was trained on it" in said


def test_whole_shards_of_one_size_that_change_places_are_found_when_they_are_opened(tmp_path):
    """By whatever reads them: each is whole, and as long as the other, and the manifest's digests of files take reading all of them."""
    ids = numpy.random.default_rng(5).integers(256, 65536, 9 * 65536, dtype=numpy.uint16)
    ids.tofile(tmp_path / "ids.bin")
    made = tmp_path / "made"
    millrace("dataset", "import", tmp_path / "ids.bin", "--eos", 5, "--token-bytes", 2, "--sequence-length", 16, "--shard-tokens", 65536,
             "--validation-fraction", 0, "--output", made)  # fmt: skip
    of_size = {}
    for shard in sorted(made.glob("train-*")):
        of_size.setdefault(shard.stat().st_size, []).append(shard)
    first, second = max(of_size.values(), key=len)[:2]
    aside = made / "aside"
    for old, new in ((first, aside), (second, first), (aside, second)):
        old.rename(new)
    says = f"{first} is whole, and is not the shard that the manifest names"
    number = int(first.name.split("-")[1].split(".")[0])
    assert says in millrace("dataset", "export", made, "--format", "bin", "--output", tmp_path / "out.bin", code=1).stderr
    assert says in millrace("dataset", "cat", made, "--sequence", number * 65536 // 16, "--tokens", code=1).stderr
    assert f"{first.name}: broken" in millrace("dataset", "verify", made, code=1).stdout
