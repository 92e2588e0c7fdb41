# compile.sh FUNCTION PROJECT: compiles the files in FUNCTION (functions.rs, lib.rs)
# into the service whose cargo project stands in PROJECT.
# Content decides and never a time: what cargo knows of the service's own package
# is removed first, so nothing that is older or newer than the function counts.
set -eu
function=$1 project=$2

fail() {
    printf 'roche: %s\n' "$2" >&2
    exit "$1"
}

[ -f "$project/Cargo.toml" ] || fail 66 "the build image has no $project/Cargo.toml: make a build image with \`roche prepare\`"
command -v cargo >/dev/null || fail 69 "the build image has no cargo in its PATH ($PATH)"
cd "$project"

# Links and permissions of what was there must not matter.
put() {
    rm -rf "$2"
    cp "$1" "$2"
    chmod 0644 "$2"
}
if [ -d src/app ]; then
    put "$function/functions.rs" src/app/functions.rs
else
    put "$function/functions.rs" src/functions.rs
fi
if [ -f "$function/lib.rs" ]; then put "$function/lib.rs" src/lib.rs; fi

package=$(sed -n '/^ *\[package\]/,/^ *\[/s/^ *name *= *.\([A-Za-z0-9_-]*\).*/\1/p' Cargo.toml | head -n 1)
package=${package:-roche-service}
crate=$(printf %s "$package" | tr - _)
# Variables and .cargo/config.toml say where cargo writes, and only cargo knows both.
told=$(cargo metadata --format-version 1 --no-deps 2>/dev/null || :)
place() { printf '%s\n' "$told" | sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }
target=$(place target_directory)
target=${target:-${CARGO_TARGET_DIR:-${CARGO_BUILD_TARGET_DIR:-target}}}
# Newer cargos can keep what they know apart from what they make.
build=$(place build_directory)
set -- "$target/release" "$target"/*/release
if [ "${build:-$target}" != "$target" ]; then set -- "$@" "$build/release" "$build"/*/release; fi
for release in "$@"; do
    [ -d "$release" ] || continue
    if [ -d "$release/.fingerprint" ]; then
        rm -rf "$release/.fingerprint/$package"-???????????????? \
            "$release/deps/$crate"-* "$release/deps/lib$crate"-* "$release/incremental/$crate"-* \
            "$release/$package" "$release/$package.d"
    else
        # A layout that is not known here: cargo itself knows what belongs to the package.
        cargo clean --release -p "$package"
    fi
    rm -f "$release/roche-service"
done

# What is copied here below must be new too.
rm -f target/release/roche-service

cargo build --release

# Where the service is looked for, whatever folder or target triple cargo was told.
for built in "$target/release/roche-service" "$target"/*/release/roche-service; do
    if [ -f "$built" ] && ! [ -f target/release/roche-service ]; then
        mkdir -p target/release
        cp "$built" target/release/roche-service
    fi
done
for file in run.sh target/release/roche-service; do
    [ -f "$file" ] || fail 66 "the build image gave no $project/$file, which the image is made of"
done
