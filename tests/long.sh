#!/bin/sh
# Checks that take minutes to hours, or that only some changes need. No part of tests/run.sh.
#
#   usage: sh tests/long.sh mutants [FILE...]
#          sh tests/long.sh fuzz [MINUTES [TARGET...]]
#          sh tests/long.sh fuzz-keep TARGET...
#          sh tests/long.sh wild
#          sh tests/long.sh network
#          sh tests/long.sh races
#          sh tests/long.sh languages
#          sh tests/long.sh systems
#          sh tests/long.sh simulation [SEEDS [FIRST]]
#          sh tests/long.sh hostile [MOMENTS]
#          sh tests/long.sh crash [NAME=NUMBER...]
#
# mutants: changes the languages and the ignore matcher, one operator or function at a time,
#          and expects their tests to notice. FILEs, e.g. frontends/ignore/src/glob.rs, narrow it
#          down. Installs cargo-mutants below target/ if it is not on PATH. Mutants that change nothing
#          are listed in .cargo/mutants.toml, with the reason; what survives besides is a missing case.
# fuzz:    makes up input for the parts of the languages, layers, documents of images and caches, frames of
#          plugins' processes,
#          and expects what tests/fuzz checks to hold, MINUTES (10) for each TARGET. What fails stays
#          in target/fuzz/TARGET-failed; copied to tests/fuzz/corpus/TARGET it is checked by every
#          `cargo test`.
# fuzz-keep: makes a small corpus of what `fuzz` has found, in target/fuzz/TARGET-kept.
# wild:    parses, checks and lowers the Dockerfiles in packages on this machine and in those of
#          tests/fuzz/wild.txt, which it fetches. What is refused is shown, to be judged by a reader.
# network: cuts, resets, stalls and flips 500 of each kind between the registry client and a registry.
# races:   paths that change while they are copied or written to, a minute for each kind.
# languages: plugins in every language, from nothing to a build with them. Besides those that CI tries:
#          Python, with and without WASI (its compiler comes from PyPI); the larger engine for
#          JavaScript (from npm, 390 MB); Rust with all of std (the target wasm32-wasip2, from rustup).
# systems: the test kit elsewhere: the cases of two frontends, as components, on Windows (by wine and
#          the compiler of mingw-w64), and for macOS whether the test kit and the SDKs compile.
# simulation: a million SEEDS of the solver's simulation, from the FIRST on.
# hostile: builds, plans and caches, honest and hostile ones, given up at 1,000 MOMENTS in process and as
#          many in processes of their own; counts what is left of them.
# crash:   kills, failures, power cuts, full disks and flipped bits, in the numbers of a release; some
#          minutes each, and an hour in all. NAME=NUMBER takes another number of one, and 0 leaves it
#          out: kills=1000 (SIGKILL of a process that works on a store), failpoints=600 (SIGKILL and
#          errors at each named point), cuts=200 (needs root and loop devices), sizes=100 (of a disk
#          that gets full; needs root), flips=1000 (bits in stored files), leftovers=200 (SIGKILL of
#          wbuild in a build: mounts, processes, control groups, files), records=100000 (that an index
#          is filled from).
set -eu
. "$(dirname -- "$0")/lib.sh"

cd "$root"
tools=$root/target/tools
PATH=$PATH:$tools/bin
export PATH

mutants() {
    have cargo-mutants ||
        CARGO_TARGET_DIR=$tools/build cargo install --locked --root "$tools" cargo-mutants
    failed=""
    mutate wbuild-ignore frontends/ignore "cases moby properties" "$@" || failed="$failed wbuild-ignore"
    mutate wbuild-dockerfile frontends/dockerfile/lang golden "$@" ||
        failed="$failed wbuild-dockerfile"
    mutate wbuild-earthfile frontends/earthfile/lang "golden docs" "$@" ||
        failed="$failed wbuild-earthfile"
    [ -z "$failed" ] || fail "mutants survived or the tests failed as they are:$failed"
}

