"""What `run`, `plan` and `dataset` say of a dataset, so that a person knows what became of their text and what to do about it."""

import json
import re
import zipfile

import pytest

import cluster
import forms
from cluster import millrace, refused

WHOLE = {**forms.SHORT, **cluster.GPT2, "dataset__validation_fraction": 0, "dataset__shard_tokens": 4096, "dataset__sequence_length": 32}


def build(place, *arguments, code=0):
    done = millrace("dataset", "build", place.file, "--workers", 1, *arguments, code=code)
    return done.stdout + done.stderr


def lines(said, word):
    """The lines that begin with a word, without it."""
    return [line[10:] for line in said.splitlines() if line.startswith(f"{word:<10}")]


def test_numbers_look_alike_in_all_lines_of_all_commands(workplaces, tmp_path):
    """Thousands have their comma, and no share is written with an exponent."""
    texts = [" water" * 1500] * 3 + [f" stone {i}" * 700 for i in range(2)]
    source = forms.written(tmp_path, "all.jsonl", forms.json_lines(texts))
    place = workplaces(dataset__sources=[source], dataset__deduplicate="exact", **WHOLE)
    said = build(place)
    for name in ("info", "inspect", "verify"):
        said += millrace("dataset", name, place.output).stdout
    said += millrace("dataset", "export", place.output, "--format", "bin", "--output", tmp_path / "ids.bin").stdout
    said += millrace("dataset", "import", tmp_path / "ids.bin", "--output", tmp_path / "new", "--sequence-length", 32).stdout
    assert not re.search(r"\d{4,} (?:token|document|sequence|byte)|\(\de[+-]\d", said), said
    assert said.count("4,303 tokens") >= 3, said
    lame = forms.written(tmp_path, "bad.jsonl", forms.json_lines(["some text"] * 2000) + b"{}\n" * 1100)
    broken = workplaces(dataset__sources=[lame], dataset__max_left_out=0, **WHOLE)
    assert "1,100 of 3,100 documents (35 %) cannot be used" in build(broken, code=2)


# ---- shares of entries ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def whole_documents(tmp_path):
    """One document of 12,000 tokens with weight 1, six of 2,300 with weight 3: the first one is used up at once."""
    one = forms.written(tmp_path / "a", "all.jsonl", forms.json_lines([" water" * 12000]))
    six = forms.written(tmp_path / "b", "all.jsonl", forms.json_lines([f" {i}" + " stone" * 2300 for i in range(6)]))
    return [{**one, "name": "a", "weight": 1}, {**six, "name": "b", "weight": 3}]


def test_weights_that_whole_documents_cannot_keep_are_warned_of(workplaces, whole_documents):
    place = workplaces(dataset__sources=whole_documents, **{**WHOLE, "dataset__sequence_length": 32})
    words = "a has 100 % of the training tokens, and by its weight should have 25 %; b has 0 % of the training tokens, and by its weight"
    planned = millrace("plan", place.file, "--no-calibration")
    built = build(place)
    for said in (planned.stdout, built, millrace("plan", place.file, "--no-calibration").stdout, millrace("status", place.file).stdout):
        assert words in said and "all_exhausted" in said, said
    told = json.loads(millrace("dataset", "build", place.file, "--json").stdout)
    assert [words in warning for warning in told["warnings"]] == [True]
    even = [{**source, "weight": 1} for source in whole_documents]
    fine = workplaces(dataset__sources=even, dataset__stopping_strategy="all_exhausted", **WHOLE)
    assert not lines(build(fine), "warning")


def test_a_large_entry_without_a_validation_document_is_warned_of(workplaces, tmp_path):
    many = forms.written(tmp_path / "a", "all.jsonl", forms.json_lines([f" {i}" + " water" * 90 for i in range(60)]))
    one = forms.written(tmp_path / "b", "all.jsonl", forms.json_lines([" stone" * 3000]))
    many["name"], one["name"] = "a", "b"
    changes = {**WHOLE, "dataset__validation_fraction": 0.2}
    (warning,) = lines(build(workplaces(dataset__sources=[many, one], **changes)), "warning")
    assert warning.startswith("the validation split has no document of b (35 % of the tokens)"), warning
    chosen = workplaces(dataset__sources=[many, {**one, "split": "train"}], **changes)
    assert not lines(build(chosen), "warning")


