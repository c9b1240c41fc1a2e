#!/bin/sh
# Finds or makes a rustc that can build for wasm32-unknown-unknown, and prints its path.
#
#   usage: wasm-std.sh [--rustup] DIR      DIR: where a private toolchain is kept if one is needed
#
# In this order, each step announced on stderr before it downloads or builds anything:
#   1. the active toolchain has the target: nothing to do;
#   2. DIR holds a finished private toolchain: nothing to do;
#   3. with --rustup: `rustup target add`. Only when asked for, because it changes a toolchain
#      that other projects use;
#   4. Debian's rustc-web and the sources of its standard library, unpacked into DIR (nothing is
#      installed), and the standard library built once.
#
# Runs of several processes take turns (a lock in DIR). The toolchain is made in DIR/stage and moved
# into place when it is finished: a run that was interrupted leaves no half-made one behind.
set -eu

target=wasm32-unknown-unknown
# The oldest rustc that compiles the guests.
least=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' "$(dirname -- "$0")/../../Cargo.toml")
# Raise the number when a toolchain made by an older version of this script must be made again.
recipe="recipe 2, rust $least"
remedy="run 'rustup target add $target', or install a Rust toolchain that has the target"

say() { printf '%s\n' "wasm-std: $*" >&2; }
fail() { printf '%s\n' "wasm-std: error: $*" >&2; exit 1; }
have_std() {
    libdir=$("$1" --print target-libdir --target $target 2>/dev/null) || return 1
    ls "$libdir"/libstd-*.rlib >/dev/null 2>&1
}

use_rustup=no
if [ "${1-}" = --rustup ]; then
    use_rustup=yes
    shift
fi
[ $# -eq 1 ] || fail "usage: wasm-std.sh [--rustup] DIR"
dir=$1

# A rustc of rustup's is asked for by its real path: the proxy would be the same, only slower.
host_rustc=$(rustup which rustc 2>/dev/null || command -v rustc) || fail "no rustc on PATH"
if have_std "$host_rustc"; then
    echo "$host_rustc"
    exit 0
fi

mkdir -p "$dir" || fail "cannot make $dir"
dir=$(cd "$dir" && pwd)
if command -v flock >/dev/null; then
    exec 9>"$dir/lock"
    flock -n 9 || { say "waiting for another process that prepares $dir"; flock 9; }
fi

# The linkers (wasm-component-ld, rust-lld) come from the active toolchain, whichever that is now.
triple=$("$host_rustc" -vV | sed -n 's/^host: //p')
host_bin=$("$host_rustc" --print sysroot)/lib/rustlib/$triple/bin
link_linkers() {
    link=$1/usr/lib/rustlib/$triple/bin
    [ "$(readlink "$link" 2>/dev/null)" = "$host_bin" ] || ln -sfn "$host_bin" "$link"
}

if [ "$(cat "$dir/ready" 2>/dev/null)" = "$recipe" ] && have_std "$dir/rustc"; then
    link_linkers "$dir"
    echo "$dir/rustc"
    exit 0
fi

if [ $use_rustup = yes ] && rustup which rustc >/dev/null 2>&1; then
    say "adding $target to the active toolchain (rustup target add, about 25 MB)"
    # Where no server can be reached this must not hang.
    if command -v timeout >/dev/null; then limit="timeout 120"; else limit=""; fi
    if $limit rustup target add $target >"$dir/rustup.log" 2>&1 && have_std "$host_rustc"; then
        echo "$host_rustc"
        exit 0
    fi
    say "rustup could not: $(grep -m1 -i '^error' "$dir/rustup.log" || echo "see $dir/rustup.log")"
fi

command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null ||
    fail "this toolchain has no standard library for $target; $remedy"
[ -x "$host_bin/wasm-component-ld" ] ||
    fail "no wasm-component-ld in $host_bin (rustup's toolchains have it since 1.81); $remedy"

candidate() { apt-cache policy rustc-web 2>/dev/null | sed -n 's/^ *Candidate: *//p' | grep -v '^(none)$'; }
recent() { version=$(candidate) && dpkg --compare-versions "$version" ge "$least"; }
# Lists that came with the machine's image may be older than what the distribution has by now.
if ! recent && [ "$(id -u)" = 0 ]; then
    say "refreshing the package lists (apt-get update)"
    apt-get update -qq >&2 || say "apt-get update failed"
fi
recent ||
    fail "apt knows no package rustc-web of version $least or newer, but $(candidate || echo none) (try 'apt-get update'); or $remedy"

# The packages whose names hold a version are asked of apt, not written here.
dependency() { apt-cache depends "$1" | sed -n "s/^ *Depends: \\($2\\)\$/\\1/p" | head -n1; }
libstd=$(dependency libstd-rust-web-dev 'libstd-rust-web-[0-9.]*')
llvm=$(dependency "$libstd" 'libllvm[0-9.]*')
[ -n "$libstd" ] && [ -n "$llvm" ] ||
    fail "cannot tell what rustc-web depends on (libstd: '$libstd', llvm: '$llvm'); $remedy"
packages="rustc-web libstd-rust-web-dev rust-web-src $libstd $llvm"

say "no standard library for $target here: making a private toolchain in $dir"
say "downloading from the distribution (about 140 MB, nothing is installed): $packages"
stage=$dir/stage
rm -rf "$stage"
mkdir -p "$stage/deb" "$stage/seed/src"
# apt's own sandbox user cannot write into a private folder; root downloads as root then.
(cd "$stage/deb" && apt-get -o APT::Sandbox::User=root -q download $packages >"$dir/apt.log" 2>&1) ||
    fail "apt-get download failed: $(tail -n1 "$dir/apt.log"); $remedy"

say "unpacking"
for deb in "$stage"/deb/*.deb; do
    case $deb in
    */rust-web-src_*)
        # 45 of 342 MB: the standard library and the link that -Zbuild-std looks for.
        dpkg-deb --fsys-tarfile "$deb" |
            tar -x -C "$stage" --wildcards './usr/src/rustc-*/library' './usr/lib/rustlib/src'
        ;;
    *) dpkg-deb -x "$deb" "$stage" ;;
    esac
