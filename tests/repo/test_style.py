"""What every file keeps to: CONTRIBUTING.md says why. As in test_layers.py, every check is also shown what it must find."""
import re
import shutil
import subprocess

import pytest

COLUMNS_MAX = 140
LINES_MAX = 800
C_FILES = (".c", ".h")
CODE = C_FILES + (".py", ".proto", ".sh", ".service", ".yaml", ".ini")
# Spelled in two halves, so that this file does not break its own rule.
UNFINISHED = re.compile(r"\b(" + "|".join(a + b for a, b in (("TO", "DO"), ("FIX", "ME"), ("X", "XX"), ("HA", "CK"))) + r")\b")
REGISTRY = re.compile(r"\b(" + "|".join(re.escape(host) for host in (
    "deb." "debian.org", "security." "debian.org", "snapshot." "debian.org", "registry." "npmjs.org", "files." "pythonhosted.org",
    "pypi." "org", "proxy." "golang.org", "crates." "io")) + r")\b")


def tracked(root):
    """Every text file of the project, except data."""
    names = []
    if shutil.which("git"):
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = [name for name in subprocess.run(command, cwd=root, capture_output=True, text=True).stdout.split("\0") if name]
    if not names:  # no git here, or not a clone: everything that is not an output
        names = [str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()]
        names = [name for name in names if name.split("/")[0] not in (".git", "build", "corpus", "runs")]
    for name in sorted(set(names)):
        path = root / name
        if not path.is_file() or name == "dataset/tokenizer/gpt2_vocab.bpe" or name.startswith("tests/oracle/golden"):
            continue
        try:
            yield name, path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue


def long_lines(name, text):
    if name.endswith(CODE) or name == "Makefile":
        for number, line in enumerate(text.splitlines(), 1):
            if len(line) > COLUMNS_MAX:
                yield f"{name}:{number}: {len(line)} characters, at most {COLUMNS_MAX}"


def long_files(name, text):
    if name.endswith(CODE) and text.count("\n") > LINES_MAX:
        yield f"{name}: {text.count(chr(10))} lines, at most {LINES_MAX}: look for the second noun inside"


def tabs(name, text):
    if name.endswith(CODE) and "\t" in text:
        yield f"{name}:{text[:text.index(chr(9))].count(chr(10)) + 1}: a tab"


def unfinished(name, text):
    for number, line in enumerate(text.splitlines(), 1):
        found = UNFINISHED.search(line)
        if found and name != "LICENSE":
            yield f"{name}:{number}: {found.group(1)}"


def without_opening(name, text):
    if name.endswith(C_FILES) and not re.match(r"\s*(/\*|//)", text):
        yield f"{name}: does not begin with a comment that says what it owns and why it exists"


def registries(name, text):
    """Where packages come from is the machine's own business."""
    for number, line in enumerate(text.splitlines(), 1):
        found = REGISTRY.search(line)
        if found:
            yield f"{name}:{number}: names {found.group(1)}"


def untidy_ends(name, text):
    if name.endswith(CODE + (".md",)) or name == "Makefile":
        for number, line in enumerate(text.splitlines(), 1):
            if line != line.rstrip():
                yield f"{name}:{number}: white space at the end of the line"
        if text and not text.endswith("\n"):
            yield f"{name}: no newline at the end"


RULES = [long_lines, long_files, tabs, unfinished, without_opening, registries, untidy_ends]


@pytest.mark.parametrize("rule", RULES)
def test_every_file_keeps(rule, root):
    files = list(tracked(root))
    assert any(name == "base/err.h" for name, _ in files)
    violations = [violation for name, text in files for violation in rule(name, text)]
    if violations:
        pytest.fail("\n".join(violations), pytrace=False)


@pytest.mark.parametrize("rule, name, good, bad", [
    (long_lines, "base/a.c", "x" * COLUMNS_MAX + "\n", "\n" + "x" * (COLUMNS_MAX + 1)),
    (long_lines, "Makefile", "", "x" * (COLUMNS_MAX + 1)),
    (long_files, "base/a.c", "\n" * LINES_MAX, "\n" * (LINES_MAX + 1)),
    (tabs, "base/a.h", "a b\n", "a\tb\n"),
    (unfinished, "docs/A.md", "mktemp /tmp/a-" + "X" * 6, "// TO" "DO: later"),
    (unfinished, "tests/a.py", "a hacksaw", "# HA" "CK"),
    (without_opening, "base/a.c", "/* Errors. */\n#include <errno.h>\n", "#include <errno.h>\n"),
    (registries, "deploy/a.sh", "apt-get update", "curl https://pypi" ".org/simple"),
    (untidy_ends, "base/a.c", "a\n", "a \n"),
    (untidy_ends, "docs/A.md", "", "a"),
])
def test_what_breaks_a_rule_is_found(rule, name, good, bad):
    assert list(rule(name, good)) == []
    assert len(list(rule(name, bad))) == 1


def test_new_files_are_looked_at_too(tmp_path):
    if shutil.which("git"):
        subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "a.c").write_text("a\tb\n")
    assert [name for name, _ in tracked(tmp_path)] == ["base/a.c"]
