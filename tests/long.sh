#!/bin/sh
# Checks that take hours, or that only some changes need.
#
#   usage: sh tests/long.sh mutants [FILE...]
#
# mutants: changes the Dockerfile language, one operator or function at a time, and expects its tests
#          to notice. FILEs, e.g. src/expand.rs, narrow it down. Installs cargo-mutants below target/
#          if it is not on PATH. Mutants that change nothing are listed in .cargo/mutants.toml, with
#          the reason; what survives besides is a missing case.
set -eu
. "$(dirname -- "$0")/lib.sh"

cd "$root"
tools=$root/target/tools
PATH=$PATH:$tools/bin
export PATH

mutants() {
    crate=frontends/dockerfile/lang
    have cargo-mutants ||
        CARGO_TARGET_DIR=$tools/build cargo install --locked --root "$tools" cargo-mutants
    for file in "$@"; do
        shift
        set -- "$@" --file "$crate/$file"
    done
    mkdir -p target/mutants
    # One at a time and without optimisation: a mutant is compiled far longer than it is run.
    CARGO_PROFILE_TEST_OPT_LEVEL=0 CARGO_PROFILE_DEV_OPT_LEVEL=0 nice cargo mutants \
        --package wbuild-dockerfile --jobs 1 --minimum-test-timeout 6 --no-shuffle \
        --cargo-arg=--lib --cargo-arg=--test=golden --output target/mutants "$@"
}

case ${1-} in
mutants)
    shift
    mutants "$@"
    ;;
*)
    sed -n 's/^#   usage/usage/p' "$0" >&2
    exit 2
    ;;
esac
