# runtime.sh PROJECT RUNTIME OUT SERVICE ENTRYPOINT: writes to OUT what the image gains
# beside the service: /app, /etc/passwd and /etc/group with rocheuser, and the shared
# objects that the service needs and the runtime image lacks. SERVICE gets the files of
# the service of PROJECT, and an etc/passwd and etc/group with rocheuser's own lines:
# who copies the files on looks their owner up there, since a step with a single uid
# cannot give them away. RUNTIME is that image's tree (missing: nothing is there at
# all); ENTRYPOINT is `script` (./run.sh needs a shell) or `direct`.
# Nothing of RUNTIME is run but its loader. Folders in OUT are real ones and have
# the mode and owner that they have in RUNTIME, so that copying OUT over RUNTIME
# never replaces a link and changes no folder.
set -eu
umask 022
export LC_ALL=C
project=$1 runtime=$2 out=$3 gives=$4 entrypoint=$5
service=$project/target/release/roche-service

fail() {
    printf 'roche: %s\n' "$*" >&2
    exit 1
}

# inside PATH: sets $found to what PATH is in the runtime once every link is followed
# there, whether or not it exists.
inside() {
    left=$1 found='' links=0
    while [ -n "$left" ]; do
        part=${left%%/*}
        case $left in
        */*) left=${left#*/} ;;
        *) left='' ;;
        esac
        case $part in
        '' | .) continue ;;
        ..) found=${found%/*} && continue ;;
        esac
        if [ -L "$runtime$found/$part" ]; then
            links=$((links + 1))
            [ "$links" -le 40 ] || fail "the runtime image has a circle of links at $1"
            link=$(readlink "$runtime$found/$part")
            case $link in /*) found='' ;; esac
            left=$link/$left
        else
            found=$found/$part
        fi
    done
}

# folder PATH: makes a folder of the runtime (no links in PATH) in OUT.
folder() {
    case $1 in '' | /) return ;; esac
    if [ -d "$out$1" ]; then return; fi
    folder "${1%/*}"
    mkdir "$out$1"
    if [ -d "$runtime$1" ]; then
        set -- "$1" $(stat -c '%u:%g %a' "$runtime$1")
        [ "$2" = "$(stat -c '%u:%g' "$out$1")" ] || chown "$2" "$out$1"
        chmod "$3" "$out$1"
    fi
}

# --- rocheuser

# has FIELD VALUE FILE: whether a line of FILE has VALUE as its name (1) or id (3).
has() {
    while IFS=: read -r name _ id _ || [ -n "$name" ]; do
        case $1 in
        1) [ "$name" != "$2" ] || return 0 ;;
        3) [ "$id" != "$2" ] || return 0 ;;
        esac
    done <"$3"
    return 1
}

# free FILE: sets $wanted to the lowest system id that FILE does not have.
free() {
    wanted=100
    while has 3 "$wanted" "$1"; do
        wanted=$((wanted + 1))
        [ "$wanted" -le 999 ] || fail "the runtime image has no free system id left in ${1#"$out"}"
    done
}

# base PATH DEFAULT: puts the runtime's file, or DEFAULT, into OUT and sets $file to it.
base() {
    file=$out$1
    inside "$1"
    if [ -e "$runtime$found" ]; then
        # A last line without an end would swallow the one that is added.
        while IFS= read -r line || [ -n "$line" ]; do printf '%s\n' "$line"; done <"$runtime$found" >"$file"
    else
        printf '%s\n' "$2" >"$file"
    fi
    chmod 0644 "$file"
}

# A folder cannot be copied over a link.
for place in /etc /app; do
    inside "$place"
    [ "$found" = "$place" ] || fail "the runtime image has a link at $place, to $found: use one that has a folder there, or nothing"
done

# Made real files even where the runtime has links there, which may lead to shared stores.
folder /etc
base /etc/group root:x:0:
group=$file
base /etc/passwd root:x:0:0:root:/root:/sbin/nologin
passwd=$file
if ! has 1 rocheuser "$passwd"; then
    if ! has 1 rocheuser "$group"; then
        free "$group"
        printf 'rocheuser:x:%s:\n' "$wanted" >>"$group"
    fi
    while IFS=: read -r name _ id _; do
        if [ "$name" = rocheuser ]; then gid=$id; fi
    done <"$group"
    free "$passwd"
    printf 'rocheuser:x:%s:%s::/app:/sbin/nologin\n' "$wanted" "$gid" >>"$passwd"
fi

# --- the service

# The user's own group need not have its name.
mkdir "$gives/etc"
while IFS= read -r line; do
    case $line in
    rocheuser:*)
        IFS=: read -r _ _ _ gid _ <<LINE
$line
LINE
        printf '%s\n' "$line" >"$gives/etc/passwd"
        printf 'rocheuser:x:%s:\n' "$gid" >"$gives/etc/group"
        break
        ;;
    esac
done <"$passwd"
folder /app
for file in run.sh Cargo.toml target/release/roche-service; do
    [ -f "$project/$file" ] || fail "the build image gave no $project/$file, which the image is made of"
    cp -pL "$project/$file" "$gives/"
done

# --- the shell

if [ "$entrypoint" = script ]; then
    inside /bin/sh
    [ -x "$runtime$found" ] || fail "the runtime image has no /bin/sh, which ./run.sh needs: release with \`--entrypoint direct\`"
fi

# --- shared objects

# number OFFSET BYTES: a number of the service's ELF header; set $number.
number() { number=$(od -An -t "u$2" -j "$1" -N "$2" "$service" | tr -d ' '); }

# interpreter: sets $loader to the loader that the service names; empty: it is static.
interpreter() {
    loader=''
    [ "$(od -An -c -N 4 "$service" | tr -d ' ')" = '177ELF' ] || fail "$service is not an ELF program"
    number 4 1
    if [ "$number" = 2 ]; then
        number 32 8 && table=$number && number 54 2 && size=$number && number 56 2 && count=$number
        offset=8 length=32 word=8
    else
        number 28 4 && table=$number && number 42 2 && size=$number && number 44 2 && count=$number
        offset=4 length=16 word=4
    fi
    while [ "$count" -gt 0 ]; do
        number "$table" 4
        if [ "$number" = 3 ]; then
            number $((table + offset)) "$word" && offset=$number
            number $((table + length)) "$word" && length=$number
            loader=$(dd if="$service" bs=1 skip="$offset" count=$((length - 1)) 2>/dev/null)
            return
        fi
        table=$((table + size)) count=$((count - 1))
    done
}

# libc LOADER: sets $libc to the C library's name.
libc() {
    case ${1##*/} in
    ld-musl-*) libc=musl ;;
    *) libc=glibc ;;
    esac
}

