"""The Makefile rebuilds what a change affects, and nothing else; its targets explain themselves; the set-up scripts are quiet and clear."""
import os
import re
import shutil
import subprocess

import pytest

FILES = {
    "base/err.h": "enum { ONE = 1 };\n",
    "base/err.c": '#include "base/err.h"\nint err_one(void);\nint err_one(void) { return ONE; }\n',
    "base/log.c": "int log_two(void);\nint log_two(void) { return 2; }\n",
    "base/wire.c": '#include "proto/millrace.pb-c.h"\nint wire_three(void);\nint wire_three(void) { return 3; }\n',
}


def call(command, folder, **more):
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS", "CFLAGS", "BUILD"))}
    return subprocess.run(command, cwd=folder, env={**environment, **more}, capture_output=True, text=True, timeout=100)


@pytest.fixture
def project(tmp_path, root):
    """A small project under the real Makefile. make() builds its lowest library and returns the sources that were compiled."""
    shutil.copy(root / "Makefile", tmp_path)
    shutil.copytree(root / "proto", tmp_path / "proto", ignore=shutil.ignore_patterns("*.[ch]"))
    (tmp_path / "base").mkdir()
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)

    def make(*arguments):
        done = call(["make", "build/libbase.a", *arguments], tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
        return sorted(re.findall(r"^ +compile +(\S+)$", done.stdout, flags=re.M))

    assert make() == ["base/err.c", "base/log.c", "base/wire.c"]
    assert make() == []
    return tmp_path, make


def touch(path):
    """Newer than everything, whatever the clock's grain."""
    later = max(os.stat(os.path.join(folder, name)).st_mtime for folder, _, names in os.walk(path.parents[1]) for name in names) + 1
    os.utime(path, (later, later))


def test_a_header_rebuilds_those_who_include_it(project):
    folder, make = project
    touch(folder / "base" / "err.h")
    assert make() == ["base/err.c"]


def test_the_schema_rebuilds_those_who_include_its_header(project):
    folder, make = project
    touch(folder / "proto" / "millrace.proto")
    assert make() == ["base/wire.c"]


def test_other_flags_rebuild_everything_once(project):
    _, make = project
    assert len(make("CFLAGS=-O0")) == 3
    assert make("CFLAGS=-O0") == []
    assert len(make("CFLAGS=-O0", "CC=gcc -fno-common")) == 3


def test_the_makefile_rebuilds_everything(project):
    folder, make = project
    touch(folder / "Makefile")
    assert len(make()) == 3


def test_sources_that_come_and_go_change_the_library(project):
    folder, make = project

    def members():
        return sorted(call(["ar", "t", "build/libbase.a"], folder).stdout.split())

    (folder / "base" / "new.c").write_text("int new_four(void);\nint new_four(void) { return 4; }\n")
    assert make() == ["base/new.c"]
    assert members() == ["err.o", "log.o", "new.o", "wire.o"]
    (folder / "base" / "new.c").unlink()
    assert make() == []
    assert members() == ["err.o", "log.o", "wire.o"]
    (folder / "base" / "err.h").unlink()  # a header that is gone is no reason to stop
    (folder / "base" / "err.c").write_text("int err_one(void);\nint err_one(void) { return 1; }\n")
    assert make() == ["base/err.c"]


def test_without_packages_the_build_says_what_to_do(project):
    folder, _ = project
    tools = folder / "tools"
    tools.mkdir()
    for name in ("sh", "mkdir", "printf", "touch", "make", "rm"):
        (tools / name).symlink_to(shutil.which(name))
    shutil.rmtree(folder / "build")
    done = call(["make", "build/libbase.a"], folder, PATH=str(tools))
    assert done.returncode != 0 and "make setup" in done.stderr


def test_the_binary_is_hardened(root):
    """Position independent; its tables read-only before main(); checked stack frames and buffers."""
    binary = os.path.join(os.environ.get("MILLRACE_BUILD") or root / "build", "millrace")
    told = call(["readelf", "--wide", "-h", "-l", "-d", "--dyn-syms", binary], root).stdout
    assert re.search(r"Type: +DYN", told) and "GNU_RELRO" in told and re.search(r"FLAGS_1.* NOW.*PIE", told)
    assert re.search(r"GNU_STACK.* RW +0x", told), "the stack can be executed"
    assert "__stack_chk_fail" in told and "__memcpy_chk" in told


def phony(text):
    return {name for names in re.findall(r"^\.PHONY:(.*)$", text, flags=re.M) for name in names.split()} - {"force"}


def test_help_lists_every_target_for_people(root):
    text = (root / "Makefile").read_text()
    done = call(["make", "help"], root)
    listed = dict(re.findall(r"^  (\S+) +(\S.*)$", done.stdout, flags=re.M))
    assert phony(text) == set(listed)
    assert all(len(comment) > 10 for comment in listed.values())
    assert set(listed) >= set("all run test setup debug asan tsan fmt lint install unit-tests bench docs clean help".split())


def test_setup_is_silent_when_nothing_is_missing(root):
    done = call([root / "deploy" / "setup.sh", "run", "test"], root)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def packages_missing(folder):
    """A machine on which nothing is installed and apt-get cannot reach anything."""
    tools = folder / "tools"
    tools.mkdir()
    for name, script in (("dpkg-query", "exit 1"), ("apt-get", "echo E: no network; exit 100"), ("id", "echo 0")):
        (tools / name).write_text(f"#!/bin/sh\n{script}\n")
        (tools / name).chmod(0o755)
    return f"{tools}:{os.environ['PATH']}"


def test_setup_that_cannot_install_names_the_packages(root, tmp_path):
    done = call([root / "deploy" / "setup.sh", "run"], tmp_path, PATH=packages_missing(tmp_path))
    assert done.returncode == 1
    assert "E: no network" in done.stderr and "libopenblas-pthread-dev" in done.stderr.splitlines()[-1]


def test_setup_without_rights_says_what_root_should_type(root, tmp_path):
    path = packages_missing(tmp_path)
    for name, script in (("id", "echo 1000"), ("sudo", "exit 1")):
        (tmp_path / "tools" / name).write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "tools" / name).chmod(0o755)
    done = call([root / "deploy" / "setup.sh", "test"], tmp_path, PATH=path)
    assert done.returncode == 1 and "apt-get install --no-install-recommends libcmocka-dev" in done.stderr.splitlines()[-1]


def test_example_text_that_is_there_is_left_alone(root, tmp_path):
    path = packages_missing(tmp_path)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("text")
    done = call([root / "deploy" / "example-corpus.sh", "mine"], tmp_path, PATH=path)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_example_text_out_of_reach_says_what_to_do_and_leaves_nothing(root, tmp_path):
    path = packages_missing(tmp_path)
    done = call([root / "deploy" / "example-corpus.sh", "corpus"], tmp_path, PATH=path)
    assert done.returncode == 1 and "put any plain text files into corpus/" in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["tools"]