def test_a_run_that_holds_out_no_document_is_warned_of(workplaces, tmp_path):
    one = forms.written(tmp_path, "all.jsonl", forms.json_lines([" stone" * 3000]))
    place = workplaces(dataset__sources=[one], **{**WHOLE, "dataset__validation_fraction": 0.01})
    (warning,) = lines(build(place), "warning")
    assert warning.startswith("no document is held out for validation, though dataset.validation_fraction is 1 %"), warning
    assert "1 document, and" in warning and warning in millrace("status", place.file).stdout, warning
    assert not lines(build(workplaces(dataset__sources=[one], **WHOLE)), "warning")


def test_a_share_that_holds_out_everything_is_told_as_it_was_given(workplaces, tmp_path):
    one = forms.written(tmp_path, "all.jsonl", forms.json_lines([" stone" * 3000]))
    said = build(workplaces(dataset__sources=[one], **{**WHOLE, "dataset__validation_fraction": 0.9999999}), code=2)
    assert "with dataset.validation_fraction 0.9999999 every document is held out" in said, said


def test_an_entry_of_which_nothing_is_left_says_why(workplaces, tmp_path):
    same = forms.json_lines([" stone" * 30] * 5)
    first, second = (forms.written(tmp_path / name, "all.jsonl", same) for name in "ab")
    first.update(name="a", weight=1), second.update(name="b", weight=1)
    place = workplaces(dataset__sources=[first, second], dataset__deduplicate="exact", **WHOLE)
    said = build(place, code=2)
    assert "b has a weight, but no document of it is left for training: 0 of it are held out for validation; " in said, said
    assert 'of all entries, 9 of 10 documents were left out: 9 for "duplicate"' in said, said


# ---- what is hardly UTF-8 ------------------------------------------------------------------------------------------------------

LATIN = ("Ein größerer Fluß fließt früh über die Mühle. " * 40).encode("iso-8859-1")
ADVICE = "iconv -f WINDOWS-1252 -t UTF-8"


def test_text_in_an_8_bit_encoding_is_warned_of(workplaces, tmp_path):
    """In every command that reads text; the file is named, and a single broken character is no other encoding."""
    (tmp_path / "fine.txt").write_bytes(b"a text \xff " + b"of many words " * 300)
    (tmp_path / "latin.txt").write_bytes(LATIN)
    place = workplaces(dataset__sources=[f"{tmp_path}/*.txt"], **WHOLE)
    wanted = f"{tmp_path}/latin.txt: 280 ill-formed UTF-8 sequences in 1,840 bytes of text (15 %)"
    for said in (millrace("plan", place.file, "--no-calibration").stdout, build(place), millrace("status", place.file).stdout):
        assert wanted in said and ADVICE in said and "fine.txt" not in said, said
    packed = forms.written(tmp_path / "tar", "all.tar", forms.tar([("a.txt", b"plain text"), ("b.txt", LATIN), ("c.txt", LATIN)]))
    assert "all.tar!b.txt (and 1 other file): 280 ill-formed" in build(workplaces(dataset__sources=[packed], **WHOLE))
    assert "standard input: 280 ill-formed" in millrace("tokenize", stdin=LATIN).stderr
    repaired, raw = millrace("tokenize", stdin=LATIN.decode("latin-1").encode()), millrace("tokenize", "--raw", stdin=LATIN)
    assert ADVICE not in repaired.stderr + raw.stderr
    trained = millrace("tokenizer", "train", tmp_path / "latin.txt", tmp_path / "fine.txt", "--vocab-size", 300, "--output", tmp_path / "t")
    assert wanted in trained.stderr and "fine.txt:" not in trained.stderr, trained.stderr


