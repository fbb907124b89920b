"""What a file is, its bytes say: what is packed under any name is unpacked, text in UTF-16 is decoded, what is no text is named."""

import gzip
import pathlib
import random
import struct
import subprocess
import zlib

import pytest

import cluster
import forms

PARQUET = b"PAR1" + bytes([0x15, 4, 0x15, 20, 0x15, 24, 0x4C, 0x15, 2, 0x15, 0]) + bytes(range(200)) + b"PAR1"
PDF = b"%PDF-1.4\n1 0 obj\n<< /Type /Catalog >>\nendobj\n" * 20


def png():
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 1, 1, 8, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0\0")) + chunk(b"IEND", b"")


NO_TEXT = {
    "Apache Parquet": PARQUET,
    "a PDF document": PDF,
    "a program (ELF)": pathlib.Path(cluster.MILLRACE).read_bytes()[:100000],
    "an image (PNG)": png(),
    "Apache Arrow": b"ARROW1\0\0" + struct.pack("<ii", -1, 16) + bytes(300),
    "not UTF-8": random.Random(1).randbytes(5000),
    "UTF-16 without a byte order mark": "plain words, as Windows writes them".encode("utf-16-le") * 20,
    "another encoding": "слова, каких много в книгах, на другом языке ".encode("koi8-r") * 20,
    "control characters": b"ids: " + struct.pack("<1000I", *range(1000)),
}


@pytest.mark.parametrize("name", NO_TEXT)
def test_a_named_file_that_is_no_text_is_refused_by_name(workplaces, tmp_path, name):
    source = forms.written(tmp_path, "train.txt", NO_TEXT[name])
    place = workplaces(dataset__sources=[source], **forms.SHORT)
    process = place.run(*forms.ONLY)
    assert process.wait() == 2
    words = process.stderr()
    assert "train.txt is " in words and name in words and "as text; " in words


def test_one_among_texts_is_left_out_and_named(workplaces, tmp_path):
    """In a folder, in an archive, and compressed: the same account at any number of workers."""
    texts = forms.documents(60)
    folder = forms.plain(tmp_path / "texts", texts)
    (folder / "logo").write_bytes(png())
    (folder / "rows.gz").write_bytes(gzip.compress(PARQUET))
    (folder / "more.tar").write_bytes(forms.tar([("x/paper", PDF), ("x/words.txt", b"words in a tar")]))
    results = []
    for workers in (1, 3):
        place = workplaces(dataset__sources=[str(folder)], dataset__max_left_out=0.9, **forms.SHORT)
        results.append(place.finish(place.run(*forms.ONLY, "--workers", workers)))
    assert results[0]["dataset_digest"] == results[1]["dataset_digest"]
    account = results[0]["account"]
    assert account["kept_documents"] == len(texts) + 1
    assert [(entry["reason"], entry["documents"]) for entry in account["left_out"]] == [("binary", 3)]
    assert "an image (PNG)" in account["left_out"][0]["first"]["detail"] and "logo" in account["left_out"][0]["first"]["place"]
    shown = cluster.millrace("dataset", "inspect", place.output).stdout
    assert "an image (PNG)" in shown and "PNG " not in shown and "IHDR" not in shown and "%PDF" not in shown


@pytest.fixture(scope="module")
def large():
    dice = random.Random(cluster.SEED)
    return "".join(cluster.prose(dice, 2000).replace("\r", " ") + "é日😀\n" for _ in range(1700))  # above 3 MiB


def test_large_files_are_the_same_in_any_coat(workplaces, tmp_path, large):
    """Those that are divided when they lie plain: nothing depends on how a file is cut into parts, nor on workers."""
    coats = {
        "plain.txt": large.encode(),
        "marked.txt": b"\xef\xbb\xbf" + large.encode(),
        "gzip.txt": gzip.compress(large.encode(), 1),
        "little.txt": large.encode("utf-16"),
        "big.txt": ("\ufeff" + large).encode("utf-16-be"),
    }
    digests = {}
    for workers, (name, data) in enumerate(coats.items(), 1):
        place = workplaces(dataset__sources=[forms.written(tmp_path, name, data)], dataset__validation_fraction=0, **forms.SHORT)
        digests[name] = place.finish(place.run(*forms.ONLY, "--workers", 1 + workers % 3))["dataset_digest"]
    assert len(set(digests.values())) == 1, digests


def test_a_name_with_brackets_is_that_file(workplaces, tmp_path):
    texts = forms.documents(6)
    folder = forms.plain(tmp_path / "exp[1]", texts)
    forms.plain(tmp_path / "exp1", ["other " + text for text in texts])
    (folder / "0000.txt").rename(folder / "what?[a-z].txt")
    lines = forms.written(tmp_path, "all.jsonl", forms.json_lines(texts))
    wanted = forms.dataset_digest(workplaces(dataset__sources=[lines], **forms.SHORT))
    files = [str(folder / "what?[a-z].txt"), str(folder / "000[1-9].txt")]
    assert forms.dataset_digest(workplaces(dataset__sources=[{"paths": files}], **forms.SHORT)) == wanted
    named = {"paths": [str(folder / "what?[a-z].txt"), str(folder)]}
    assert forms.dataset_digest(workplaces(dataset__sources=[named], **forms.SHORT)) == wanted


