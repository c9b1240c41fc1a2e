#!/bin/sh
# Builds wbuild and, with it, a real multi-stage example; shows the result running.
#
#   usage: sh tests/demo.sh
#
# Says first what it will install. Run again, it only builds what has changed. Everything it makes
# lies in target/.
set -eu
. "$(dirname -- "$0")/lib.sh"

demo=$root/target/demo
log=$demo/install.log
mkdir -p "$demo"

say "This builds wbuild, then the image of tests/examples/hello with it."
need_for_wbuild
# Where no registry can be reached the base image is made of the distribution's packages.
[ $manager != apt ] || [ -f "$demo/base/index.json" ] || need mmdebstrap "" have mmdebstrap
announce_build
install_packages required

build_wbuild
wbuild() { "$root/target/debug/wbuild" "$@"; }
WBUILD_STATE_DIR=$demo/state
WBUILD_CACHE_DIR=$demo/code-cache
export WBUILD_STATE_DIR WBUILD_CACHE_DIR

step "what this machine offers (wbuild doctor)"
wbuild doctor || fail "builds cannot work here, see above"

# The machine's own mirror of the release it runs, as apt knows it; `main` is where compilers are.
mirror() {
    release=$(. /etc/os-release && echo "${VERSION_CODENAME-}")
    apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
        awk -v release="$release" '$2 == release && $3 == "main" { print "deb " $1 " " $2 " main"; exit }'
}

# Debian's or Ubuntu's smallest useful system, as an OCI layout in $demo/base.
make_base() {
    [ $manager = apt ] ||
        fail "no registry can be reached, and there is no apt-get to make a base image with"
    line=$(mirror)
    [ -n "$line" ] || fail "apt knows no mirror of this release (apt-get update may help)"
    say "making one of packages: $line"
    rm -rf "$demo/base.part" && mkdir "$demo/base.part"
    # A fixed time, so that two runs over the same packages give the same image.
    SOURCE_DATE_EPOCH=1700000000 mmdebstrap --quiet --variant=minbase \
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/doc/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        "$(. /etc/os-release && echo "$VERSION_CODENAME")" "$demo/base.part/rootfs.tar" "$line" ||
        fail "mmdebstrap could not make a base image"
    printf 'FROM scratch\nADD rootfs.tar /\nCMD ["bash"]\n' >"$demo/base.part/Dockerfile"
    say "turning it into an OCI layout with wbuild"
    wbuild build -o "type=oci,tar=false,dest=$demo/base.part/layout" "$demo/base.part"
    rm -rf "$demo/base"
    mv "$demo/base.part/layout" "$demo/base"
    rm -rf "$demo/base.part"
}

step "a base image"
base=debian:bookworm-slim
set --
if [ -f "$demo/base/index.json" ]; then
    say "there is one in target/demo/base"
    base=demo-base
elif say "asking the registry for $base" &&
    echo "FROM $base" | timeout 60 "$root/target/debug/wbuild" build --progress quiet -o type=cacheonly - \
        >/dev/null 2>"$demo/registry.log"; then
    say "the registry has it"
else
    say "no registry can be reached ($(grep -m1 error: "$demo/registry.log" || echo "it does not answer"))"
    make_base
    base=demo-base
fi
if [ $base = demo-base ]; then
    set -- --build-arg "BASE=$base" --build-context "$base=oci-layout://$demo/base"
fi
# Steps see nothing of this machine's environment unless it is handed to them.
for variable in http_proxy https_proxy no_proxy; do
    eval "value=\${$variable-}"
    [ -z "$value" ] || set -- "$@" --build-arg "$variable"
done

# Removes files that an ordinary user's build made too: they are the user's own.
rm -rf "$demo/hello"
example() {
    wbuild build --progress plain -t hello:latest "$@" \
        -o "type=oci,dest=$demo/hello.tar" -o "type=local,dest=$demo/hello" \
        "$root/tests/examples/hello"
}

step "building tests/examples/hello"
example "$@"

step "running it"
ls -l "$demo/hello.tar" "$demo/hello/hello"
if [ "$(id -u)" = 0 ]; then
    chroot "$demo/hello" /hello
else
    unshare --user --map-root-user chroot "$demo/hello" /hello
fi

step "building it again: nothing has changed"
rm -rf "$demo/hello"
before=$(date +%s%N)
example "$@"
after=$(date +%s%N)
say "took $(((after - before) / 1000000)) ms"
step "done: the image is target/demo/hello.tar, the program is target/debug/wbuild"