def test_standard_input_is_called_so_and_its_advice_is_for_a_pipe(workplaces):
    place = workplaces(dataset__sources=["-"], **WHOLE)
    said = millrace("dataset", "build", place.file, stdin=LATIN).stderr
    assert "warning   standard input: 280 ill-formed" in said and f"{ADVICE} FILE | millrace" in said and "state/stdin" not in said, said
    traced = millrace("dataset", "trace", place.output, "--sequence", 0).stdout
    assert "standard input, text at byte 0" in traced and "state/stdin" not in traced, traced


@pytest.mark.parametrize("policy", ["drop", "refuse"])
def test_a_build_that_ends_for_text_in_an_8_bit_encoding_says_how_to_convert_it(workplaces, tmp_path, policy):
    (tmp_path / "latin.txt").write_bytes(LATIN)
    said = build(workplaces(dataset__sources=[f"{tmp_path}/*.txt"], dataset__invalid_utf8=policy, **WHOLE), code=2)
    assert ADVICE in said and "Windows-1252" in said, said


def test_json_lines_under_no_name_are_warned_of(workplaces, tmp_path):
    """Nothing says that they are not to be learned as they are, braces and all."""
    json_lines = forms.json_lines([f"a text of many words, number {i}" for i in range(200)])
    words, plain = "looks like JSON lines", workplaces(dataset__sources=["-"], **WHOLE)
    said = millrace("dataset", "build", plain.file, stdin=json_lines).stderr
    assert f"warning   standard input {words}" in said and "format: jsonl" in said, said
    for given, more in ((json_lines, {"format": "jsonl"}), (b"[a list]\n" * 300, {})):
        place = workplaces(dataset__sources=[{"path": "-", **more}], **WHOLE)
        assert words not in millrace("dataset", "build", place.file, stdin=given).stderr
    (tmp_path / "a.jsonl").write_bytes(json_lines)
    trained = millrace("tokenizer", "train", tmp_path / "a.jsonl", "--vocab-size", 300, "--output", tmp_path / "t").stderr
    assert f"{words}" in trained and "jq -r .text FILE" in trained, trained
    packed = tmp_path / "texts.zip"
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("a.txt", "plain text\n" * 20)
        archive.writestr("data.jsonl", json_lines)
    said = millrace("tokenizer", "train", packed, "--vocab-size", 300, "--output", tmp_path / "u").stderr
    assert "texts.zip!data.jsonl looks like JSON lines" in said and "unpack it, and take its field out" in said and "jq" not in said, said


# ---- what was left out ---------------------------------------------------------------------------------------------------------


def test_members_that_match_nothing_are_named_with_what_is_there(workplaces, tmp_path):
    source = forms.written(tmp_path, "all.tar", forms.tar([("src/a.c", b"int a;"), ("src/b.c", b"int b;")]), members=["*.txt", "doc/*"])
    said = build(workplaces(dataset__sources=[source], **WHOLE), code=2)
    assert 'members "*.txt", "doc/*" matches none of the archives\' 2 members (first: src/a.c)' in said, said
    other = forms.written(tmp_path, "text.jsonl", forms.json_lines([" water" * 900]))
    (warning,) = lines(build(workplaces(dataset__sources=[{**other, "name": "text"}, {**source, "name": "code"}], **WHOLE)), "warning")
    assert warning.startswith("code gave no document") and "`members`" in warning


def test_too_little_text_names_what_was_left_out(workplaces, tmp_path):
    source = forms.written(tmp_path, "all.jsonl", forms.json_lines([" water"] * 30 + [""]))
    place = workplaces(dataset__sources=[source], dataset__deduplicate="exact", **WHOLE)
    assert '29 of 31 documents were left out: 29 for "duplicate"' in build(place, code=2)
    wrong = workplaces(dataset__sources=[{**source, "field": "txet"}], dataset__max_left_out=1, **WHOLE)
    first = f'(first: {tmp_path}/all.jsonl:1, no field "txet"; it has "id"'
    assert f'31 of 31 documents were left out: 31 for "bad_record" {first}' in build(wrong, code=2)