done
rm -rf "$stage/deb" "$stage/usr/share" "$stage/usr/bin/rustdoc"
link_linkers "$stage"
cat >"$stage/rustc" <<'WRAP'
#!/bin/sh
here=$(CDPATH= cd -- "$(dirname -- "$0")" && pwd)
lib=$here/usr/lib/$(uname -m)-linux-gnu
LD_LIBRARY_PATH=$lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH} exec "$here/usr/bin/rustc" "$@"
WRAP
chmod +x "$stage/rustc"
version=$("$stage/rustc" -V 2>"$dir/rustc.log") ||
    fail "the unpacked rustc does not start: $(tail -n1 "$dir/rustc.log") ('apt-get install --no-install-recommends $llvm' brings what it needs); or $remedy"

say "building the standard library for $target with $version (about a minute)"
cat >"$stage/seed/Cargo.toml" <<'TOML'
[package]
name = "seed"
version = "0.0.0"
edition = "2021"
[profile.release]
panic = "abort"
[workspace]
TOML
: >"$stage/seed/src/lib.rs"
library=$(ls -d "$stage"/usr/src/rustc-*/library)
vendor=$library/vendor
# -Cembed-bitcode: guests are linked with LTO. The source paths end up in guests' panic messages:
# they must not tell where this was built. --offline: the sources carry their own crates.
sep=$(printf '\037')
flags=-Cembed-bitcode=yes
flags=$flags$sep--remap-path-prefix=$library=/rustc/library
flags=$flags$sep--remap-path-prefix=$stage/usr/lib/rustlib/src/rust/library=/rustc/library
# RUSTC_BOOTSTRAP lets a stable compiler build its own standard library; it is set for this one
# command only.
(cd "$stage/seed" &&
    env -u CARGO_TARGET_DIR -u CARGO_BUILD_TARGET_DIR -u CARGO_BUILD_TARGET -u RUSTC_WRAPPER \
        -u RUSTFLAGS -u CARGO_BUILD_RUSTFLAGS CARGO_ENCODED_RUSTFLAGS="$flags" \
        RUSTC="$stage/rustc" RUSTC_BOOTSTRAP=1 \
        cargo build --offline --release --target $target -Zbuild-std=std,panic_abort \
        --target-dir "$stage/seed/target" \
        --config 'source.crates-io.replace-with="std-vendor"' \
        --config "source.std-vendor.directory=\"$vendor\"" >"$dir/build.log" 2>&1) ||
    fail "building the standard library failed, see $dir/build.log; $remedy"
lib=$("$stage/rustc" --print target-libdir --target $target)
mkdir -p "$lib"
for rlib in "$stage/seed/target/$target/release/deps/"*.rlib; do
    case $rlib in */libseed-*) ;; *) cp "$rlib" "$lib/" ;; esac
done
rm -rf "$stage/seed" "$stage/usr/src"
have_std "$stage/rustc" || fail "the standard library was built but is not found in $lib"

rm -rf "$dir/ready" "$dir/usr" "$dir/rustc"
mv "$stage/usr" "$stage/rustc" "$dir/"
rm -rf "$stage"
echo "$recipe" >"$dir/ready"
say "ready ($(du -sh "$dir" | cut -f1) in $dir)"
echo "$dir/rustc"