# objects: reads a loader's listing and prints `NAME PATH` lines, the loader's own left out.
objects() {
    while read -r name arrow path _; do
        if [ "$arrow" = '=>' ]; then
            case $name in
            /* | libc.musl-* | libc.so) ;;
            *) printf '%s %s\n' "$name" "$path" ;;
            esac
        fi
    done
}

# add NAME PATH FOLDER: puts the object PATH of the build image into FOLDER of OUT.
add() {
    folder "$3"
    cp -L "$2" "$out$3/$1"
    chmod 0755 "$out$3/$1"
    printf 'roche: %s/%s comes from the build image\n' "$3" "$1" >&2
}

interpreter
[ -n "$loader" ] || exit 0
[ -x "$loader" ] || fail "$service needs the loader $loader, which the build image has not"
libc "$loader"
needed=$("$loader" --list "$service" 2>&1) || fail "the loader of the build image refuses the service: $needed"
case $needed in *'not found'*) fail "the build image lacks shared objects of the service: $needed" ;; esac
needed=$(printf '%s\n' "$needed" | objects)

inside "$loader"
theirs=$runtime$found
if ! [ -e "$theirs" ]; then
    for other in "$runtime"/lib/ld-musl-*.so.1 "$runtime"/lib/ld-linux*.so.* "$runtime"/lib64/ld-linux*.so.* "$runtime"/lib/ld-uClibc*; do
        if [ -e "$other" ] || [ -L "$other" ]; then
            mine=$libc other=${other#"$runtime"}
            libc "$other"
            fail "the service was compiled for $mine ($loader) and the runtime image has $libc ($other): use a runtime image with $mine, or a build image with $libc"
        fi
    done
    # No C library at all: the build image's, and everything beside it.
    place=${loader%/*}
    inside "$place"
    add "${loader##*/}" "$loader" "$found"
    while read -r name path; do
        if [ "$name" = libc.so.6 ]; then place=${path%/*}; fi
    done <<LIST
$needed
LIST
    inside "$place"
    while read -r name path; do
        if [ -n "$name" ]; then add "$name" "$path" "$found"; fi
    done <<LIST
$needed
LIST
    exit 0
fi

# Where the runtime keeps shared objects, as paths of this step; then, for what is
# not there, where the build image has them.
search=''
for dir in /lib/*-linux-* /usr/lib/*-linux-* /lib64 /usr/lib64 /lib32 /usr/lib32 /lib /usr/lib /usr/local/lib; do
    for dir in "$runtime"$dir; do
        inside "${dir#"$runtime"}"
        if [ -d "$runtime$found" ]; then search=$search:$runtime$found; fi
    done
done
for conf in "$runtime"/etc/ld.so.conf "$runtime"/etc/ld.so.conf.d/*.conf "$runtime"/etc/ld-musl-*.path; do
    [ -f "$conf" ] || continue
    while read -r dir _ || [ -n "$dir" ]; do
        case $dir in
        /*)
            inside "$dir"
            if [ -d "$runtime$found" ]; then search=$search:$runtime$found; fi
            ;;
        esac
    done <"$conf"
done
while read -r name path; do
    if [ -n "$name" ]; then search=$search:${path%/*}; fi
done <<LIST
$needed
LIST
search=${search#:}

# version LOADER: what the C library calls itself.
version() { { "$1" --version 2>&1 || :; } | sed -n 's/.*(\(.*\)).*version \([0-9.]*[0-9]\).*/\1/p; s/^Version \(.*\)/musl \1/p' | head -n 1; }

unset LD_LIBRARY_PATH LD_PRELOAD
listing=$("$theirs" --library-path "$search" --list "$service" 2>&1) || :
case $listing in
*' not found (required by '* | *'Error relocating'*)
    printf '%s\n' "$listing" | sed -n '/not found (required by/p; /Error relocating/p' >&2
    fail "the service was compiled for $(version "$loader") and the runtime image has the older $(version "$theirs"): use a newer runtime image or an older build image"
    ;;