# mutate PACKAGE FOLDER TESTS FILE...: all of the package, or the FILEs that are in its FOLDER.
mutate() {
    package=$1 folder=$2 tests=$3
    shift 3
    given=$#
    for file in "$@"; do
        shift
        case $file in "$folder"/*) set -- "$@" --file "$file" ;; esac
    done
    [ "$given" = 0 ] || [ $# -gt 0 ] || return 0
    for test in $tests; do
        set -- "$@" --cargo-arg=--test="$test"
    done
    mkdir -p "target/mutants/$package"
    # One at a time and without optimisation: a mutant is compiled far longer than it is run. Without
    # it what calls itself needs more of the stack.
    RUST_MIN_STACK=16777216 CARGO_PROFILE_TEST_OPT_LEVEL=0 CARGO_PROFILE_DEV_OPT_LEVEL=0 \
        nice cargo mutants \
        --package "$package" --jobs 1 --minimum-test-timeout 6 --no-shuffle --cargo-arg=--lib \
        --output "target/mutants/$package" "$@"
}

# Coverage without a sanitizer, which the stable compiler offers; every bit of it is read by
# libFuzzer. With --target, build scripts and macros are left as they are.
fuzz_build() {
    have c++ || fail "no C++ compiler: install g++"
    triple=$(rustc -vV | sed -n 's/^host: //p')
    flags="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4"
    flags="$flags -Cllvm-args=-sanitizer-coverage-inline-8bit-counters"
    flags="$flags -Cllvm-args=-sanitizer-coverage-pc-table"
    flags="$flags -Cllvm-args=-sanitizer-coverage-trace-compares --cfg fuzzing"
    RUSTFLAGS="$flags" cargo build -p wbuild-fuzz --bin wbuild-fuzz --features libfuzzer \
        --profile fuzz --target "$triple"
    fuzzer=$root/target/$triple/fuzz/wbuild-fuzz
}

fuzz() {
    minutes=${1:-10}
    # libFuzzer takes 0 for no end.
    [ "$minutes" -gt 0 ] 2>/dev/null || fail "expected a number of minutes above 0, not: $minutes"
    [ $# -gt 0 ] && shift
    all=$(cd tests/fuzz/corpus && ls)
    [ $# -gt 0 ] || set -- $all
    fuzz_build
    failed=""
    for name in "$@"; do
        step "fuzz $name, $minutes minutes"
        work=$root/target/fuzz/$name
        mkdir -p "$work" "$work-seeds" "$work-failed"
        WBUILD_FUZZ=$name
        export WBUILD_FUZZ
        WBUILD_FUZZ_SEEDS=$work-seeds "$fuzzer"
        # The first folder takes what is found, the others are only read.
        nice "$fuzzer" "$work" "$work-seeds" "tests/fuzz/corpus/$name" \
            -max_total_time=$((minutes * 60)) -max_len=8192 -timeout=10 -rss_limit_mb=2048 \
            -artifact_prefix="$work-failed/" -print_final_stats=1 -verbosity=1 \
            >"$work.log" 2>&1 || failed="$failed $name"
        grep -E 'ERROR|panicked|cov:|stat::number_of_executed' "$work.log" | tail -n 3
    done
    [ -z "$failed" ] || fail "inputs failed, see target/fuzz/*.log:$failed"
}

fuzz_keep() {
    fuzz_build
    for name in "$@"; do
        work=$root/target/fuzz/$name
        rm -rf "$work-kept" && mkdir -p "$work-kept"
        WBUILD_FUZZ=$name "$fuzzer" -merge=1 -use_counters=0 -max_len=1024 \
            "$work-kept" "$work-seeds" "$work" \
            "tests/fuzz/corpus/$name" 2>&1 | tail -n 1
        # Seeds lie in the case folders already.
        for file in "$work-kept"/*; do
            for seed in "$work-seeds"/*; do
                if cmp -s "$file" "$seed"; then rm "$file" && break; fi
            done
        done
    done
}

# fetch CLIENT NAME VERSION: a package as it is published, into the current folder, without what it
# depends on.
fetch() {
    case $1 in
    # Unpacks it among the sources that are looked at anyway.
    cargo) cargo info --quiet --registry crates-io "$2@$3" >fetch.log 2>&1 ;;
    npm) npm pack --silent --ignore-scripts "$2@$3" >fetch.log 2>&1 ;;
    pip) pip download --quiet --no-deps --no-binary :all: "$2==$3" >fetch.log 2>&1 ;;
    apt) apt-get download "$2" >fetch.log 2>&1 ;;
    esac
}

wild() {
    work=$root/target/wild
    mkdir -p "$work" && cd "$work"
    while read -r client name version; do
        case $client in
        '#'*) continue ;;
        apt) program=apt-get ;;
        *) program=$client ;;
        esac
        have $program || { say "skipped: no $program for $name"; continue; }
        folder=$work/$client-$(printf %s "$name" | tr / _)-$version
        [ -d "$folder" ] && continue
        rm -rf "$work/new" && mkdir "$work/new" && cd "$work/new"
        if fetch "$client" "$name" "$version"; then
            for file in *.tgz *.tar.gz; do
                [ ! -f "$file" ] || { tar -xzf "$file" 2>fetch.log && rm "$file"; }
            done
            for file in *.deb; do
                [ ! -f "$file" ] || { dpkg-deb -x "$file" . && rm "$file"; }
            done
            mv "$work/new" "$folder"
        else
            say "skipped: $client has no $name $version: $(tail -n 1 fetch.log)"
        fi
    done <"$root/tests/fuzz/wild.txt"
    cd "$root"
    cargo build --quiet -p wbuild-fuzz --bin wbuild-wild
    set -- "$work" "${CARGO_HOME:-$HOME/.cargo}/registry/src"
    for folder in /usr/lib /usr/local/lib /usr/share; do
        [ ! -d $folder ] || set -- "$@" $folder
    done
    "${CARGO_TARGET_DIR:-target}/debug/wbuild-wild" "$@"
}

races() {
    WBUILD_LONG=1 cargo test -p wbuild-tree --test it -- t_path_race --nocapture
}

crash() {
    kills=1000 failpoints=600 cuts=200 sizes=100 flips=1000 leftovers=200
    records=100000
    for setting in "$@"; do
        number=${setting#*=}
        case $setting in
        kills=* | failpoints=* | cuts=* | sizes=* | flips=* | leftovers=* | records=*) ;;
        *) fail "expected NAME=NUMBER with one of kills, failpoints, cuts, sizes, flips, leftovers, records, not: $setting" ;;
        esac
        [ "$number" -ge 0 ] 2>/dev/null || fail "expected a number, not: $setting"
        eval "${setting%%=*}=$number"
    done
    failed=""
    # rig NUMBER WHAT COMMAND...: all that fail are named at the end.
    rig() {
        [ "$1" -gt 0 ] || return 0
        step "$2: $1"
        shift
        what=$1
        shift
        "$@" || failed="$failed $what"
    }
    store="nice cargo test -p wbuild-store"
    WBUILD_KILLS=$kills rig "$kills" kills $store --test kill -- --nocapture
    # 18 points, each struck by a kill and by an error.
    passes=$(((failpoints + 35) / 36))
    WBUILD_PASSES=$passes rig "$failpoints" failpoints \
        $store --features failpoints --test failpoints -- --nocapture
    WBUILD_CUTS=$cuts WBUILD_LONG=1 rig "$cuts" cuts $store --test power -- --nocapture
    WBUILD_SIZES=$sizes rig "$sizes" sizes $store --test full -- --nocapture
    WBUILD_FLIPS=$flips rig "$flips" flips $store --test flips -- --nocapture
    WBUILD_RECORDS=$records rig "$records" records $store --test rebuild -- --nocapture
    if [ "$leftovers" -gt 0 ]; then
        nice cargo build -p wbuild-cli
        WBUILD_LEFTOVERS=$leftovers rig "$leftovers" leftovers \
            nice cargo test -p wbuild-tests --test e2e -- interruption::kills
    fi
    [ -z "$failed" ] || fail "failed:$failed"
}

systems() {
    windows=x86_64-pc-windows-gnu macos=x86_64-apple-darwin
    for program in rustup x86_64-w64-mingw32-gcc; do
        have $program || fail "no $program: install rustup; apt-get install gcc-mingw-w64-x86-64 wine64"
    done
    wine=$(command -v wine64 || command -v wine || echo /usr/lib/wine/wine64)
    [ -x "$wine" ] || fail "no wine: apt-get install wine64"
    rustup target add $windows $macos
    CARGO_TARGET_DIR=$root/target/systems
    CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER=x86_64-w64-mingw32-gcc
    CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER=$wine
    WINEPREFIX=$CARGO_TARGET_DIR/wine WINEDEBUG=-all
    export CARGO_TARGET_DIR WINEPREFIX WINEDEBUG
    export CARGO_TARGET_X86_64_PC_WINDOWS_GNU_LINKER CARGO_TARGET_X86_64_PC_WINDOWS_GNU_RUNNER
    step "the test kit and the SDKs for macOS"
    nice cargo check --tests -p wbuild-testkit -p wbuild-frontend -p wbuild-runner -p wbuild-cache \
        --target $macos
    step "components in the test kit on Windows"
    # What wine before 9 lacks, and the standard library of Rust asks for: random bytes.
    mkdir -p "$CARGO_TARGET_DIR/$windows/debug/deps"
    printf '%s\n' '__declspec(dllimport) unsigned char SystemFunction036(void *, unsigned long);' \
        '__declspec(dllexport) int ProcessPrng(void *to, unsigned long long size)' \
        '{ return SystemFunction036(to, size); }' |
        x86_64-w64-mingw32-gcc -shared -x c - -ladvapi32 \
            -o "$CARGO_TARGET_DIR/$windows/debug/deps/bcryptprimitives.dll"
    nice cargo test -p wbuild-plugin --test testkit --target $windows
}

case ${1-} in
mutants)
    shift
    mutants "$@"
    ;;
fuzz)
    shift
    fuzz "$@"
    ;;
fuzz-keep)
    shift
    fuzz_keep "$@"
    ;;
wild) wild ;;
network) WBUILD_LONG=1 nice cargo test -p wbuild-oci --test oci -- t_net ;;
races) races ;;
languages)
    nice cargo build -p wbuild-cli
    WBUILD_LONG=1 nice cargo test -p wbuild-tests --test e2e -- plugin_languages
    ;;
systems) systems ;;
simulation)
    SEEDS=${2-1000000} SEED=${3-0} nice cargo test -p wbuild-solver --test solver \
        simulation::simulation -- --nocapture
    ;;
hostile)
    WBUILD_GIVEN_UP=${2-1000} nice cargo test -p wbuild-isolate --test given_up -- --nocapture
    ;;
crash)
    shift
    crash "$@"
    ;;
*)
    sed -n '/^#   usage/,/^#$/s/^# *//p' "$0" >&2
    exit 2
    ;;
esac
