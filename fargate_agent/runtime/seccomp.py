"""Which system calls a container may make.

The policy is Docker's: what is not named here fails with EPERM, and what needs a capability is
allowed exactly to those containers that have it. A container without CAP_SYS_ADMIN can't make
namespaces, mount, or use the kernel's keyrings, although it runs as root.

Source: Docker documentation, "Seccomp security profiles for Docker"; names are the kernel's.
"""

import errno
from collections.abc import Iterable, Iterator, Mapping
from typing import Final, TypeAlias

JsonObject: TypeAlias = dict[str, object]
"""A JSON object of the OCI specification, on its way into the bytes that containerd is given."""

_ALLOWED_NAMES: Final = """
    accept accept4 access adjtimex alarm bind brk cachestat capget capset chdir chmod chown
    chown32 clock_adjtime clock_adjtime64 clock_getres clock_getres_time64 clock_gettime
    clock_gettime64 clock_nanosleep clock_nanosleep_time64 close close_range connect
    copy_file_range creat dup dup2 dup3 epoll_create epoll_create1 epoll_ctl epoll_ctl_old
    epoll_pwait epoll_pwait2 epoll_wait epoll_wait_old eventfd eventfd2 execve execveat exit
    exit_group faccessat faccessat2 fadvise64 fadvise64_64 fallocate fanotify_mark fchdir fchmod
    fchmodat fchmodat2 fchown fchown32 fchownat fcntl fcntl64 fdatasync fgetxattr flistxattr flock
    fork fremovexattr fsetxattr fstat fstat64 fstatat64 fstatfs fstatfs64 fsync ftruncate
    ftruncate64 futex futex_requeue futex_time64 futex_wait futex_waitv futex_wake futimesat
    get_robust_list get_thread_area getcpu getcwd getdents getdents64 getegid getegid32 geteuid
    geteuid32 getgid getgid32 getgroups getgroups32 getitimer getpeername getpgid getpgrp getpid
    getppid getpriority getrandom getresgid getresgid32 getresuid getresuid32 getrlimit getrusage
    getsid getsockname getsockopt gettid gettimeofday getuid getuid32 getxattr getxattrat
    inotify_add_watch inotify_init inotify_init1 inotify_rm_watch io_cancel io_destroy
    io_getevents io_pgetevents io_pgetevents_time64 io_setup io_submit ioctl ioprio_get ioprio_set
    ipc kill landlock_add_rule landlock_create_ruleset landlock_restrict_self lchown lchown32
    lgetxattr link linkat listen listmount listxattr listxattrat llistxattr _llseek lremovexattr
    lseek lsetxattr lstat lstat64 madvise map_shadow_stack membarrier memfd_create memfd_secret
    mincore mkdir mkdirat mknod mknodat mlock mlock2 mlockall mmap mmap2 mprotect mq_getsetattr
    mq_notify mq_open mq_timedreceive mq_timedreceive_time64 mq_timedsend mq_timedsend_time64
    mq_unlink mremap mseal msgctl msgget msgrcv msgsnd msync munlock munlockall munmap
    name_to_handle_at nanosleep newfstatat _newselect open openat openat2 pause pidfd_open
    pidfd_send_signal pipe pipe2 pkey_alloc pkey_free pkey_mprotect poll ppoll ppoll_time64 prctl
    pread64 preadv preadv2 prlimit64 process_mrelease process_vm_readv process_vm_writev pselect6
    pselect6_time64 ptrace pwrite64 pwritev pwritev2 read readahead readlink readlinkat readv recv
    recvfrom recvmmsg recvmmsg_time64 recvmsg remap_file_pages removexattr removexattrat rename
    renameat renameat2 restart_syscall rmdir rseq rt_sigaction rt_sigpending rt_sigprocmask
    rt_sigqueueinfo rt_sigreturn rt_sigsuspend rt_sigtimedwait rt_sigtimedwait_time64
    rt_tgsigqueueinfo sched_get_priority_max sched_get_priority_min sched_getaffinity
    sched_getattr sched_getparam sched_getscheduler sched_rr_get_interval
    sched_rr_get_interval_time64 sched_setaffinity sched_setattr sched_setparam sched_setscheduler
    sched_yield seccomp select semctl semget semop semtimedop semtimedop_time64 send sendfile
    sendfile64 sendmmsg sendmsg sendto set_robust_list set_thread_area set_tid_address setfsgid
    setfsgid32 setfsuid setfsuid32 setgid setgid32 setgroups setgroups32 setitimer setpgid
    setpriority setregid setregid32 setresgid setresgid32 setresuid setresuid32 setreuid
    setreuid32 setrlimit setsid setsockopt setuid setuid32 setxattr setxattrat shmat shmctl shmdt
    shmget shutdown sigaltstack signalfd signalfd4 sigprocmask sigreturn socketcall socketpair
    splice stat stat64 statfs statfs64 statmount statx symlink symlinkat sync sync_file_range
    syncfs sysinfo tee tgkill time timer_create timer_delete timer_getoverrun timer_gettime
    timer_gettime64 timer_settime timer_settime64 timerfd_create timerfd_gettime timerfd_gettime64
    timerfd_settime timerfd_settime64 times tkill truncate truncate64 ugetrlimit umask uname
    unlink unlinkat uretprobe utime utimensat utimensat_time64 utimes vfork vmsplice wait4 waitid
    waitpid write writev
"""