*'=>'*) ;;
*) fail "the runtime image's loader $loader refuses the service: $listing" ;;
esac

# What the loader found in the runtime, followed there, must be there.
place=${theirs#"$runtime"}
place=${place%/*}
lacking=''
while read -r name path; do
    [ -n "$name" ] || continue
    case $path in
    "$runtime"/*)
        if [ "$name" = libc.so.6 ]; then place=${path#"$runtime"} && place=${place%/*}; fi
        inside "${path#"$runtime"}"
        if [ -e "$runtime$found" ]; then continue; fi
        ;;
    esac
    lacking="$lacking $name"
done <<LIST
$(printf '%s\n' "$listing" | objects)
LIST

inside "$place"
place=$found
while read -r name path; do
    case " $lacking " in *" $name "*) ;; *) continue ;; esac
    case $name in
    libc.so.* | libm.so.* | libpthread.so.* | libdl.so.* | librt.so.* | libresolv.so.* | libutil.so.* | libmvec.so.*)
        # Parts of one C library work with no other build of it.
        if [ "$(version "$loader")" != "$(version "$theirs")" ]; then
            fail "the runtime image lacks $name of its C library ($(version "$theirs")), and the build image's is of another ($(version "$loader"))"
        fi
        ;;
    esac
    add "$name" "$path" "$place"
done <<LIST
$needed
LIST