@pytest.mark.parametrize("deduplicate", ["none", "exact", "near"])
def test_text_of_which_nothing_may_stay_is_told_before_duplicates_are_looked_for(workplaces, tmp_path, deduplicate):
    few = forms.written(tmp_path, "few.jsonl", forms.json_lines(["water " * 9]))
    filtered = workplaces(dataset__sources=[few], dataset__deduplicate=deduplicate, dataset__filters=["gopher_quality"], **WHOLE)
    empty = workplaces(dataset__sources=[forms.written(tmp_path, "empty.txt", b"")], dataset__deduplicate=deduplicate, **WHOLE)
    left = 'no text that may stay: every document was empty or left out; 1 of 1 document was left out: 1 for "gopher_quality'
    for place, words in (filtered, left), (empty, "the sources have no text: every file is empty"):
        assert words in build(place, code=2)
        assert words in millrace("plan", place.file, code=2).stderr


def test_documents_without_a_token_are_told(workplaces, tmp_path):
    source = forms.written(tmp_path, "all.jsonl", forms.json_lines([" water" * 900, "", f"{'stone ' * 90}", ""]))
    place = workplaces(dataset__sources=[source], **WHOLE)
    said = build(place)
    assert "done: 2 documents" in said and lines(said, "empty") == ["2 of 4 documents (50 %), 0 B, without a token"], said
    assert json.loads(millrace("dataset", "build", place.file, "--json").stdout)["account"]["empty_documents"] == 2


# ---- what is there of a run ----------------------------------------------------------------------------------------------------


def test_a_plan_refuses_sources_that_are_not_there_as_a_run_does(workplaces, tmp_path):
    place = workplaces(dataset__sources=[str(tmp_path / "none.txt")])
    planned = millrace("plan", place.file, "--no-calibration", code=2)
    assert "run would refuse: dataset.sources" in planned.stderr and "none.txt: no such file" in planned.stderr
    assert "none.txt: no such file" in refused("run", place.file, code=2, says=[])


def test_a_plan_tells_what_is_done_and_left(reference):
    planned = millrace("plan", reference.file, "--no-calibration").stdout
    steps = reference.result["steps"]
    assert re.search(rf"^ +{steps}  done by the run in output_dir, 0 left", planned, re.M), planned
    assert "source file" in planned or "sources" not in planned
    told = json.loads(millrace("plan", reference.file, "--no-calibration", "--json").stdout)["training"]
    assert (told["steps_done"], told["steps_left"]) == (steps, 0)


def test_a_shard_that_is_repaired_and_a_dataset_that_is_made_again_are_told(workplaces, tmp_path):
    forms.plain(tmp_path / "text", forms.documents(6))
    place = workplaces(dataset__sources=[f"{tmp_path}/text/*.txt"], **WHOLE)
    assert not lines(build(place), "repaired")
    shards = sorted((place.output / "dataset").glob("train-*.tok.zst"))
    data = bytearray(shards[0].read_bytes())
    data[len(data) // 2] ^= 1
    shards[0].write_bytes(data)
    said = build(place, "--verify")
    assert lines(said, "repaired") == [f"1 of 1 shard: {shards[0].name}"] and len(shards) == 1 and "nothing left to do" not in said
    (tmp_path / "text" / "more.txt").write_text("a new text " * 300)
    (kept,) = lines(build(place), "kept")
    assert "tokenize job" in kept and "more.txt came" in kept and kept.endswith("the rest was tokenized anew"), kept
    assert not lines(build(place), "kept")


def test_splits_that_cannot_be_used_are_told(workplaces, tmp_path):
    place = workplaces(dataset__sources=[forms.written(tmp_path, "a.jsonl", forms.json_lines([" water" * 900]))], **WHOLE)
    build(place)
    words = ("dataset", "export", place.output, "--format", "npy", "--split", "validation", "--output", tmp_path / "v")
    assert "validation fraction of 0" in refused(*words, code=1, says=[])
    (tmp_path / "few.bin").write_bytes(bytes(10))
    millrace("dataset", "export", place.output, "--format", "bin", "--output", tmp_path / "ids.bin")
    said = millrace("dataset", "import", tmp_path / "ids.bin", "--validation", tmp_path / "few.bin", "--output", tmp_path / "new",
                    "--sequence-length", 32).stderr
    assert "warning   the validation split has 6 tokens and no sequence of 32" in said, said
