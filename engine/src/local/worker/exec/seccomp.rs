//! The system calls that a step may make: moby's default profile for the capabilities of a step.
//!
//! Invariant: what is not listed fails with EPERM, as in containers; `clone3`, whose flags no filter
//! can see, and calls that are newer than the profile fail with ENOSYS, so that C libraries fall
//! back. A program for another architecture (32-bit) is killed at its first call.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

/// The filters, in the order in which they are installed.
pub(super) struct Filters {
    allowed: BpfProgram,
    unknown: BpfProgram,
}

impl Filters {
    /// Compiles the filters for this machine.
    pub(super) fn compile() -> Result<Self, seccompiler::Error> {
        let filter = SeccompFilter::new(rules()?, SeccompAction::Errno(EPERM), SeccompAction::Allow, ARCH)?;
        Ok(Self { allowed: filter.try_into()?, unknown: unknown() })
    }

    /// Installs the filters in this thread, for good; `no_new_privs` is set before.
    pub(super) fn install(&self) -> Result<(), seccompiler::Error> {
        seccompiler::apply_filter(&self.allowed)?;
        // Of two filters that both refuse, the newer one names the error.
        seccompiler::apply_filter(&self.unknown)
    }
}

#[cfg(target_arch = "x86_64")]
const ARCH: TargetArch = TargetArch::x86_64;
#[cfg(target_arch = "aarch64")]
const ARCH: TargetArch = TargetArch::aarch64;

const EPERM: u32 = libc::EPERM as u32;
const ENOSYS: u32 = libc::ENOSYS as u32;

/// The newest call that the profile knows (`removexattrat`).
const NEWEST: u32 = 466;

/// The flags of `clone` that make namespaces.
const NAMESPACES: u64 = 0x7e02_0000;

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::Error> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        COMMON.iter().chain(NATIVE).chain(NUMBERED).chain(UNNAMED).map(|&call| (call, Vec::new())).collect();
    let rule = |op, value| -> Result<SeccompRule, seccompiler::Error> {
        Ok(SeccompRule::new(vec![SeccompCondition::new(0, Len::Dword, op, value)?])?)
    };
    rules.insert(libc::SYS_clone, vec![rule(Op::MaskedEq(NAMESPACES), 0)?]);
    // Refused by the other filter, with the error that makes C libraries use `clone`.
    rules.insert(libc::SYS_clone3, Vec::new());
    // AF_ALG (38) and AF_VSOCK (40) are for others.
    rules.insert(libc::SYS_socket, vec![rule(Op::Lt, 38)?, rule(Op::Eq, 39)?, rule(Op::Gt, 40)?]);
    let personalities = [0x0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];
    let personalities = personalities.iter().map(|&persona| rule(Op::Eq, persona)).collect::<Result<_, _>>()?;
    rules.insert(libc::SYS_personality, personalities);
    Ok(rules)
}

