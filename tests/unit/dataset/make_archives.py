"""make_archives.py FOLDER: writes one file for each way of packing text, and beside it NAME.members: name and SHA-256 of each member, in
order, as this script knows them. Python's standard library and the usual tools make them, not libarchive."""
import bz2
import gzip
import hashlib
import io
import lzma
import pathlib
import random
import shutil
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib

FOLDER = pathlib.Path(sys.argv[1])
TEXT = "".join(f"{i}: the quick brown fox jumps over the lazy dog\n" for i in range(4000)).encode()
NOISE = random.Random(1).randbytes(300_000)  # larger than a block, and not to be packed smaller
DOCS = [("docs/a.txt", b"The first.\n"), ("docs/b.txt", TEXT), ("c.bin", NOISE), ("docs/empty.txt", b""), ("d.txt", b"last")]


def write(name, content, members):
    """members: (name, bytes) of each, in order."""
    (FOLDER / name).write_bytes(content)
    lines = "".join(f"{member}\t{hashlib.sha256(data).hexdigest()}\n" for member, data in members)
    (FOLDER / f"{name}.members").write_bytes(lines.encode("utf-8"))


def tool(command, data):
    return subprocess.run(command, input=data, stdout=subprocess.PIPE, check=True).stdout


def tar(members, form=tarfile.PAX_FORMAT, more=()):
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for info in more:
            archive.addfile(info)
    return out.getvalue()


def sparse_tar(name, blocks, data):
    """A member between two others: its blocks, (offset, bytes), have the data, and what is between them is a hole."""
    size = max(at + count for at, count in blocks)
    info = tarfile.TarInfo(name)
    info.size, info.type = len(data), tarfile.GNUTYPE_SPARSE
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    for i, (at, count) in enumerate(blocks):
        head[386 + 24 * i: 410 + 24 * i] = (at | 1 << 95).to_bytes(12, "big") + (count | 1 << 95).to_bytes(12, "big")
    head[483:495] = (size | 1 << 95).to_bytes(12, "big")
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    before, after = tar([("before.txt", b"before")]), tar([("after.txt", b"after")])
    return before[:1024] + bytes(head) + data + bytes(-len(data) % 512) + after


