"""The test harness can fail: made-up test programs that pass, fail, skip, crash, hang or lie, and what is made of them."""

import os
import re
import shutil
import subprocess
import sys

import pytest

SOURCE = (
    "const struct CMUnitTest tests[] = {cmocka_unit_test(one), cmocka_unit_test_setup_teardown(two, a, b), cmocka_unit_test(three)};\n"
)
PASSES = "echo '[ RUN      ] one'; echo '[       OK ] one'\n"


@pytest.fixture
def session(tmp_path, root):
    """Runs the harness over one made-up test program; returns exit code, last line and everything printed."""
    folder = tmp_path / "tests" / "unit" / "base"
    folder.mkdir(parents=True)
    for name in ("conftest.py", "lanes.py", "pytest.ini"):
        shutil.copy(root / "tests" / name, tmp_path / "tests" / name)
    (folder / "made_up.c").write_text(SOURCE)

    def run(script, *arguments, patience="1", programs=True, lanes="1"):
        program = tmp_path / "build" / "tests" / "base" / "made_up"
        if programs:
            program.parent.mkdir(parents=True, exist_ok=True)
            program.write_text("#!/bin/sh\n" + script)
            program.chmod(0o755)
        environment = dict(os.environ, PYTEST_DISABLE_PLUGIN_AUTOLOAD="1", MILLRACE_BUILD=str(tmp_path / "build"))
        environment.update(MILLRACE_TEST_PATIENCE=patience, MILLRACE_TEST_LANES=lanes)
        done = subprocess.run(
            [sys.executable, "-B", "-m", "pytest", "-c", "tests/pytest.ini", *(arguments or ["tests"])],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout.splitlines()[-1], done.stdout

    return run


def test_all_passed(session):
    code, last, _ = session("for t in one two three; do echo \"[ RUN      ] $t\"; echo \"text [       OK ] $t\"; done")
    assert (code, last) == (0, "3 passed, 0 failed, 0 skipped")


def test_failed_and_skipped_with_their_texts(session):
    code, last, text = session(
        PASSES + "echo '[ RUN      ] two'; echo '[  ERROR   ] --- 0x1 != 0x2'; echo 'printed[  FAILED  ] two'\n"
        "echo '[ RUN      ] three'; echo 'no data here'; echo '[  SKIPPED ] three'\n"
        "echo '[  FAILED  ] 1 test(s), listed below:'; echo '[  FAILED  ] two'; exit 1"
    )
    assert (code, last) == (1, "1 passed, 1 failed, 1 skipped")
    assert "0x1 != 0x2" in text and "no data here" in text


def test_a_crash_names_test_and_signal(session):
    code, last, text = session(PASSES + "echo '[ RUN      ] two'; kill -ABRT $$")
    assert (code, last) == (1, "1 passed, 2 failed, 0 skipped")
    assert "was killed by SIGABRT in this test" in text and "was killed by SIGABRT in two" in text


def test_a_program_that_hangs_is_stopped(session):
    code, last, text = session(PASSES + "echo '[ RUN      ] two'; sleep 50", patience="0.002")
    assert (code, last) == (1, "1 passed, 2 failed, 0 skipped")
    assert "was stopped after 1.2 s" in text


def test_a_failure_after_the_last_test_counts(session):
    code, last, text = session("for t in one two three; do echo \"[ RUN      ] $t\"; echo \"[       OK ] $t\"; done; echo LEAKED; exit 23")
    assert (code, last) == (1, "2 passed, 1 failed, 0 skipped")
    assert "LEAKED" in text and "exit code 23" in text


def test_a_program_that_was_not_built_fails(session):
    code, last, text = session("", programs=False)
    assert (code, last) == (1, "0 passed, 3 failed, 0 skipped")
    assert "make unit-tests" in text


def test_nothing_tested_is_not_a_success(session):
    everything_skipped = "for t in one two three; do echo \"[ RUN      ] $t\"; echo \"[  SKIPPED ] $t\"; done"
    assert session(everything_skipped)[:2] == (1, "0 passed, 0 failed, 3 skipped")
    code, last, _ = session(everything_skipped, "tests", "-k", "no_such_test")
    assert code != 0 and last == "0 passed, 0 failed, 0 skipped"


def test_a_file_without_tests_or_with_a_test_twice_is_an_error(session, tmp_path):
    for source in ("int main(void) { return 0; }\n", SOURCE.replace("three", "one"), "/* " + SOURCE.strip() + " */\n"):
        (tmp_path / "tests" / "unit" / "base" / "made_up.c").write_text(source)
        code, last, _ = session("exit 0")
        assert code != 0 and last == "0 passed, 1 failed, 0 skipped"


def test_python_tests_have_a_limit_too(session, tmp_path):
    (tmp_path / "tests" / "test_slow.py").write_text("import time, pytest\n@pytest.mark.seconds(50)\ndef test_it():\n    time.sleep(30)\n")
    code, last, text = session("exit 0", "tests/test_slow.py", patience="0.01")
    assert (code, last) == (1, "0 passed, 1 failed, 0 skipped")
    assert "took longer than 0.5 s" in text


# ---- Lanes ---------------------------------------------------------------------------------------------------------------------

SHARED = """
import os, pathlib, time, pytest
HERE = pathlib.Path(__file__).parent

@pytest.fixture(scope="session")
def note():
    made = HERE / f"made-{os.getpid()}"
    made.touch()
    yield lambda name: (HERE / name).touch()
    made.rename(HERE / f"gone-{os.getpid()}")

@pytest.fixture(scope="session")
def meet():
    def meet(name):
        until = time.monotonic() + 30
        while not (HERE / name).exists():
            assert time.monotonic() < until, f"{name} is not there"
            time.sleep(0.01)
    return meet
"""


@pytest.fixture
def plant(tmp_path):
    def plant(**files):
        folder = tmp_path / "tests" / "lanes"
        folder.mkdir()
        (folder / "conftest.py").write_text(SHARED)
        for name, text in files.items():
            (folder / f"test_{name}.py").write_text(text)
        return folder

    return plant


def test_two_files_are_tested_at_once_and_each_lane_tears_down_what_it_made(session, plant):
    folder = plant(
        a="def test_1(note, meet): note('a'); meet('b')\ndef test_2(note): assert 0, 'told by a'\n",
        b="def test_1(note, meet): note('b'); meet('a')\nimport pytest\ndef test_2(note): pytest.skip('no data')\n",
        c="def test_1(note, tmp_path): pass\n",
    )
    code, last, text = session("exit 0", "tests/lanes", lanes="2")
    assert (code, last) == (1, "3 passed, 1 failed, 1 skipped")
    assert "told by a" in text and "no data" in text
    assert len(list(folder.glob("gone-*"))) == 2 and not list(folder.glob("made-*"))


def test_a_lane_that_dies_fails_its_tests_and_the_others_go_on(session, plant):
    plant(
        a="import os\ndef test_1(): pass\ndef test_2(): os.kill(os.getpid(), 9)\ndef test_3(): pass\n",
        b="def test_1(): pass\n",
        c="def test_1(): pass\n",
    )
    code, last, text = session("exit 0", "tests/lanes", lanes="2")
    assert (code, last) == (1, "3 passed, 2 failed, 0 skipped")
    assert "a lane did not end well:\nkilled by SIGKILL" in text


def test_when_all_lanes_died_the_rest_has_failed(session, plant):
    plant(**{name: "import os\ndef test_1(): os._exit(7)\n" for name in "abcd"})
    code, last, text = session("exit 0", "tests/lanes", lanes="2")
    assert (code, last) == (1, "0 passed, 4 failed, 0 skipped")
    assert "exit code 7" in text


def test_what_fails_when_a_lane_tears_down_is_told(session, plant):
    folder = plant(a="def test_1(note, meet): note('a'); meet('b')\n", b="def test_1(broken, note, meet): note('b'); meet('a')\n")
    with open(folder / "conftest.py", "a") as file:
        file.write("\n@pytest.fixture(scope='session')\ndef broken():\n    yield\n    assert 0, 'left over'\n")
    code, last, text = session("exit 0", "tests/lanes", lanes="2")
    assert (code, last) == (1, "2 passed, 1 failed, 0 skipped")
    assert "left over" in text


def test_an_interrupted_session_takes_its_lanes_along(session, plant):
    folder = plant(**{name: f"import time\ndef test_1(note): note('{name}'); time.sleep(60)\n" for name in "ab"})
    (folder / "test_c.py").write_text(
        "import os, signal\ndef test_1(note, meet): meet('a'); meet('b'); os.kill(os.getppid(), signal.SIGINT); meet('never')\n"
    )
    code, _, _ = session("exit 0", "tests/lanes", lanes="3")
    assert code == pytest.ExitCode.INTERRUPTED
    assert len(list(folder.glob("gone-*"))) == 3 and not list(folder.glob("made-*"))


# ---- The last line of continuous integration -----------------------------------------------------------------------------------

def test_ci_ends_with_the_counts(tmp_path, root):
    (tmp_path / ".ci").mkdir()
    shutil.copy(root / ".ci" / "run", tmp_path / ".ci" / "run")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MAKE")}
    for recipe, code, last in (
        ("echo 3 passed, 0 failed, 1 skipped", 0, "3 passed, 0 failed, 1 skipped"),
        ("echo 2 passed, 1 failed, 0 skipped; exit 1", 1, "2 passed, 1 failed, 0 skipped"),
        ("echo error: it does not build; exit 1", 1, "0 passed, 1 failed, 0 skipped"),
    ):
        (tmp_path / "Makefile").write_text(f"test:\n\t@{recipe}\n")
        done = subprocess.run([tmp_path / ".ci" / "run"], env=environment, capture_output=True, text=True, timeout=120)
        assert (done.returncode, done.stdout.splitlines()[-1]) == (code, last)
        assert re.search("passed", done.stdout)
