# shellcheck shell=bash
# Images as files: makes them out of layer tars, pushes them to the test registry
# and keeps them in the cache ($CACHE/images/KEY.json is the manifest, the blobs
# lie in $CACHE/blobs by digest). Sourced after lib.sh and $STATE/env.
# Invariant: equal layers and config give an equal digest, on every machine, and
# a manifest is written only after all that it names.

MANIFEST=application/vnd.oci.image.manifest.v1+json
ACCEPT="$MANIFEST, application/vnd.oci.image.index.v1+json, \
application/vnd.docker.distribution.manifest.v2+json, \
application/vnd.docker.distribution.manifest.list.v2+json"

# registry METHOD PATH CURL-OPTION...: asks the test registry.
registry() {
    local method=$1 path=$2
    shift 2
    curl -sS --fail --noproxy '*' -X "$method" "$@" "http://$ROCHE_TEST_REGISTRY/v2/$path"
}

# add_blob FILE: moves FILE into the cache; prints "DIGEST SIZE".
add_blob() {
    local digest
    digest=sha256:$(sha256sum "$1" | cut -d' ' -f1)
    printf '%s %s\n' "$digest" "$(stat -c %s "$1")"
    mv "$1" "$CACHE/blobs/$digest"
}

# make_image KEY CONFIG TAR...: an image of these layers, CONFIG being the
# "config" object of its image config. The tars are used up.
make_image() {
    local key=$1 config=$2 tar diff_id digest size layers='[]' diff_ids='[]' work
    shift 2
    mkdir -p "$CACHE/blobs" "$CACHE/images"
    work=$(mktemp -d "$CACHE/new.XXXXXX")
    for tar in "$@"; do
        diff_id=sha256:$(sha256sum "$tar" | cut -d' ' -f1)
        pigz -n -1 <"$tar" >"$work/layer"
        rm "$tar"
        read -r digest size < <(add_blob "$work/layer")
        diff_ids=$(jq -c --arg d "$diff_id" '. + [$d]' <<<"$diff_ids")
        layers=$(jq -c --arg d "$digest" --argjson s "$size" '. + [{
            mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest: $d, size: $s }]' <<<"$layers")
    done
    jq -cn --argjson c "$config" --argjson d "$diff_ids" '{
        created: "2023-11-14T22:13:20Z", architecture: "amd64", os: "linux", config: $c,
        rootfs: { type: "layers", diff_ids: $d },
        history: [ $d[] | { created: "2023-11-14T22:13:20Z", created_by: "test set-up" } ] }' >"$work/config"
    read -r digest size < <(add_blob "$work/config")
    jq -cjn --arg m "$MANIFEST" --argjson l "$layers" --arg d "$digest" --argjson s "$size" '{
        schemaVersion: 2, mediaType: $m,
        config: { mediaType: "application/vnd.oci.image.config.v1+json", digest: $d, size: $s },
        layers: $l }' >"$work/manifest"
    mv "$work/manifest" "$CACHE/images/$key.json"
    rmdir "$work" 2>/dev/null || rm -r "$work"
}

# has_image KEY: whether the cache holds the image with all its blobs.
has_image() {
    local digest
    [ -e "$CACHE/images/$1.json" ] || return 1
    for digest in $(named_by "$CACHE/images/$1.json"); do
        [ -e "$CACHE/blobs/$digest" ] || return 1
    done
}

# named_by MANIFEST: the digests that a manifest or an index names.
named_by() { jq -r '(.config // empty | .digest), (.layers // .manifests)[].digest' "$1"; }

# push_image KEY NAME TAG: the cached image into the registry.
push_image() { push_manifest "$CACHE/images/$1.json" "$2" "$3"; }

push_manifest() {
    local manifest=$1 name=$2 reference=$3 digest type
    for digest in $(named_by "$manifest"); do
        if jq -e .manifests "$manifest" >/dev/null; then
            push_manifest "$CACHE/blobs/$digest" "$name" "$digest"
        elif ! registry HEAD "$name/blobs/$digest" --head -o /dev/null 2>/dev/null; then
            push_blob "$name" "$digest"
        fi
    done
    type=$(jq -r .mediaType "$manifest")
    registry PUT "$name/manifests/$reference" -H "Content-Type: $type" --data-binary "@$manifest" -o /dev/null
}

push_blob() {
    local location
    location=$(registry POST "$1/blobs/uploads/" -H 'Content-Length: 0' -o /dev/null -D - |
        tr -d '\r' | sed -n 's/^[Ll]ocation: //p')
    curl -sS --fail --noproxy '*' -o /dev/null -H 'Content-Type: application/octet-stream' \
        -T "$CACHE/blobs/$2" "$location&digest=$2"
}

# keep_image KEY NAME TAG: copies an image of the registry into the cache.
keep_image() {
    mkdir -p "$CACHE/blobs" "$CACHE/images"
    registry GET "$2/manifests/$3" -H "Accept: $ACCEPT" -o "$CACHE/images/$1.new"
    keep_named "$CACHE/images/$1.new" "$2"
    mv "$CACHE/images/$1.new" "$CACHE/images/$1.json"
}

keep_named() {
    local manifest=$1 name=$2 digest kind=blobs
    if jq -e .manifests "$manifest" >/dev/null; then kind=manifests; fi
    for digest in $(named_by "$manifest"); do
        if [ ! -e "$CACHE/blobs/$digest" ]; then
            registry GET "$name/$kind/$digest" -H "Accept: $ACCEPT" -o "$CACHE/blobs/$digest.new"
            mv "$CACHE/blobs/$digest.new" "$CACHE/blobs/$digest"
        fi
        if [ "$kind" = manifests ]; then keep_named "$CACHE/blobs/$digest" "$name"; fi
    done
}

# into_daemons REF: pulls an image into both daemons.
into_daemons() {
    local modern
    pull "$ROCHE_TEST_DOCKER26" "$1" &
    modern=$!
    pull "$ROCHE_TEST_DOCKER20" "$1"
    wait "$modern" || exit 1
    say "image $1"
}

pull() {
    local log
    log=$(mktemp "$STATE/pull.XXXXXX")
    if ! "$DOCKER" -H "unix://$1" pull -q "$2" >"$log" 2>&1; then
        show_log "$log"
        die "the daemon on $1 could not pull $2"
    fi
    rm "$log"
}
