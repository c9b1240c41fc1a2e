#!/bin/sh
# Builds a real project that was not written for the purpose: libgit2, from the sources in the crate
# libgit2-sys, with tools installed in the container from packages.
#
#   usage: sh tests/project.sh
#
# Uses the base image and the program of tests/demo.sh, which it runs first if need be. Takes some
# minutes, most of them the compiler's; run again, everything is cached.
set -eu
. "$(dirname -- "$0")/lib.sh"

demo=$root/target/demo
project=$root/target/project
wbuild=$root/target/debug/wbuild
mkdir -p "$project"

[ -x "$wbuild" ] && [ -d "$demo" ] || sh "$root/tests/demo.sh"

step "the sources"
if [ ! -f "$project/libgit2/CMakeLists.txt" ]; then
    rm -rf "$project/fetch" && mkdir -p "$project/fetch/src"
    # A package of its own: what it depends on concerns nobody else.
    printf '[package]\nname = "fetch"\nversion = "0.0.0"\nedition = "2021"\n\n[dependencies]\nlibgit2-sys = { version = "=0.18.3", default-features = false }\n\n[workspace]\n' \
        >"$project/fetch/Cargo.toml"
    : >"$project/fetch/src/lib.rs"
    (cd "$project/fetch" && cargo vendor --quiet >/dev/null)
    mv "$project/fetch/vendor/libgit2-sys/libgit2" "$project/libgit2"
    rm -rf "$project/fetch"
fi
say "$(find "$project/libgit2" -type f | wc -l) files"

set --
if [ -f "$demo/base/index.json" ]; then
    set -- --build-arg BASE=demo-base --build-context "demo-base=oci-layout://$demo/base"
fi
for variable in http_proxy https_proxy no_proxy; do
    eval "value=\${$variable-}"
    [ -z "$value" ] || set -- "$@" --build-arg "$variable"
done

step "building it"
rm -rf "$project/image"
WBUILD_STATE_DIR=$demo/state WBUILD_CACHE_DIR=$demo/code-cache "$wbuild" build --progress plain \
    -f "$root/tests/examples/libgit2/Dockerfile" -t libgit2:latest --stats "$@" \
    -o "type=oci,dest=$project/libgit2.tar" -o "type=local,dest=$project/image" \
    "$project/libgit2"

step "running it"
if [ "$(id -u)" = 0 ]; then
    chroot "$project/image" git2 --version
else
    unshare --user --map-root-user chroot "$project/image" git2 --version
fi
