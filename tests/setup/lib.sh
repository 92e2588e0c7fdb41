# shellcheck shell=bash
# Shared by the set-up scripts: where state and cache live, waiting with a
# deadline, and apt's own mirror.
# Invariant: no mirror address, and nothing that was not asked for, is printed.

STATE=${ROCHE_TEST_STATE:-/tmp/roche-tests}
CACHE=${ROCHE_TEST_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/roche-tests}
export LC_ALL=C
PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
# A failure inside $(…) is a failure.
shopt -s inherit_errexit

# Bookworm's client, never another one that stands earlier in PATH.
# shellcheck disable=SC2034
DOCKER=/usr/bin/docker

say() { printf 'setup: %s\n' "$*" >&2; }

die() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

# Replaces every URL on stdin, so that a log can be shown.
redact() { sed -E 's#[a-z+]+://[^[:space:]'\''"]+#<url>#g'; }

# show_log FILE [LINES]: the end of a log, redacted, on stderr.
show_log() {
    [ -s "$1" ] || return 0
    printf -- '--- last lines of %s\n' "$1" >&2
    tail -n "${2:-25}" "$1" | redact >&2
    printf -- '---\n' >&2
}

# wait_for WHAT SECONDS PID COMMAND...: until COMMAND succeeds. Fails when the
# deadline passes or, unless PID is 0, when that process has ended.
wait_for() {
    local what=$1 seconds=$2 pid=$3 deadline
    shift 3
    deadline=$((SECONDS + seconds))
    until "$@" >/dev/null 2>&1; do
        if [ "$pid" != 0 ] && ! kill -0 "$pid" 2>/dev/null; then
            printf 'error: %s ended before it was ready\n' "$what" >&2
            return 1
        fi
        if [ "$SECONDS" -ge "$deadline" ]; then
            printf 'error: %s was not ready within %s s\n' "$what" "$seconds" >&2
            return 1
        fi
        sleep 0.1
    done
}

# start_time PID: the kernel's start time of a process, which together with its
# id names it for good, so that a reused id is never signalled.
start_time() {
    local stat
    stat=$(cat "/proc/$1/stat" 2>/dev/null) || return 1
    # The second field may hold spaces; the 22nd is the 20th after the ')'.
    stat=${stat##*) }
    # shellcheck disable=SC2086
    set -- $stat
    printf '%s\n' "${20}"
}

# record_pid FILE PID / recorded_pid FILE: prints the id only while the very
# same process lives.
record_pid() { printf '%s %s\n' "$2" "$(start_time "$2")" >"$1"; }
recorded_pid() {
    local pid start
    read -r pid start 2>/dev/null <"$1" || return 1
    [ "$(start_time "$pid")" = "$start" ] || return 1
    printf '%s\n' "$pid"
}

# end_recorded FILE SECONDS [child]: TERM, then KILL, to the recorded process.
# With "child" the TERM goes to its only child, the first of its pid namespace.
end_recorded() {
    local file=$1 seconds=$2 pid target deadline
    if pid=$(recorded_pid "$file"); then
        target=$pid
        [ "${3:-}" = child ] && target=$(pgrep -P "$pid" || printf '%s' "$pid")
        kill -TERM "$target" 2>/dev/null || true
        deadline=$((SECONDS + seconds))
        while recorded_pid "$file" >/dev/null && [ "$SECONDS" -lt "$deadline" ]; do
            sleep 0.1
        done
        if recorded_pid "$file" >/dev/null; then
            say "process $target did not end within $seconds s: killed"
            kill -KILL "$target" "$pid" 2>/dev/null || true
            sleep 0.3
        fi
    fi
    rm -f "$file"
}

# apt_source SUITE: one sources.list line for SUITE, on the mirror and with the
# keys that apt is configured with on this machine. apt itself reads its
# configuration here, so both file formats work.
apt_source() {
    local site entry keys=/usr/share/keyrings/debian-archive-keyring.gpg key
    # shellcheck disable=SC2016
    read -r site entry < <(apt-get indextargets --format \
        '$(REPO_URI) $(SOURCESENTRY) $(CODENAME) $(COMPONENT) $(ORIGIN)' 'Created-By: Packages' |
        awk '$3 ~ /^(bookworm|trixie|forky|sid)$/ && $4 == "main" && $5 == "Debian" { print $1, $2; exit }') ||
        die "apt knows no Debian mirror: add one to /etc/apt and run apt-get update"
    while read -r key; do
        [ -r "$key" ] && [ "$key" != "$keys" ] && keys+=,$key
    done < <(grep -iE 'signed-by' "${entry%:*}" | grep -oE '/[^] ,]+' || true)
    printf 'deb [signed-by=%s] %s %s main\n' "$keys" "$site" "$1"
}

# apt_options FILE: apt's own fetch settings (proxy, date checks) for mmdebstrap.
apt_options() {
    apt-config dump Acquire | grep -vE '^Acquire::(IndexTargets|Changelogs|cdrom)' >"$1"
}

# make_debian_tar OUT SUITE MMDEBSTRAP-OPTION...: a minbase root as a tar, whose
# files tell nothing of the mirror.
make_debian_tar() {
    local out=$1 suite=$2 work
    shift 2
    work=$(mktemp -d "$STATE/debian.XXXXXX")
    apt_options "$work/apt.conf"
    # Equal packages give an equal tar (SOURCE_DATE_EPOCH).
    # shellcheck disable=SC2016
    if ! apt_source "$suite" | SOURCE_DATE_EPOCH=1700000000 mmdebstrap --mode=root --variant=minbase --format=tar \
        --aptopt="$work/apt.conf" --aptopt='Acquire::Languages "none"' \
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*' \
        --dpkgopt='path-exclude=/usr/share/locale/*' \
        --customize-hook='rm -f "$1"/etc/apt/apt.conf.d/99mmdebstrap "$1"/etc/resolv.conf "$1"/etc/hostname' \
        --customize-hook='rm -rf "$1"/var/cache/apt/* "$1"/var/lib/apt/lists/* "$1"/var/log/*' \
        --customize-hook='rm -f "$1"/etc/apt/sources.list.d/*' \
        --customize-hook="echo 'deb http://deb.debian.org/debian $suite main' >\"\$1\"/etc/apt/sources.list" \
        "$@" "$suite" "$work/root.tar" - >"$work/log" 2>&1; then
        show_log "$work/log"
        die "mmdebstrap could not make a $suite root: is apt's mirror reachable?"
    fi
    mv "$work/root.tar" "$out"
    rm -rf "$work"
}

# debian_tar SUITE MMDEBSTRAP-OPTION...: the path of such a tar in the cache,
# named by its recipe's hash and made when it is not there.
debian_tar() {
    local tar
    tar=$CACHE/$1-$(recipe_key "$(declare -f make_debian_tar)" "$@").tar
    mkdir -p "$CACHE" "$STATE"
    (
        flock 8
        if [ ! -e "$tar" ]; then
            say "making a Debian $1 root (${*:2})"
            make_debian_tar "$tar.new" "$@"
            mv "$tar.new" "$tar"
        fi
    ) 8>"$tar.lock"
    printf '%s\n' "$tar"
}

# recipe_key TEXT...: the name under which what TEXT makes is cached.
recipe_key() { printf '%s\0' "$@" | sha256sum | cut -c1-16; }