ALLOWED: Final = frozenset(_ALLOWED_NAMES.split())
"""Allowed to every container, whatever the arguments.

ptrace and its kin are among them: since Linux 4.8 a tracer can't escape the filter. The io_uring
calls are not: they reach past a filter that looks at system calls.
"""

BY_ARCHITECTURE: Final[Mapping[str, frozenset[str]]] = {
    "amd64": frozenset({"arch_prctl", "modify_ldt"}),
    "arm64": frozenset(
        {
            "arm_fadvise64_64",
            "arm_sync_file_range",
            "breakpoint",
            "cacheflush",
            "set_tls",
            "sync_file_range2",
        }
    ),
}
"""What only exists on one architecture."""

_ADMIN_NAMES: Final = """
    bpf clone clone3 fanotify_init fsconfig fsmount fsopen fspick lookup_dcookie lsm_get_self_attr
    lsm_list_modules lsm_set_self_attr mount mount_setattr move_mount open_tree perf_event_open
    quotactl quotactl_fd setdomainname sethostname setns syslog umount umount2 unshare
"""

BY_CAPABILITY: Final[Mapping[str, frozenset[str]]] = {
    "CAP_BPF": frozenset({"bpf"}),
    "CAP_DAC_READ_SEARCH": frozenset({"open_by_handle_at"}),
    "CAP_PERFMON": frozenset({"perf_event_open"}),
    "CAP_SYSLOG": frozenset({"syslog"}),
    "CAP_SYS_ADMIN": frozenset(_ADMIN_NAMES.split()),
    "CAP_SYS_BOOT": frozenset({"reboot"}),
    "CAP_SYS_CHROOT": frozenset({"chroot"}),
    "CAP_SYS_MODULE": frozenset({"delete_module", "finit_module", "init_module"}),
    "CAP_SYS_NICE": frozenset(
        {"get_mempolicy", "mbind", "set_mempolicy", "set_mempolicy_home_node"}
    ),
    "CAP_SYS_PACCT": frozenset({"acct"}),
    "CAP_SYS_PTRACE": frozenset({"kcmp", "pidfd_getfd", "process_madvise"}),
    "CAP_SYS_RAWIO": frozenset({"ioperm", "iopl"}),
    "CAP_SYS_TIME": frozenset({"clock_settime", "clock_settime64", "settimeofday", "stime"}),
    "CAP_SYS_TTY_CONFIG": frozenset({"vhangup"}),
}
"""Allowed to a container that has the capability."""

PERSONALITIES: Final = (0x0, 0x8, 0x20000, 0x20008, 0xFFFFFFFF)
"""What `personality` may be asked for: Linux, 32-bit Linux, both with the release that programs
see fixed to 2.6, and the question what it is. Source: linux/personality.h."""

OLD_FAMILIES: Final = 12
"""Socket families below this are open: Unix, IPv4 and IPv6 are among them."""

YOUNG_FAMILIES: Final = (16, 17)
"""Netlink and packet. The others never worked on Fargate, whose kernel doesn't have them; here they
would load modules of the host, or, as virtual machine sockets do, know no network namespace.
Source: linux/socket.h."""

_NEW_NAMESPACES: Final = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID and NEWNET. Source: linux/sched.h."""

_ARCHITECTURES: Final[Mapping[str, tuple[str, ...]]] = {
    "amd64": ("SCMP_ARCH_X86_64", "SCMP_ARCH_X86"),
    "arm64": ("SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"),
}
"""A machine's own architecture, and the one of 32 bits that it also runs. Each costs runC 7 ms per
container, so x32 isn't among them, which kernels don't offer unless they are told to."""


def render_seccomp(architecture: str, capabilities: Iterable[str]) -> JsonObject:
    """Return `linux.seccomp` of the OCI specification.

    `architecture` is `amd64` or `arm64`; `capabilities` are those of the container's bounding set.
    """
    held = frozenset(capabilities)
    names = ALLOWED.union(
        BY_ARCHITECTURE[architecture],
        *(calls for capability, calls in BY_CAPABILITY.items() if capability in held),
    )
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": list(_ARCHITECTURES[architecture]),
        "syscalls": [
            {"names": sorted(names), "action": "SCMP_ACT_ALLOW"},
            *_rules_by_argument(),
            *([] if "CAP_SYS_ADMIN" in held else _rules_without_admin()),
        ],
    }


def _rules_by_argument() -> Iterator[JsonObject]:
    for persona in PERSONALITIES:
        yield _allow("personality", persona, "SCMP_CMP_EQ")
    yield _allow("socket", OLD_FAMILIES, "SCMP_CMP_LT")
    for family in YOUNG_FAMILIES:
        yield _allow("socket", family, "SCMP_CMP_EQ")


def _rules_without_admin() -> Iterator[JsonObject]:
    """A process may be cloned, but not into new namespaces.

    clone3 hides its flags behind a pointer, so it "doesn't exist": libraries then use clone.
    """
    yield _allow("clone", _NEW_NAMESPACES, "SCMP_CMP_MASKED_EQ")
    yield {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS}


def _allow(name: str, value: int, comparison: str) -> JsonObject:
    return {
        "names": [name],
        "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 0, "value": value, "op": comparison}],
    }