/// A filter that says ENOSYS to `clone3` and to calls newer than the profile.
fn unknown() -> BpfProgram {
    const LOAD_NUMBER: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const IF_EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const IF_GREATER: u16 = (libc::BPF_JMP | libc::BPF_JGT | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let op = |code, jt, jf, k| sock_filter { code, jt, jf, k };
    vec![
        op(LOAD_NUMBER, 0, 0, 0),
        op(IF_EQUAL, 1, 0, libc::SYS_clone3 as u32),
        op(IF_GREATER, 0, 1, NEWEST),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ERRNO | ENOSYS),
        op(RETURN, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

/// Lists system calls by their names in libc.
macro_rules! calls {
    ($($name:ident)*) => { &[$(libc::$name),*] };
}

/// Calls that libc has no names for on every architecture; their numbers are the same on all:
/// `cachestat`, `fchmodat2`, `map_shadow_stack`, `futex_wake`, `futex_wait`, `futex_requeue`,
/// `statmount`, `listmount`, `setxattrat`, `getxattrat`, `listxattrat`, `removexattrat`.
const UNNAMED: &[i64] = &[451, 452, 453, 454, 455, 456, 457, 458, 463, 464, 465, 466];

/// Calls of aarch64 alone: none.
#[cfg(target_arch = "aarch64")]
const NATIVE: &[i64] = &[];

/// Calls of aarch64 that libc has no names for: `renameat`, `sync_file_range`, `getrlimit`,
/// `setrlimit`, `io_pgetevents`.
#[cfg(target_arch = "aarch64")]
const NUMBERED: &[i64] = &[38, 84, 163, 164, 292];

/// Calls of x86-64 alone.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const NATIVE: &[i64] = calls![
    SYS_access SYS_alarm SYS_arch_prctl SYS_chmod SYS_chown SYS_creat SYS_dup2 SYS_epoll_create
    SYS_epoll_ctl_old SYS_epoll_wait SYS_epoll_wait_old SYS_eventfd SYS_fork SYS_futimesat
    SYS_get_thread_area SYS_getdents SYS_getpgrp SYS_getrlimit SYS_inotify_init SYS_lchown SYS_link
    SYS_lstat SYS_mkdir SYS_mknod SYS_modify_ldt SYS_open SYS_pause SYS_pipe SYS_poll SYS_readlink
    SYS_rename SYS_renameat SYS_rmdir SYS_select SYS_set_thread_area SYS_setrlimit SYS_signalfd
    SYS_stat SYS_symlink SYS_sync_file_range SYS_time SYS_unlink SYS_utime SYS_utimes SYS_vfork];

/// Calls of x86-64 that libc has no names for: `io_pgetevents`, `uretprobe`.
#[cfg(target_arch = "x86_64")]
const NUMBERED: &[i64] = &[333, 335];

/// Calls of every architecture.
#[rustfmt::skip]
const COMMON: &[i64] = calls![
    SYS_accept SYS_accept4 SYS_adjtimex SYS_bind SYS_brk SYS_capget SYS_capset SYS_chdir SYS_chroot
    SYS_clock_adjtime SYS_clock_getres SYS_clock_gettime SYS_clock_nanosleep SYS_close
    SYS_close_range SYS_connect SYS_copy_file_range SYS_dup SYS_dup3 SYS_epoll_create1
    SYS_epoll_ctl SYS_epoll_pwait SYS_epoll_pwait2 SYS_eventfd2 SYS_execve SYS_execveat SYS_exit
    SYS_exit_group SYS_faccessat SYS_faccessat2 SYS_fadvise64 SYS_fallocate SYS_fanotify_mark
    SYS_fchdir SYS_fchmod SYS_fchmodat SYS_fchown SYS_fchownat SYS_fcntl SYS_fdatasync
    SYS_fgetxattr SYS_flistxattr SYS_flock SYS_fremovexattr SYS_fsetxattr SYS_fstat SYS_fstatfs
    SYS_fsync SYS_ftruncate SYS_futex SYS_futex_waitv SYS_get_robust_list SYS_getcpu SYS_getcwd
    SYS_getdents64 SYS_getegid SYS_geteuid SYS_getgid SYS_getgroups SYS_getitimer SYS_getpeername
    SYS_getpgid SYS_getpid SYS_getppid SYS_getpriority SYS_getrandom SYS_getresgid SYS_getresuid
    SYS_getrusage SYS_getsid SYS_getsockname SYS_getsockopt SYS_gettid SYS_gettimeofday SYS_getuid
    SYS_getxattr SYS_inotify_add_watch SYS_inotify_init1 SYS_inotify_rm_watch SYS_io_cancel
    SYS_io_destroy SYS_io_getevents SYS_io_setup SYS_io_submit SYS_ioctl SYS_ioprio_get
    SYS_ioprio_set SYS_kill SYS_landlock_add_rule SYS_landlock_create_ruleset
    SYS_landlock_restrict_self SYS_lgetxattr SYS_linkat SYS_listen SYS_listxattr SYS_llistxattr
    SYS_lremovexattr SYS_lseek SYS_lsetxattr SYS_madvise SYS_membarrier SYS_memfd_create
    SYS_memfd_secret SYS_mincore SYS_mkdirat SYS_mknodat SYS_mlock SYS_mlock2 SYS_mlockall SYS_mmap
    SYS_mprotect SYS_mq_getsetattr SYS_mq_notify SYS_mq_open SYS_mq_timedreceive SYS_mq_timedsend
    SYS_mq_unlink SYS_mremap SYS_mseal SYS_msgctl SYS_msgget SYS_msgrcv SYS_msgsnd SYS_msync
    SYS_munlock SYS_munlockall SYS_munmap SYS_name_to_handle_at SYS_nanosleep SYS_newfstatat
    SYS_openat SYS_openat2 SYS_pidfd_open SYS_pidfd_send_signal SYS_pipe2 SYS_pkey_alloc
    SYS_pkey_free SYS_pkey_mprotect SYS_ppoll SYS_prctl SYS_pread64 SYS_preadv SYS_preadv2
    SYS_prlimit64 SYS_process_mrelease SYS_process_vm_readv SYS_process_vm_writev SYS_pselect6
    SYS_ptrace SYS_pwrite64 SYS_pwritev SYS_pwritev2 SYS_read SYS_readahead SYS_readlinkat
    SYS_readv SYS_recvfrom SYS_recvmmsg SYS_recvmsg SYS_remap_file_pages SYS_removexattr
    SYS_renameat2 SYS_restart_syscall SYS_rseq SYS_rt_sigaction SYS_rt_sigpending
    SYS_rt_sigprocmask SYS_rt_sigqueueinfo SYS_rt_sigreturn SYS_rt_sigsuspend SYS_rt_sigtimedwait
    SYS_rt_tgsigqueueinfo SYS_sched_get_priority_max SYS_sched_get_priority_min
    SYS_sched_getaffinity SYS_sched_getattr SYS_sched_getparam SYS_sched_getscheduler
    SYS_sched_rr_get_interval SYS_sched_setaffinity SYS_sched_setattr SYS_sched_setparam
    SYS_sched_setscheduler SYS_sched_yield SYS_seccomp SYS_semctl SYS_semget SYS_semop
    SYS_semtimedop SYS_sendfile SYS_sendmmsg SYS_sendmsg SYS_sendto SYS_set_robust_list
    SYS_set_tid_address SYS_setfsgid SYS_setfsuid SYS_setgid SYS_setgroups SYS_setitimer
    SYS_setpgid SYS_setpriority SYS_setregid SYS_setresgid SYS_setresuid SYS_setreuid SYS_setsid
    SYS_setsockopt SYS_setuid SYS_setxattr SYS_shmat SYS_shmctl SYS_shmdt SYS_shmget SYS_shutdown
    SYS_sigaltstack SYS_signalfd4 SYS_socketpair SYS_splice SYS_statfs SYS_statx SYS_symlinkat
    SYS_sync SYS_syncfs SYS_sysinfo SYS_tee SYS_tgkill SYS_timer_create SYS_timer_delete
    SYS_timer_getoverrun SYS_timer_gettime SYS_timer_settime SYS_timerfd_create SYS_timerfd_gettime
    SYS_timerfd_settime SYS_times SYS_tkill SYS_truncate SYS_umask SYS_uname SYS_unlinkat
    SYS_utimensat SYS_vmsplice SYS_wait4 SYS_waitid SYS_write SYS_writev
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_filters_compile_and_hold_what_is_dangerous_back() {
        let rules = rules().unwrap();
        for refused in
            [libc::SYS_mount, libc::SYS_unshare, libc::SYS_setns, libc::SYS_bpf, libc::SYS_keyctl, libc::SYS_pivot_root]
        {
            assert!(!rules.contains_key(&refused), "{refused}");
        }
        for conditional in [libc::SYS_clone, libc::SYS_socket, libc::SYS_personality] {
            assert!(!rules[&conditional].is_empty(), "{conditional}");
        }
        for allowed in [libc::SYS_execve, libc::SYS_chroot, libc::SYS_openat2, libc::SYS_ptrace, libc::SYS_chown] {
            assert!(rules[&allowed].is_empty(), "{allowed}");
        }
        Filters::compile().unwrap();
    }
}
