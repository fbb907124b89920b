"""The same documents in every form that a source can have: what the tests of sources compare with each other. Made with Python's standard
library, and with the tools that deploy/setup.sh installs for tests.
"""

import bz2
import csv
import gzip
import io
import json
import lzma
import random
import subprocess
import tarfile
import zipfile

import cluster

# A pipeline that is about its dataset.
SHORT = {"training__max_steps": 1, "training__eval_steps": 0, "training__save_steps": 0, "sample__prompt": ""}
ONLY = ("--stop-after", "dataset")


def documents(count=40, seed=cluster.SEED, size=3000):
    """Texts without carriage returns and without NUL, which some forms treat in ways of their own; none is empty."""
    chooser = random.Random(seed)
    return [f"{i}: " + cluster.prose(chooser, chooser.randint(40, size)).replace("\r", " ") for i in range(count)]


def tool(*arguments, stdin=b""):
    return subprocess.run(list(map(str, arguments)), input=stdin, stdout=subprocess.PIPE, check=True).stdout


def read_as_far(*arguments):
    """What a program writes before it fails; the last argument is its input."""
    return subprocess.run(arguments[:-1], input=arguments[-1], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=False).stdout


def names_of(texts):
    return [f"{i:04}.txt" for i in range(len(texts))]


def plain(folder, texts):
    folder.mkdir(parents=True)
    for name, text in zip(names_of(texts), texts):
        (folder / name).write_text(text, newline="")
    return folder


# ---- compression -----------------------------------------------------------------------------------------------------------------

PACKERS = {
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": lambda data: tool("zstd", "-qc", stdin=data),
    "lz4": lambda data: tool("lz4", "-qc", stdin=data),
}


# ---- archives --------------------------------------------------------------------------------------------------------------------


