"""Numbers of the system calls the filter names, grouped by the reason to name them.

Source: ``asm/unistd_64.h`` (x86_64) and ``asm-generic/unistd.h`` (aarch64) of Linux 6.1. Each
entry is ``name: (x86_64, aarch64)``; :data:`ABSENT` marks a call the architecture never had.
"""

from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ("ABSENT", "ARCHITECTURES", "DENIED", "JUDGED", "LAST_KNOWN", "Architecture", "number")

ABSENT = -1

# Calls numbered above the table answer ENOSYS: what a later kernel adds is not reachable before
# someone has read it. The C library falls back, as it does on an older kernel.
LAST_KNOWN = 450


@dataclass(frozen=True, slots=True)
class Architecture:
    """`audit` is the AUDIT_ARCH_* value seccomp reports; `column` selects the table's number."""

    audit: int
    column: int
    foreign_bit: int  # set in the number by a second ABI under the same audit value (x32), else 0


ARCHITECTURES: Mapping[str, Architecture] = {
    "x86_64": Architecture(audit=0xC000003E, column=0, foreign_bit=0x40000000),
    "aarch64": Architecture(audit=0xC00000B7, column=1, foreign_bit=0),
}

# Refused with EPERM whatever the arguments.
DENIED: Mapping[str, tuple[int, int]] = {
    # Paths: after warm-up every byte comes through a descriptor that is already open.
    "open": (2, -1),
    "creat": (85, -1),
    "openat": (257, 56),
    "openat2": (437, 437),
    "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265),
    "truncate": (76, 45),
    "rename": (82, -1),
    "renameat": (264, 38),
    "renameat2": (316, 276),
    "link": (86, -1),
    "linkat": (265, 37),
    "symlink": (88, -1),
    "symlinkat": (266, 36),
    "unlink": (87, -1),
    "unlinkat": (263, 35),
    "mkdir": (83, -1),
    "mkdirat": (258, 34),
    "rmdir": (84, -1),
    "mknod": (133, -1),
    "mknodat": (259, 33),
    "chmod": (90, -1),
    "fchmod": (91, 52),
    "fchmodat": (268, 53),
    "chown": (92, -1),
    "fchown": (93, 55),
    "lchown": (94, -1),
    "fchownat": (260, 54),
    "utime": (132, -1),
    "utimes": (235, -1),
    "futimesat": (261, -1),
    "utimensat": (280, 88),
    "access": (21, -1),
    "faccessat": (269, 48),
    "faccessat2": (439, 439),
    "readlink": (89, -1),
    "readlinkat": (267, 78),
    "chdir": (80, 49),
    "fchdir": (81, 50),
    "chroot": (161, 51),
    "pivot_root": (155, 41),
    "statfs": (137, 43),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "fsetxattr": (190, 7),
    "getxattr": (191, 8),
    "lgetxattr": (192, 9),
    "listxattr": (194, 11),
    "llistxattr": (195, 12),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "fremovexattr": (199, 16),
    "inotify_init": (253, -1),
    "inotify_init1": (294, 26),
    "inotify_add_watch": (254, 27),
    "fanotify_init": (300, 262),
    "fanotify_mark": (301, 263),
    # Sockets: the worker talks over what it was given; see JUDGED for socketpair and sendto.
    "socket": (41, 198),
    "connect": (42, 203),
    "bind": (49, 200),
    "listen": (50, 201),
    "accept": (43, 202),
    "accept4": (288, 242),
    "sendmmsg": (307, 269),
    # Processes: none is started, none is looked into, none is signalled.
    "fork": (57, -1),
    "vfork": (58, -1),
    "execve": (59, 221),
    "execveat": (322, 281),
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "process_mrelease": (448, 448),
    "pidfd_open": (434, 434),
    "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424),
    "kcmp": (312, 272),
    "kill": (62, 129),
    "tkill": (200, 130),
    "rt_sigqueueinfo": (129, 138),
    "rt_tgsigqueueinfo": (297, 240),
    "setns": (308, 268),
    "unshare": (272, 97),
    "setsid": (112, 157),
    "setpgid": (109, 154),
    "setrlimit": (160, 164),
    # Identity: already without privilege; these would only serve an exploit.
    "setuid": (105, 146),
    "setgid": (106, 144),
    "setreuid": (113, 145),
    "setregid": (114, 143),
    "setresuid": (117, 147),
    "setresgid": (119, 149),
    "setfsuid": (122, 151),
    "setfsgid": (123, 152),
    "setgroups": (116, 159),
    "capset": (126, 91),
    "personality": (135, 92),
    # Channels between processes that no descriptor stands for.
    "shmget": (29, 194),
    "shmat": (30, 196),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "semget": (64, 190),
    "semop": (65, 193),
    "mq_open": (240, 180),
    "mq_unlink": (241, 181),
    # Kernel surface with a history of privilege bugs, or with no use here at all.
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    "io_setup": (206, 0),
    "io_submit": (209, 2),
    "io_destroy": (207, 1),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "lookup_dcookie": (212, 18),
    "vmsplice": (278, 75),
    "move_pages": (279, 239),
    "migrate_pages": (256, 238),
    "remap_file_pages": (216, 234),
    "modify_ldt": (154, -1),
    "ioperm": (173, -1),
    "iopl": (172, -1),
    "uselib": (134, -1),
    "ustat": (136, -1),
    "sysfs": (139, -1),
    "_sysctl": (156, -1),
    "syslog": (103, 116),
    "vhangup": (153, 58),
    "acct": (163, 89),
    "quotactl": (179, 60),
    "quotactl_fd": (443, 443),
    "nfsservctl": (180, 42),
    # Administration of the machine.
    "mount": (165, 40),
    "umount2": (166, 39),
    "mount_setattr": (442, 442),
    "move_mount": (429, 429),
    "open_tree": (428, 428),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "reboot": (169, 142),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "sethostname": (170, 161),
    "setdomainname": (171, 162),
    "settimeofday": (164, 170),
    "clock_settime": (227, 112),
    "adjtimex": (159, 171),
    "clock_adjtime": (305, 266),
    "sync": (162, 81),
    "syncfs": (306, 267),
}

# Decided by arguments in seccomp.py.
JUDGED: Mapping[str, tuple[int, int]] = {
    "clone": (56, 220),
    "socketpair": (53, 199),
    "sendto": (44, 206),
    "prctl": (157, 167),
    "prlimit64": (302, 261),
    "ioctl": (16, 29),
    "clone3": (435, 435),
}


def number(entry: tuple[int, int], architecture: Architecture) -> int:
    """The entry's number on `architecture`, or :data:`ABSENT`."""
    return entry[architecture.column]