def refused(*words, **options):
    done = cluster.millrace(*words, code=2, **options)
    return done.stderr


def test_commands_take_text_in_any_coat_and_nothing_else(tmp_path):
    text = "".join(forms.documents(20, size=6000))
    ids = cluster.millrace("tokenize", stdin=text.encode()).stdout
    archive = forms.tar([("a.txt", text[:5000].encode()), ("b.txt.gz", gzip.compress(text[5000:].encode("utf-16")))])
    coats = {"plain": text.encode(), "gzip": gzip.compress(text.encode()), "little": text.encode("utf-16"), "tar": archive,
             "big": ("\ufeff" + text).encode("utf-16-be"), "marked": b"\xef\xbb\xbf" + text.encode()}
    trained = set()
    for name, data in coats.items():
        (tmp_path / name).write_bytes(data)
        with open(tmp_path / name, "rb") as file:
            assert subprocess.run([cluster.MILLRACE, "tokenize"], stdin=file, capture_output=True, text=True, check=True).stdout == ids
        cluster.millrace("tokenizer", "train", tmp_path / name, "--vocab-size", 300, "-o", tmp_path / "out")
        trained.add((tmp_path / "out/merges.txt").read_text())
    assert len(trained) == 1
    for name, data in NO_TEXT.items():
        (tmp_path / "file").write_bytes(data)
        assert "standard input is " in refused("tokenize", stdin=data) and name in refused("tokenize", stdin=data)
        assert name in refused("tokenizer", "train", tmp_path / "file", "--vocab-size", 300, "-o", tmp_path / "none")
        assert cluster.millrace("tokenize", "--raw", stdin=data).stdout
    done = cluster.millrace("tokenize", "--raw", stdin=b"caf\xe9 \xff\xfe")
    assert done.stdout == cluster.millrace("tokenize", stdin="caf\ufffd \ufffd\ufffd".encode()).stdout
    assert "3 ill-formed UTF-8 sequences became U+FFFD each: the ids do not give those bytes back" in done.stderr, done.stderr
    assert cluster.millrace("tokenize", "--raw", stdin="\ufffd\0é".encode()).stderr == ""
    assert "standard input is gzip" in refused("tokenize", stdin=coats["gzip"])
    assert cluster.millrace("tokenize", "-0", stdin=b"a\0b\0" * 100).stdout == "64\n65\n" * 100


def test_a_member_that_is_no_text_is_named_and_left_out_by_commands_too(tmp_path):
    text = "".join(forms.documents(4, size=3000)).encode()
    (tmp_path / "texts").mkdir()
    picture, none = (tmp_path / "texts" / name for name in ("with.tar", "none.tar"))
    picture.write_bytes(forms.tar([("x.png", png()), ("a.txt", text), ("hidden", gzip.compress(text))]))
    none.write_bytes(forms.tar([("x.png", png())]))
    with open(picture, "rb") as file:
        done = subprocess.run([cluster.MILLRACE, "tokenize"], stdin=file, capture_output=True, text=True, check=True)
    assert done.stdout == cluster.millrace("tokenize", stdin=text).stdout
    assert "2 members are no text and are left out: first, standard input!x.png is an image (PNG)" in done.stderr, done.stderr
    train = ["tokenizer", "train", "--vocab-size", 300, "-o", tmp_path / "out"]
    said = cluster.millrace(*train, tmp_path / "texts").stderr
    assert f"{picture}!x.png is an image (PNG)" in said and f"left out  {none} has no text in it: {none}!x.png is an image" in said, said
    assert "none.tar has no text in it" in refused(*train, none)


@pytest.mark.parametrize("data, words", [
    (b"Prose is no list of token ids. " * 20, "is text, and no file of token ids; dataset.sources takes text"),
    (gzip.compress(b"prose" * 100), "is gzip, and no file of token ids"),
    (PARQUET, "is Apache Parquet, and no file of token ids"),
    (struct.pack("<300I", *range(40, 50000, 167)[:299], 50256), "ids of 4 bytes? Then say --token-bytes 4"),
])
def test_what_is_no_file_of_two_byte_ids_is_not_imported(tmp_path, data, words):
    (tmp_path / "train.bin").write_bytes(data + bytes(len(data) % 2))
    done = cluster.millrace("dataset", "import", tmp_path / "train.bin", "-o", tmp_path / "data", "--sequence-length", 8, code=1)
    assert words in done.stderr and not (tmp_path / "data/dataset.pb").exists()


def test_ids_of_two_bytes_are_not_taken_for_four(tmp_path):
    (tmp_path / "train.bin").write_bytes(struct.pack("<300H", *range(300, 50000, 166)[:299], 50256))
    arguments = ["dataset", "import", tmp_path / "train.bin", "-o", tmp_path / "data", "--sequence-length", 8]
    assert "say --token-bytes 2" in cluster.millrace(*arguments, "--token-bytes", 4, "--eos", 50256, code=1).stderr
    cluster.millrace(*arguments)