def special(name, kind, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def zipped(members, method=zipfile.ZIP_DEFLATED, zip64=False):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as archive:
        archive.writestr("docs/", b"")
        for name, data in members:
            with archive.open(zipfile.ZipInfo(name) if method == zipfile.ZIP_STORED else name, "w", force_zip64=zip64) as member:
                member.write(data)
    return out.getvalue()


def ar(members, mode="100644"):
    out = b"!<arch>\n"
    for name, data in members:
        out += f"{name + '/':<16}{0:<12}{0:<6}{0:<6}{mode:<8}{len(data):<10}`\n".encode() + data + b"\n" * (len(data) % 2)
    return out


def cpio(members, mode=0o100644):
    """members: (inode, links, name, bytes): a file with several names has its bytes at the last one."""
    out = b""  # as "cpio -H newc" writes it
    for inode, links, name, data in members + [(0, 1, "TRAILER!!!", b"")]:
        fields = (inode, mode, 0, 0, links, 0, len(data), 0, 0, 0, 0, len(name) + 1, 0)
        head = b"070701" + b"".join(b"%08X" % field for field in fields) + name.encode() + b"\0"
        out += head + bytes(-len(head) % 4) + data + bytes(-len(data) % 4)
    return out


def old_cpio(members, form):
    """Its older forms: digits, or 16 bits each with the larger byte first or last."""
    out = b""
    for name, data in members + [("TRAILER!!!", b"")]:
        name = name.encode() + b"\0"
        if form == "digits":
            fields = (0o070707, 0, 1, 0o100644, 0, 0, 1, 0)
            out += b"".join(b"%06o" % field for field in fields) + b"%011o%06o%011o" % (0, len(name), len(data)) + name + data
        else:
            fields = (0o070707, 0, 1, 0o100644, 0, 0, 1, 0, 0, 0, len(name), len(data) >> 16, len(data) & 0xFFFF)
            out += struct.pack(f"{form}13H", *fields) + name + bytes(len(name) % 2) + data + bytes(len(data) % 2)
    return out


def rpm(payload):
    """With empty headers: a lead, two headers of no entries, and what is packed."""
    return b"\xed\xab\xee\xdb\3\0" + bytes(90) + 2 * (b"\x8e\xad\xe8\1" + bytes(12)) + payload


def seven(name, *options):
    place = FOLDER / "seven"
    for path, data in DOCS:
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        (place / path).write_bytes(data)
    names = [path for path, _ in DOCS]
    subprocess.run(["7z", "a", "-bso0", "-bsp0", *options, FOLDER / name, *names], cwd=place, check=True)
    shutil.rmtree(place)
    listing = subprocess.run(["7z", "l", "-ba", "-slt", "-pword", FOLDER / name], stdout=subprocess.PIPE, text=True, check=True).stdout
    order = [line.removeprefix("Path = ") for line in listing.splitlines() if line.startswith("Path = ")]
    return (FOLDER / name).read_bytes(), [(path, dict(DOCS)[path]) for path in order]


def inside(outer, members):
    return [(f"{outer}!{name}", data) for name, data in members]


PACKERS = {
    "gz": lambda data: gzip.compress(data, mtime=0),
    "bz2": bz2.compress,
    "xz": lambda data: lzma.compress(data),
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zst": lambda data: tool(["zstd", "-qc"], data),
    "lz4": lambda data: tool(["lz4", "-qc"], data),
}

# One file, plain or packed.
write("plain.txt", TEXT, [("", TEXT)])
write("plain.gz", TEXT, [("", TEXT)])
write("empty.txt", b"", [("", b"")])
for suffix, pack in PACKERS.items():
    write(f"text.txt.{suffix}", pack(TEXT), [("", TEXT)])
    write(f"noise.{suffix}", pack(NOISE), [("", NOISE)])
    write(f"empty.{suffix}", pack(b""), [("", b"")])
    write(f"docs.tar.{suffix}", pack(tar(DOCS)), DOCS)
sized = bytearray(PACKERS["lzma"](TEXT))
sized[5:13] = len(TEXT).to_bytes(8, "little")  # as 7-Zip and the LZMA SDK write it
write("sized.lzma", bytes(sized), [("", TEXT)])
# Windows that a stream of unknown size is packed with.
write("window.txt.zst", tool(["zstd", "-qc", "--long=28"], TEXT), [("", TEXT)])
(FOLDER / "largest-window.zst").write_bytes(tool(["zstd", "-qc", "--long=31"], TEXT))
parts = [b"one ", b"", TEXT, b"three"]
write("several.gz", b"".join(gzip.compress(part) for part in parts) + bytes(100), [("", b"".join(parts))])
zstd_frames = [PACKERS["zst"](part) for part in parts]
write("several.zst", b"\x53\x2a\x4d\x18\3\0\0\0abc".join(zstd_frames), [("", b"".join(parts))])
write("several.xz", b"".join(lzma.compress(part) for part in parts), [("", b"".join(parts))])

# Tar, with everything in it that is no member, and with names of all sorts.
others = [special("folder", tarfile.DIRTYPE), special("link", tarfile.SYMTYPE, "d.txt"), special("same", tarfile.LNKTYPE, "d.txt"),
          special("pipe", tarfile.FIFOTYPE), special("disk", tarfile.BLKTYPE)]
long = "folder/" * 20 + "x" * 90 + ".txt"
names = [("./dot/a.txt", "dot/a.txt"), (long, long), ("grün/日本語.txt", "grün/日本語.txt"), ("../up.txt", "../up.txt"),
         ("bell\a\x1b[31m\x7f.txt", "bell\ufffd\ufffd[31m\ufffd.txt"), ("é" * 700, "é" * 512), ("latin\udce9.txt", "latin\ufffd.txt")]
packed = [(name, str(i).encode()) for i, (name, _) in enumerate(names)]
shown = [(name, str(i).encode()) for i, (_, name) in enumerate(names)]
write("pax.tar", tar(DOCS, tarfile.PAX_FORMAT, others), DOCS)
write("gnu.tar", tar(DOCS, tarfile.GNU_FORMAT, others), DOCS)
write("ustar.tar", tar(DOCS, tarfile.USTAR_FORMAT, others), DOCS)
write("names-pax.tar", tar(packed[:-1], tarfile.PAX_FORMAT), shown[:-1])
write("names-gnu.tar", tar(packed, tarfile.GNU_FORMAT), shown)
write("nothing.tar", tar([]), [])
write("twice.tar", tar(DOCS[:2]) + tar(DOCS[2:]), DOCS)

# Other archives.
write("deflated.zip", zipped(DOCS), DOCS)
write("stored.zip", zipped(DOCS, zipfile.ZIP_STORED), DOCS)
write("bzip2.zip", zipped(DOCS, zipfile.ZIP_BZIP2), DOCS)
write("lzma.zip", zipped(DOCS, zipfile.ZIP_LZMA), DOCS)
write("large.zip", zipped(DOCS, zip64=True), DOCS)
write("names.zip", zipped(packed[1:4]), shown[1:4])
write("nothing.zip", b"PK\5\6" + bytes(18), [])
write("solid.7z", *seven("solid.7z", "-ms=on"))
write("bzip2.7z", *seven("bzip2.7z", "-m0=bzip2"))
flat = [(name.replace("docs/", ""), data) for name, data in DOCS]
write("flat.ar", ar(flat), flat)
write("linked.cpio", cpio([(1, 1, "a.txt", b"one"), (2, 2, "b.txt", b""), (2, 2, "c.txt", TEXT), (3, 1, "d.txt", b"four")]),
      [("a.txt", b"one"), ("b.txt", b""), ("c.txt", TEXT), ("d.txt", b"four")])
new_cpio = cpio([(i, 1, name, data) for i, (name, data) in enumerate(DOCS)])
write("digits.cpio", old_cpio(DOCS, "digits"), DOCS)
write("little.cpio", old_cpio(DOCS, "<"), DOCS)
write("big.cpio", old_cpio(DOCS, ">"), DOCS)
write("package.rpm", rpm(lzma.compress(new_cpio)), DOCS)
write("cpio.tar", tar([("a.cpio.gz", gzip.compress(new_cpio)), ("b.rpm", rpm(gzip.compress(new_cpio))), ("c.txt", b"c")]),
      inside("a.cpio.gz", DOCS) + inside("b.rpm", DOCS) + [("c.txt", b"c")])
# What begins as a cpio and is text.
lookalikes = [b"070701  3:15:01 it began\n" * 500, b"070702", b"070707" + b"0" * 200, b"070727, a number",
              "q\u01d0ng w\u00e8n ".encode() * 50, b"\xc7\x71 and so on" * 20, b"070701" + b"0A" * 400]
for i, text in enumerate(lookalikes):
    write(f"lookalike-{i}.cpio", text, [("", text)])
for suffix, pack in PACKERS.items():
    write(f"docs.cpio.{suffix}", pack(new_cpio), DOCS)
    write(f"lookalike.{suffix}", pack(lookalikes[0]), [("", lookalikes[0])])
    write(f"lookalikes-{suffix}.tar", tar([(f"{i}.{suffix}", pack(text)) for i, text in enumerate(lookalikes)]),
          [(f"{i}.{suffix}", text) for i, text in enumerate(lookalikes)])
write("package.deb", ar([("debian-binary", b"2.0\n"), ("control.tar.xz", lzma.compress(tar([("./control", b"Package: x\n")]))),
                         ("data.tar.xz", lzma.compress(tar([("./" + name, data) for name, data in DOCS])))]),
      [("debian-binary", b"2.0\n"), ("control.tar.xz!control", b"Package: x\n")] + inside("data.tar.xz", DOCS))

# Members without a type, as Debian's ar writes them; without a name, or one that is not what its flag says.
bare = [("debian-binary", b"2.0\n"), ("data.tar.xz", lzma.compress(tar(DOCS)))]
write("bare.deb", ar(bare, "644"), bare[:1] + inside("data.tar.xz", DOCS))
write("bare.ar", ar(flat, "644"), flat)
write("bare.cpio", cpio([(1, 1, "a.txt", b"one"), (2, 1, "b.txt", TEXT)], 0o644), [("a.txt", b"one"), ("b.txt", TEXT)])
nameless = zipped([("a.txt", b"one"), ("\u00e9.txt", TEXT), ("zz.txt", b"three"), ("b/\u00e9.txt", b"four")])
nameless = nameless.replace("\u00e9".encode(), b"\xc3(").replace(b"zz.txt", b"\0z.txt")
unnamed = [("a.txt", b"one"), ("member 2", TEXT), ("member 3", b"three"), ("member 4", b"four")]
write("nameless.zip", nameless, unnamed)
nameless_tar = tar([("a.txt", b"one"), ("", TEXT), ("./", b""), ("in.zip", nameless), ("", b"five"), ("last.txt", b"last")],
                   tarfile.USTAR_FORMAT)
unnamed_tar = ([("a.txt", b"one"), ("member 2", TEXT)] + inside("in.zip", unnamed) + [("member 4", b"five"), ("last.txt", b"last")])
write("nameless.tar", nameless_tar, unnamed_tar)
write("nameless.tar.gz", gzip.compress(nameless_tar), unnamed_tar)

# Archives within archives: as OpenWebText is, members that are packed alone, names that lie.
subsets = [(f"openwebtext/urlsf_{i}_data.xz", [(f"{i}-{k}.txt", TEXT[i * 100 + k:]) for k in range(3)]) for i in range(4)]
write("openwebtext.tar", tar([(name, lzma.compress(tar(members))) for name, members in subsets]),
      [member for name, members in subsets for member in inside(name, members)])
mixed = [("a.zip", zipped(DOCS)), ("b.txt.gz", gzip.compress(TEXT)), ("lie.gz", b"not gzip"), ("no-lie.txt", gzip.compress(TEXT)),
         ("c.tar.zst", PACKERS["zst"](tar([("deep.zip", zipped(DOCS)), ("e.xz", b"")])))]
unmixed = (inside("a.zip", DOCS) + [("b.txt.gz", TEXT), ("lie.gz", b"not gzip"), mixed[3]] + inside("c.tar.zst!deep.zip", DOCS) +
           [("c.tar.zst!e.xz", b"")])
write("mixed.tar", tar(mixed), unmixed)
write("mixed.zip", zipped(mixed), unmixed)
write("mixed.tar.gz", gzip.compress(tar(mixed)), unmixed)

# Those that have to be sought in, as members and packed themselves. A zip that was written to a pipe has its sizes behind what is stored.
class Pipe(io.BytesIO):
    def seekable(self):
        return False

    def seek(self, *_):
        raise OSError

    tell = seek


def piped(members):
    out = Pipe()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return out.getvalue()


solid, solid_members = (FOLDER / "solid.7z").read_bytes(), seven("again.7z", "-ms=on")[1]
sought = [("docs.7z", solid), ("x/piped.zip", piped(DOCS)), ("docs.7z.xz", lzma.compress(solid)),
          ("b.zip.gz.bz2", bz2.compress(gzip.compress(zipped(DOCS)))), ("lie.zip.gz", gzip.compress(TEXT)), ("lie.7z", TEXT),
          ("e.zip.xz", lzma.compress(b"")), ("last.txt", b"last")]
found = (inside("docs.7z", solid_members) + inside("x/piped.zip", DOCS) + inside("docs.7z.xz", solid_members) +
         inside("b.zip.gz.bz2", DOCS) + [("lie.zip.gz", TEXT), ("lie.7z", TEXT), ("e.zip.xz", b""), ("last.txt", b"last")])
write("sought.tar", tar(sought), found)
write("sought.tar.gz", gzip.compress(tar(sought)), found)
write("sought.zip", zipped(sought), found)
write("in-zip.7z.gz", gzip.compress(solid), solid_members)
write("docs.zip.xz", lzma.compress(zipped(DOCS)), DOCS)
twice = [("one.tar.xz", lzma.compress(tar([("two.zip", zipped([("three.7z", solid), ("piped.zip", piped(DOCS))])), ("after.txt", TEXT)])))]
write("within.tar", tar(twice), inside("one.tar.xz!two.zip!three.7z", solid_members) + inside("one.tar.xz!two.zip!piped.zip", DOCS) +
      [("one.tar.xz!after.txt", TEXT)])

# Holes: zeros that have no bytes in the archive.
holes = sparse_tar("holes.txt", [(1000, 4), (9000, 3)], b"one two")
write("holes.tar", holes, [("before.txt", b"before"), ("holes.txt", bytes(1000) + b"one " + bytes(7996) + b"two"), ("after.txt", b"after")])
write("no-hole.tar", sparse_tar("a.txt", [(0, 4)], b"text"), [("before.txt", b"before"), ("a.txt", b"text"), ("after.txt", b"after")])
(FOLDER / "endless.tar").write_bytes(sparse_tar("a.txt", [(1 << 60, 4)], b"text"))
(FOLDER / "endless-later.tar").write_bytes(sparse_tar("a.txt", [(0, 4), (1 << 60, 3)], b"one two"))
(FOLDER / "endless-packed.tar").write_bytes(sparse_tar("a.tar", [(1 << 60, 4)], b"text"))

# Bytes before and behind an archive: how many, its name says.
def zip64(archive):
    """The same zip with an end record of 64 bits, and nothing in the one of 32."""
    end = len(archive) - 22
    count, size, offset = struct.unpack("<10xHII", archive[end:-2])
    more = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, offset)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, end, 1)
    return archive[:end] + more + locator + b"PK\5\6" + struct.pack("<4H2IH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)


def around(name, before, archive, behind, members):
    write(f"{len(before)}-{len(behind)}-{name}", before + archive + behind, members)
    (FOLDER / f"{len(before)}-{len(behind)}-{name}.members").rename(FOLDER / f"{len(before)}-{len(behind)}-{name}.around")


deflated, one = zipped(DOCS), zipped([("one.txt", b"one")])
stored = [("a.zip", one), ("b.txt", b"b"), ("c.dat", one)]  # the last one has a directory that is not the archive's
restored = inside("a.zip", [("one.txt", b"one")]) + stored[1:]
commented = one[:-2] + struct.pack("<H", 20000) + TEXT[:20000]
write("zip64.zip", zip64(deflated), DOCS)
write("commented.zip", commented, [("one.txt", b"one")])
write("divided.zip", b"PK00" + deflated, DOCS)
write("filled.zip", deflated + bytes(700), DOCS)
write("filled.7z", solid + bytes(1), solid_members)
around("tail.zip", b"", deflated, b"a", DOCS)
around("long-tail.zip", b"", zipped(stored, zipfile.ZIP_STORED), TEXT[:36000], restored)
around("stub.zip", TEXT[:70000], deflated, b"", DOCS)
around("both.zip", TEXT[:100], zipped(stored, zipfile.ZIP_STORED), TEXT[:500], restored)
around("two.zip", one, deflated, b"", DOCS)
around("two-commented.zip", b"", deflated, commented, DOCS)
around("tail-64.zip", b"", zip64(deflated), TEXT[:300], DOCS)
around("tail.7z", b"", solid, TEXT[:11], solid_members)
around("two.7z", b"", solid, solid, solid_members)
copied = cpio([(1, 1, "a.txt", b"one")])
write("filled.cpio", copied + bytes(512), [("a.txt", b"one")])
around("two.cpio", b"", copied, cpio([(1, 1, "b.txt", b"two")]), [("a.txt", b"one")])
(FOLDER / "around.tar").write_bytes(tar([("two.zip", one + deflated + b"behind"), ("docs.7z.xz", lzma.compress(solid + b"behind")),
                                         ("last.txt", b"last")]))

# What cannot be read; the tests say what must come of each.
dictionary = bytes.fromhex("28b52ffd 21 07 05 290000") + b"hello"  # number 7
other_flags = b"\1\4"  # of an xz that nobody makes
(FOLDER / "dictionary.zst").write_bytes(dictionary)
for name, content in (("few.zst", PACKERS["zst"](b"first") + dictionary), ("text.zst", PACKERS["zst"](TEXT) + dictionary),
                      ("noise.zst", PACKERS["zst"](NOISE) + dictionary), ("docs.tar.zst", PACKERS["zst"](tar(DOCS)) + dictionary),
                      ("cut.tar.zst", PACKERS["zst"](tar(DOCS)[:512 + 3]) + dictionary),
                      ("text.xz", lzma.compress(TEXT) + b"\xfd7zXZ\0" + other_flags + zlib.crc32(other_flags).to_bytes(4, "little")),
                      ("inside.tar", tar([("first.txt", b"first"), ("text.zst", PACKERS["zst"](TEXT) + dictionary)]))):
    (FOLDER / f"refused-{name}").write_bytes(content)
for suffix, pack in PACKERS.items():
    (FOLDER / f"cut.{suffix}").write_bytes(pack(NOISE)[:200_000])
    flipped = bytearray(pack(NOISE))
    flipped[150_000] ^= 4
    (FOLDER / f"flipped.{suffix}").write_bytes(flipped)
for suffix, at in (("gz", -8), ("gz", -4), ("zst", -4), ("lz4", -4)):  # of the check value alone, or gzip's length
    unfit = bytearray(PACKERS[suffix](NOISE))
    unfit[at] ^= 4
    (FOLDER / f"unfit{at}.{suffix}").write_bytes(unfit)
unfit = bytearray(zipped([("a.txt", NOISE)]))
for magic, at in ((b"PK\3\4", 14), (b"PK\1\2", 16)):
    unfit[unfit.rindex(magic) + at] ^= 4  # after that of docs/
(FOLDER / "unfit.zip").write_bytes(unfit)
for suffix in "gz", "zst":
    (FOLDER / f"more.{suffix}").write_bytes(PACKERS[suffix](TEXT) + b"something else")
(FOLDER / "more.tar.gz").write_bytes(gzip.compress(tar(DOCS)) + b"something else")
deep = b"bottom"
for depth in range(9):
    deep = tar([("a.txt" if depth == 0 else "a.tar", deep)])
    (FOLDER / f"deep-{depth + 1}.tar").write_bytes(deep)
(FOLDER / "deep-between.tar").write_bytes(tar([("first.txt", b"first"), ("a.tar", deep), ("last.txt", b"last")]))
(FOLDER / "inner.tar").write_bytes(tar([("docs.dat.gz", gzip.compress(solid))]))
folder = zipped([("docs/not/", b"a folder that holds this\n"), ("last.txt", b"last")])
(FOLDER / "folder.zip").write_bytes(folder)
seven("names-encrypted.7z", "-pword", "-mhe=on")
seven("encrypted.7z", "-pword")
(FOLDER / "secret.txt").write_bytes(TEXT)
(FOLDER / "open.txt").write_bytes(b"open")
subprocess.run(["zip", "-q", "-P", "word", "encrypted.zip", "secret.txt"], cwd=FOLDER, check=True)
subprocess.run(["zip", "-q", "encrypted.zip", "open.txt"], cwd=FOLDER, check=True)
(FOLDER / "bomb.xz").write_bytes(tool(["sh", "-c", "yes | head -c 100000000 | xz -0"], b""))
(FOLDER / "eight.zip").write_bytes(zipped([(f"{i}.bin", random.Random(i).randbytes(1 << 20)) for i in range(8)], zipfile.ZIP_STORED))
(FOLDER / "eight.tar").write_bytes(tar([(f"{i}.bin", random.Random(i).randbytes(1 << 20)) for i in range(8)]))
