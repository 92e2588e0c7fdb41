//! What a step may do: limits, capabilities, identity.
//!
//! Invariant: nothing is given back once it is taken. Capabilities are moby's default less MKNOD, in
//! a user namespace that holds nothing but the step; `no_new_privs` keeps set-uid programs inert.

use rustix::io;
use rustix::process::{Resource, Rlimit, Signal};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::super::protocol::{Doing, Failure, Ulimit};
use super::user::User;
use crate::local::ids::Ids;

/// What a step's root may do.
const CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETFCAP)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::AUDIT_WRITE);

/// The most processes and threads of one step: a fork bomb ends there, and no build comes near it.
pub(super) const PROCESSES: u64 = 16_384;

/// Sets limits. The kernel counts processes by user and user namespace, so the step's limit is its
/// own; root of the machine is exempt, which is why its PID namespace is limited too.
pub(super) fn limit(ulimits: &[Ulimit]) -> Result<(), Failure> {
    let held = rustix::process::getrlimit(Resource::Nproc);
    let most = held.maximum.map_or(PROCESSES, |most| most.min(PROCESSES));
    let limit = Rlimit { current: Some(held.current.map_or(most, |current| current.min(most))), maximum: Some(most) };
    rustix::process::setrlimit(Resource::Nproc, limit).doing(|| "limiting processes")?;
    for ulimit in ulimits {
        let doing = || format!("setting the limit {} to {}:{}", ulimit.name, ulimit.soft, ulimit.hard);
        let resource = resource(&ulimit.name).ok_or_else(|| Failure::new(doing(), "there is no such limit"))?;
        let value = |limit: i64| u64::try_from(limit).ok();
        rustix::process::setrlimit(resource, Rlimit { current: value(ulimit.soft), maximum: value(ulimit.hard) }).doing(doing)?;
    }
    Ok(())
}

fn resource(name: &str) -> Option<Resource> {
    Some(match name.to_ascii_lowercase().as_str() {
        "as" => Resource::As,
        "core" => Resource::Core,
        "cpu" => Resource::Cpu,
        "data" => Resource::Data,
        "fsize" => Resource::Fsize,
        "locks" => Resource::Locks,
        "memlock" => Resource::Memlock,
        "msgqueue" => Resource::Msgqueue,
        "nice" => Resource::Nice,
        "nofile" => Resource::Nofile,
        "nproc" => Resource::Nproc,
        "rss" => Resource::Rss,
        "rtprio" => Resource::Rtprio,
        "rttime" => Resource::Rttime,
        "sigpending" => Resource::Sigpending,
        "stack" => Resource::Stack,
        _ => return None,
    })
}

/// Becomes the step's user, with its capabilities, for good.
pub(super) fn become_user(user: &User, ids: &Ids) -> io::Result<()> {
    for capability in (0..64).map(|number| CapabilitySet::from_bits_retain(1 << number)) {
        if CAPABILITIES.contains(capability) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(capability) {
            // Past the last one that the kernel knows.
            Err(io::Errno::INVAL) => break,
            result => result?,
        }
    }
    let gid = rustix::fs::Gid::from_raw(user.gid);
    let uid = rustix::fs::Uid::from_raw(user.uid);
    // An ordinary user's namespace of one id may not set groups: they could be meant to forbid.
    if *ids != Ids::Single {
        let groups: Vec<_> = user.groups.iter().map(|&gid| rustix::fs::Gid::from_raw(gid)).collect();
        rustix::thread::set_thread_groups(&groups)?;
    }
    rustix::thread::set_thread_res_gid(gid, gid, gid)?;
    rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    let kept = if user.uid == 0 { CAPABILITIES } else { CapabilitySet::empty() };
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    rustix::thread::set_capabilities(None, sets)?;
    // After the change of user, which clears it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::thread::set_no_new_privs(true)
}

/// Gives signals back what they do by default: Rust's runtime ignores SIGPIPE, and that is inherited.
pub(super) fn reset_signals() {
    for signal in 1..=64 {
        // SAFETY: SIG_DFL is no handler; errors (SIGKILL, numbers that the C library keeps) change nothing.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    // SAFETY: the set is initialised by sigemptyset before it is read.
    unsafe {
        let mut none = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thirteen_capabilities_are_kept_and_no_dangerous_one() {
        assert_eq!(CAPABILITIES.bits().count_ones(), 13);
        assert!(!CAPABILITIES.intersects(CapabilitySet::SYS_ADMIN | CapabilitySet::MKNOD | CapabilitySet::NET_ADMIN));
    }

    #[test]
    fn limits_are_known_by_their_names() {
        assert_eq!(resource("NOFILE"), Some(Resource::Nofile));
        assert_eq!(resource("files"), None);
    }
}
