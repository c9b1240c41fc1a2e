#!/bin/sh
# Builds tests/examples/cross for several platforms with Debian's cross compilers, and runs what comes
# out in an emulated step of each.
#
#   usage: sh tests/cross.sh [PLATFORM,...]
#
# Uses the base image and the program of tests/demo.sh, which it runs first if need be.
set -eu
. "$(dirname -- "$0")/lib.sh"

demo=$root/target/demo
cross=$root/target/cross
wbuild=$root/target/debug/wbuild
platforms=${1-linux/amd64,linux/386,linux/arm64,linux/arm/v7,linux/ppc64le,linux/riscv64,linux/s390x}
mkdir -p "$cross"

[ -x "$wbuild" ] && [ -d "$demo" ] || sh "$root/tests/demo.sh"

set --
if [ -f "$demo/base/index.json" ]; then
    set -- --build-arg BASE=demo-base --build-context "demo-base=oci-layout://$demo/base"
fi
for variable in http_proxy https_proxy no_proxy; do
    eval "value=\${$variable-}"
    [ -z "$value" ] || set -- "$@" --build-arg "$variable"
done
WBUILD_STATE_DIR=$demo/state WBUILD_CACHE_DIR=$demo/code-cache
export WBUILD_STATE_DIR WBUILD_CACHE_DIR

step "building it for $platforms"
rm -rf "$cross/image"
"$wbuild" build --progress plain --platform "$platforms" -t hello:latest "$@" \
    -o "type=oci,tar=false,dest=$cross/image" "$root/tests/examples/cross"

step "running it"
printf 'FROM hello AS run\nRUN ["/hello"]\n' >"$cross/Dockerfile"
"$wbuild" build --progress plain --no-cache --platform "$platforms" \
    --build-context "hello=oci-layout://$cross/image" "$cross" 2>"$cross/log" || {
    cat "$cross/log"
    fail "it does not run"
}
grep -o 'hello from .*' "$cross/log" | sort
count=$(grep -c 'hello from ' "$cross/log")
wanted=$(printf '%s\n' "$platforms" | tr , '\n' | grep -c .)
[ "$count" = "$wanted" ] || fail "$count of $wanted programs ran"
