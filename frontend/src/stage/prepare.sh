# prepare.sh PROJECT: compiles the service's dependencies in PROJECT, which holds the
# template and the crates, so that a release compiles the function alone.
set -eu

fail() {
    printf 'roche: %s\n' "$2" >&2
    exit "$1"
}

command -v cargo >/dev/null || fail 69 "the image has no cargo in its PATH ($PATH): prepare one with a Rust toolchain"
command -v rustc >/dev/null || fail 69 "the image has no rustc in its PATH ($PATH): prepare one with a Rust toolchain"
cd "$1"
# A function put at either place is the function.
ln -sf app/functions.rs src/functions.rs
# The tests of a release's lib.rs need no more than this: they use the same dependencies.
cargo build --release --locked
