#!/usr/bin/env bash
# setup.sh GROUP...: installs the Debian packages that the named groups need and this machine lacks.
#
# With nothing missing it says nothing, needs no network and no rights: `make run` and `make test` call it every time. Otherwise it runs
# apt-get as root (through sudo where there is one). docs/DEPENDENCIES.md says what each package is for; tests/repo compares the two.
set -eu

# Building and running millrace. The pthread build of OpenBLAS and no other: see docs/DEPENDENCIES.md.
run="gcc libc6-dev make pkg-config protobuf-c-compiler libprotobuf-c-dev libzmq3-dev libzstd-dev libopenblas-pthread-dev libyaml-dev
     libsqlite3-dev libjansson-dev libxxhash-dev libssl-dev libarchive-dev zlib1g-dev liblzma-dev
     libbz2-dev libcurl4-openssl-dev libutf8proc-dev libpcre2-dev"
# Running the tests.
test="libcmocka-dev python3 python3-pytest python3-hypothesis python3-numpy zstd xz-utils bzip2 lz4 zip p7zip-full"
# Trying what is written with programs from PyPI.
outside="python3 python3-venv"
# Comparing speed and quality with PyTorch and other tools.
bench="python3 python3-torch python3-venv zstd"
# Working on the code.
develop="clang clang-format clang-tidy libclang-rt-dev valgrind cppcheck"

say() { echo "setup: $*" >&2; }

wanted=
for group in "$@"; do
    case $group in
    run | test | outside | bench | develop) wanted="$wanted ${!group}" ;;
    *) say "unknown group '$group'; there are run, test, outside, bench and develop"; exit 2 ;;
    esac
done
[ -n "$wanted" ] || { say "name the groups to install: run, test, outside, bench, develop"; exit 2; }

if ! command -v dpkg-query >/dev/null; then
    say "this is not a Debian system; install the equivalents of these packages, then call 'make' directly:"
    say $wanted
    exit 1
fi

installed=" $(dpkg-query -W -f='${db:Status-Status} ${Package}\n' $wanted 2>/dev/null | sed -n 's/^installed //p' | tr '\n' ' ')"
missing=
for package in $wanted; do
    case "$installed$missing " in
    *" $package "*) ;;
    *) missing="$missing $package" ;;
    esac
done
[ -n "$missing" ] || exit 0

as_root=
if [ "$(id -u)" != 0 ]; then
    as_root=sudo
    [ -t 0 ] || as_root="sudo -n"
    if ! command -v sudo >/dev/null || ! $as_root true; then
        say "these packages are missing, and installing them needs root:$missing"
        say "as root: apt-get update && apt-get install --no-install-recommends$missing"
        exit 1
    fi
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
step() {  # step WHAT COMMAND...: its output is shown only when it fails
    local what=$1 begin=$SECONDS
    shift
    say "$what ..."
    if ! $as_root env DEBIAN_FRONTEND=noninteractive "$@" >"$log" 2>&1 </dev/null; then
        tail -n 20 "$log" >&2
        say "$what failed; the last lines of '$*' are above"
        say "still needed:$missing"
        exit 1
    fi
    say "$what: done in $((SECONDS - begin)) s"
}
say "missing:$missing"
step "reading the package lists" apt-get -o DPkg::Lock::Timeout=120 -o APT::Update::Error-Mode=any update
step "installing" apt-get -o DPkg::Lock::Timeout=120 install -y --no-install-recommends $missing
