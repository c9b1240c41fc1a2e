# Shared by demo.sh and run.sh: what has to be installed, and how it is announced and done.
#
# Nothing is installed that is there already, nothing without saying so first, and nothing by sudo:
# who is not root is told the command to run.

root=$(CDPATH= cd -- "$(dirname -- "$0")/.." && pwd)
packages=""

say() { printf '%s\n' "$*"; }
fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}
have() { command -v "$1" >/dev/null 2>&1; }

# Programs of the administrator are not on every user's PATH.
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
export PATH

if have apt-get; then
    manager=apt
elif have dnf; then
    manager=dnf
else
    manager=none
fi

# need APT-PACKAGES DNF-PACKAGES TEST...: notes the packages unless TEST succeeds.
need() {
    apt_name=$1
    dnf_name=$2
    shift 2
    "$@" >/dev/null 2>&1 && return 0
    case $manager in
    apt) packages="$packages $apt_name" ;;
    dnf) packages="$packages $dnf_name" ;;
    *) packages="$packages $apt_name" ;;
    esac
}

has_runtime() { have crun || have runc; }
has_compiler() { have cc && echo 'int main(void){return 0;}' | cc -x c -o /dev/null -; }
has_certificates() {
    [ -s /etc/ssl/certs/ca-certificates.crt ] || [ -s /etc/pki/tls/certs/ca-bundle.crt ] ||
        [ -s /etc/ssl/cert.pem ]
}
has_static_busybox() { have busybox && ! ldd "$(command -v busybox)"; }
# versions NAME: whether NAME or one of the names of its versions is there.
versions() {
    for version in "" -22 -21 -20 -19 -18 -17 -16 -15; do
        have "$1$version" && return 0
    done
    return 1
}
has_wasm_clang() { versions clang; }
has_wasm_linker() { versions wasm-ld; }

# What building and running wbuild itself takes.
need_for_wbuild() {
    have cargo || fail "no cargo on PATH: install Rust 1.95 or newer (https://rustup.rs)"
    need "gcc libc6-dev" "gcc glibc-devel" has_compiler
    need ca-certificates ca-certificates has_certificates
    need crun crun has_runtime
    # An ordinary user's builds need more than one user id.
    [ "$(id -u)" = 0 ] || need uidmap shadow-utils have newuidmap
}

# install_packages required|optional: announces and installs what `need` noted. Where it cannot:
# fails if it is required, goes on if it is optional.
install_packages() {
    packages=$(echo $packages)
    if [ -z "$packages" ]; then
        say "packages: all there, nothing to install"
        return 0
    fi
    case $manager in
    apt) command="apt-get install --no-install-recommends -y $packages" ;;
    dnf) command="dnf install -y $packages" ;;
    none) command="" ;;
    esac
    if [ -z "$command" ]; then
        say "packages: missing, and neither apt-get nor dnf is here. In Debian they are called: $packages"
    elif [ "$(id -u)" = 0 ]; then
        say "packages: installing $packages"
        if [ $manager = apt ]; then
            # The lists may be missing or older than the packages on the server.
            DEBIAN_FRONTEND=noninteractive $command >"$log" 2>&1 ||
                { apt-get update >"$log" 2>&1 &&
                    DEBIAN_FRONTEND=noninteractive $command >"$log" 2>&1; } ||
                { tail -n 20 "$log" >&2; fail "could not run: $command"; }
        else
            $command >"$log" 2>&1 || { tail -n 20 "$log" >&2; fail "could not run: $command"; }
        fi
        packages=""
        return 0
    else
        say "packages: missing. To install them run, as root:"
        say "    $command"
    fi
    [ "$1" = optional ] || fail "cannot go on without these packages: $packages"
}

# The guests, and the program with the guests inside. Same profile for the demo and the tests.
build_wbuild() {
    cd "$root"
    step "compiling the plugins to WebAssembly (cargo xtask guests)"
    if [ $manager = apt ]; then
        cargo xtask guests
    else
        cargo xtask guests --install-target
    fi
    step "compiling wbuild (cargo build -p wbuild-cli; ten minutes or so on two cores the first time)"
    cargo build -p wbuild-cli
}

announce_build() {
    if [ $manager = apt ]; then
        say "toolchain: if rustc lacks wasm32-unknown-unknown, a private copy of the distribution's is"
        say "           unpacked into target/wasm-toolchain (140 MB; nothing of yours is changed)"
    else
        say "toolchain: if rustc lacks wasm32-unknown-unknown, rustup target add (25 MB)"
    fi
    say "crates:    downloaded by cargo; everything that is built goes to target/"
}

started=$(date +%s)
step() { printf '\n=== %s  [%ss]\n' "$1" "$(($(date +%s) - started))"; }
