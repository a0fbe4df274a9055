package fs

import (
	"os"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// bootID names this run of the machine: what a process wrote before it died is in
// the kernel's cache only in the same one. "" if that cannot be known.
var bootID = sync.OnceValue(func() string {
	b, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil || len(b) > 64 {
		return ""
	}
	return strings.TrimSpace(string(b))
})

// mountID names the mount that a directory is on, for as long as it is mounted: a
// file system that was lost and mounted again in the same run of the machine has
// not what was in the cache. 0 if that cannot be known, before Linux 6.8.
func mountID(fd int) uint64 {
	const unique = 0x4000 // STATX_MNT_ID_UNIQUE
	var st unix.Statx_t
	if unix.Statx(fd, "", unix.AT_EMPTY_PATH, unique, &st) != nil || st.Mask&unique == 0 {
		return 0
	}
	return st.Mnt_id
}

// wholeSyncReports reports whether syncfs says that something was not written. It
// does since Linux 5.8; before, it returned nil.
var wholeSyncReports = sync.OnceValue(func() bool {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return false
	}
	major, rest, _ := strings.Cut(unix.ByteSliceToString(u.Release[:]), ".")
	minor, _, _ := strings.Cut(rest, ".")
	a, errA := strconv.Atoi(major)
	b, errB := strconv.Atoi(minor)
	return errA == nil && errB == nil && (a > 5 || a == 5 && b >= 8)
})
