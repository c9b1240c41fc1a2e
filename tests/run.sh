#!/bin/sh
# Sets up and runs every test and check.
#
#   usage: sh tests/run.sh
#
# What needs rights or programs that are not there is skipped, with the reason; with CI=true, as
# root, everything is installed and a skip is a failure. Says first what it will install.
set -eu
. "$(dirname -- "$0")/lib.sh"

out=$root/target/test-run
log=$out/install.log
mkdir -p "$out"

say "This builds wbuild and runs all of its tests and checks."
need_for_wbuild
announce_build
install_packages required

# Other people's tools that open what wbuild makes, and the parts of test images.
packages=""
need busybox-static busybox has_static_busybox
need skopeo skopeo have skopeo
need umoci umoci have umoci
need buildah buildah have buildah
need docker-registry docker-distribution have docker-registry
need git "git git-daemon" have git
# For plugins in other languages; their packages come from npm, as the lock file says.
need clang clang has_wasm_clang
need lld lld has_wasm_linker
need "nodejs npm" "nodejs npm" have npm
need openssh-client openssh-clients have ssh-agent
need openssl openssl have openssl
need minisign minisign have minisign
need bsdutils util-linux have script
need uidmap shadow-utils have newuidmap
need strace strace have strace
need qemu-user-static qemu-user-static have qemu-aarch64-static
need runc runc have runc
need crun crun have crun
if [ "${CI-}" = true ] && [ "$(id -u)" = 0 ]; then
    # Not on other machines: installing them may start services.
    need docker.io moby-engine have dockerd
    need openssh-server openssh-server have sshd
    WBUILD_TEST_REQUIRE=1
    export WBUILD_TEST_REQUIRE
fi
install_packages optional

cd "$root"
failures=""
# check NAME COMMAND...: all of its output goes to the terminal and to a file.
check() {
    name=$1
    shift
    step "$name: $*"
    # A pipe would hide how the command ended.
    rm -f "$out/pipe" && mkfifo "$out/pipe"
    tee "$out/$name.log" <"$out/pipe" &
    tee=$!
    status=0
    "$@" >"$out/pipe" 2>&1 || status=$?
    wait $tee
    [ $status = 0 ] || failures="$failures $name"
}

rm -f "$out"/*.log
check format cargo fmt --all --check
build_wbuild
check wit cargo xtask wit
check clippy cargo clippy --workspace --all-targets -- -D warnings
# --show-output: a test that was skipped says why.
check tests cargo test --no-fail-fast -- --show-output
check guest-tests cargo test --no-fail-fast -p dockerfile -p earthfile -p include -p steps -p yaml -p native -p qemu -p cache-local -p cache-http -- \
    --show-output
# Every write of the state directory fails once; compiled in for this only.
check failpoint-tests cargo test -p wbuild-store --features failpoints --test failpoints -- \
    --show-output

# Rust counts a test that found it could not run as passed.
skipped=$(cat "$out"/*tests.log | grep '^ *skipped: ' | sort -u) || true
if [ -n "$skipped" ]; then
    step "skipped"
    printf '%s\n' "$skipped"
fi
# What failed and how, once more: the last lines are what is looked at first.
cat "$out"/*tests.log | awk '/^failures:$/ { on = !on; next } /^test result: / { on = 0 } on' | head -n 300
grep -h '^test .* FAILED' "$out"/*tests.log || true
step "all"
cat "$out"/*tests.log | awk -v skipped="$(printf '%s' "$skipped" | grep -c .)" '
    /^test result: / { passed += $4; failed += $6; ignored += $8 }
    END { printf "%d passed, %d failed, %d skipped\n", passed - skipped, failed, ignored + skipped }'
if [ -n "$failures" ]; then
    echo "failed:$failures"
    exit 1
fi
