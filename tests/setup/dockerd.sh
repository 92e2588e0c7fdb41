# shellcheck shell=bash
# Starts and ends a dockerd in namespaces of its own; sourced after lib.sh.
# Invariant: a daemon's containerd, containers and mounts end with the first
# process of its pid namespace, so that `stop` cannot leave any of them behind.

# trixie_root: the folder of a trixie root with docker.io, shared read-only by
# all modern daemons and made at most once.
trixie_root() {
    local tar root
    tar=$(debian_tar trixie --include=docker.io,ca-certificates,iptables,git)
    root=$STATE/$(basename "$tar" .tar)
    (
        flock 9
        if [ ! -e "$root" ]; then
            rm -rf "$root.new"
            mkdir "$root.new"
            tar -C "$root.new" --numeric-owner -xpf "$tar"
            mv "$root.new" "$root"
        fi
    ) 9>"$STATE/trixie.lock"
    printf '%s\n' "$root"
}

# dockerd_config DIR BRIDGE FEATURES: the daemon.json. No iptables and no
# forwarding: the host reaches containers over the bridge and dockerd's proxy
# publishes ports, so that the machine's firewall stays as it is. The builder's
# cache is never collected, since tests rely on it.
dockerd_config() {
    cat <<JSON
{
    "data-root": "$1/data",
    "exec-root": "$1/exec",
    "pidfile": "$1/docker.pid",
    "hosts": ["unix://$1/docker.sock"],
    "bridge": "$2",
    "iptables": false,
    "ip6tables": false,
    "ip-masq": false,
    "ip-forward": false,
    "exec-opts": ["native.cgroupdriver=cgroupfs"],
    "cgroup-parent": "/roche-tests-$2",
    "builder": { "gc": { "enabled": false } },
    "features": { $3 },
    "shutdown-timeout": 5
}
JSON
}

# bridge_up BRIDGE: makes the bridge on a free 10.213.N.0/24.
bridge_up() {
    local n first
    first=$(($(printf '%s' "$1" | cksum | cut -d' ' -f1) % 200))
    for n in $(seq "$first" 250) $(seq 0 "$first"); do
        if ip -4 -o addr show | grep -qF " 10.213.$n."; then continue; fi
        ip link add "$1" type bridge
        ip addr add "10.213.$n.1/24" dev "$1"
        ip link set "$1" up
        return 0
    done
    die "no free subnet for the bridge $1 in 10.213.0.0/16"
}

# dockerd_start NAME ROOT FEATURES: starts dockerd out of ROOT ("/" is the
# machine's own) and waits until it answers. A running one is left as it is; what
# a killed one left behind is removed first, so that the store is empty.
dockerd_start() {
    local name=$1 root=$2 dir=$STATE/$1 bridge log
    # Names of the whole machine hold a hash of $STATE, so that two can coexist.
    bridge=r$(recipe_key "$STATE" | cut -c1-4)$name
    log=$dir/dockerd.log
    if recorded_pid "$dir/pid" >/dev/null; then
        wait_for "dockerd $name" 60 0 "$DOCKER" -H "unix://$dir/docker.sock" version
        return
    fi
    dockerd_stop "$name"
    # A machine that was reset in the middle may have kept the bridge without the folder that tells of it.
    ip link delete "$bridge" 2>/dev/null || true
    [ ${#dir} -le 60 ] || die "$dir is too long for a socket's path: set ROCHE_TEST_STATE to a short one"
    mkdir -p "$dir/data" "$dir/exec" "$dir/root" "$dir/upper" "$dir/work"
    dockerd_config "$dir" "$bridge" "$3" >"$dir/daemon.json"
    bridge_up "$bridge"
    setsid unshare --mount --propagation private --pid --fork --kill-child \
        "$SETUP/enter-root" "$root" "$dir" \
        docker-init -- dockerd --config-file "$dir/daemon.json" \
        >"$log" 2>&1 </dev/null &
    record_pid "$dir/pid" $!
    disown
    if ! wait_for "dockerd $name" 60 "$(cut -d' ' -f1 "$dir/pid")" \
        "$DOCKER" -H "unix://$dir/docker.sock" version; then
        show_log "$log"
        dockerd_stop "$name"
        exit 1
    fi
}

# dockerd_stop NAME: ends the daemon with all it started and removes its data.
dockerd_stop() {
    local dir=$STATE/$1 bridge
    [ -d "$dir" ] || return 0
    end_recorded "$dir/pid" 20 child
    if bridge=$(jq -re .bridge "$dir/daemon.json" 2>/dev/null); then
        ip link delete "$bridge" 2>/dev/null || true
        find /sys/fs/cgroup -depth -type d -path "*/roche-tests-$bridge*" -exec rmdir {} + 2>/dev/null || true
    fi
    rm -rf "$dir"
}