def tar(members, mode=tarfile.GNU_FORMAT):
    """members: (name, bytes). With a folder and a link, which are nobody's document."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=mode) as archive:
        folder = tarfile.TarInfo("a-folder")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in members:
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("z-link")
        link.type, link.linkname = tarfile.SYMTYPE, "elsewhere"
        archive.addfile(link)
    return out.getvalue()


def zipped(members, method=zipfile.ZIP_DEFLATED):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


def seven(folder, texts):
    work = plain(folder / "work", texts)
    tool("7z", "a", "-bd", "-y", folder / "all.7z", f"{work}/.")
    return {"path": str(folder / "all.7z")}


def deb(folder, texts):
    """control.tar and data.tar, as dpkg-deb makes them; only the documents are taken."""
    package = folder / "package"
    plain(package / "usr" / "share" / "doc" / "all", texts)
    (package / "DEBIAN").mkdir()
    (package / "DEBIAN" / "control").write_text(
        "Package: all\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.org>\nDescription: texts\n"
    )
    tool("dpkg-deb", "-b", "--root-owner-group", package, folder / "all.deb")
    return {"path": str(folder / "all.deb"), "members": "**/*.txt"}


def members_of(texts):
    return [(name, text.encode()) for name, text in zip(names_of(texts), texts)]


def written(folder, name, data, **keys):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(data)
    return {"path": str(folder / name), **keys}


def rows(texts, delimiter):
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter)
    writer.writerow(["id", "text", "note"])
    for i, text in enumerate(texts):
        writer.writerow([i, text, 'with "quotes"'])
    return out.getvalue().encode()


def json_lines(texts, key="text", ascii_only=False):
    lines = (json.dumps({"id": i, key: text, "more": {"text": "not this"}}, ensure_ascii=ascii_only) for i, text in enumerate(texts))
    return "".join(line + "\n" for line in lines).encode()


def nested_archives(folder, texts):
    """A tar.xz of a zip, of a compressed tar of compressed texts, and of plain ones."""
    third = len(texts) // 3
    members = members_of(texts)
    inner = tar([(name + ".xz", lzma.compress(data)) for name, data in members[third : 2 * third]])
    whole = tar([("a.zip", zipped(members[:third])), ("b.tar.gz", gzip.compress(inner)), *members[2 * third :]])
    return written(folder, "all.tar.xz", lzma.compress(whole))


def marked(folder, texts):
    """With a byte order mark, in UTF-8 and both kinds of UTF-16; some of them compressed."""
    folder.mkdir(parents=True)
    for i, (name, text) in enumerate(zip(names_of(texts), texts)):
        data = ("\ufeff" + text).encode(["utf-8", "utf-16-le", "utf-16-be"][i % 3])
        (folder / name).write_bytes(gzip.compress(data) if i % 4 == 3 else data)
    return {"path": f"{folder}/*.txt"}


def two_archives(folder, texts):
    half = len(texts) // 2
    members = members_of(texts)
    written(folder, "a.tar", tar(members[:half]))
    written(folder, "b.zip", zipped(members[half:]))
    return {"path": f"{folder}/*"}


FORMS = {
    "folder": lambda folder, texts: {"path": f"{plain(folder, texts)}/*.txt"},
    "jsonl": lambda folder, texts: written(folder, "all.jsonl", json_lines(texts)),
    "jsonl without a last line end": lambda folder, texts: written(folder, "all.jsonl", json_lines(texts, ascii_only=True)[:-1]),
    "a nested field": lambda folder, texts: written(
        folder, "all.ndjson", "".join(json.dumps({"a": {"b": text}}) + "\n" for text in texts).encode(), field="a.b"
    ),
    "json": lambda folder, texts: written(
        folder, "all.json", json.dumps([{"text": text, "x": [1, {"text": "no"}]} for text in texts], indent=1).encode()
    ),
    "csv": lambda folder, texts: written(folder, "all.csv", rows(texts, ",")),
    "tsv": lambda folder, texts: written(folder, "all.tsv", rows(texts, "\t"), format="csv"),  # with quotes: tsv has none
    "a table's other column": lambda folder, texts: written(
        folder, "all.dat", rows(texts, ",").replace(b"id,text,note", b"text,body,note"), format="csv", field="body"
    ),
    "gzip under another name": lambda folder, texts: written(folder, "all.jsonl", gzip.compress(json_lines(texts))),
    "a zip under another name": lambda folder, texts: written(folder, "all [1].txt", zipped(members_of(texts))),
    "UTF-16": lambda folder, texts: written(folder, "all.jsonl", json_lines(texts).decode().encode("utf-16")),
    "UTF-16 big-endian": lambda folder, texts: written(folder, "all.csv", ("\ufeff" + rows(texts, ",").decode()).encode("utf-16-be")),
    "texts with a mark": lambda folder, texts: marked(folder, texts),
    "lines with a mark": lambda folder, texts: written(folder, "all.jsonl", b"\xef\xbb\xbf" + json_lines(texts)),
    "separator": lambda folder, texts: written(folder, "all.txt", "\x1e\n".join(texts).encode(), separator="\x1e\n"),
    "tar": lambda folder, texts: written(folder, "all.tar", tar(members_of(texts))),
    "tar in pax format": lambda folder, texts: written(folder, "all.tar", tar(members_of(texts), tarfile.PAX_FORMAT)),
    "zip": lambda folder, texts: written(folder, "all.zip", zipped(members_of(texts))),
    "zip, stored": lambda folder, texts: written(folder, "all.zip", zipped(members_of(texts), zipfile.ZIP_STORED)),
    "7z": seven,
    "deb": deb,
    "two archives": two_archives,
    "nested archives": nested_archives,
    "json lines in a tar": lambda folder, texts: written(
        folder,
        "all.tar.gz",
        gzip.compress(tar([("x/1.jsonl", json_lines(texts[:9])), ("x/2.jsonl.bz2", bz2.compress(json_lines(texts[9:])))])),
    ),
    **{
        f"jsonl.{suffix}": lambda folder, texts, suffix=suffix: written(folder, f"all.jsonl.{suffix}", PACKERS[suffix](json_lines(texts)))
        for suffix in PACKERS
    },
    **{
        f"tar.{suffix}": lambda folder, texts, suffix=suffix: written(folder, f"all.tar.{suffix}", PACKERS[suffix](tar(members_of(texts))))
        for suffix in ("gz", "xz", "zst")
    },
    "gzip in two parts": lambda folder, texts: written(
        folder, "all.jsonl.gz", gzip.compress(json_lines(texts[:7])) + gzip.compress(json_lines(texts[7:]))
    ),
}


def lines(texts):
    """Documents that fit on a line each."""
    return [" ".join(text.split()) for text in texts]


def dataset_digest(place, *arguments):
    """Makes the dataset, without training on it."""
    return place.go(*ONLY, *arguments)["dataset_digest"]


def info(place):
    return json.loads(cluster.millrace("dataset", "info", place.output, "--json").stdout)


def tokens(place, split="train"):
    """All token ids of a split, as other tools read them."""
    wide = info(place)["token_bytes"]
    data = b"".join(tool("zstd", "-dcq", path) for path in sorted(place.output.glob(f"dataset/{split}-*.tok.zst")))
    return list(memoryview(data).cast("H" if wide == 2 else "I"))
