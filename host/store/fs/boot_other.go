//go:build darwin || freebsd

package fs

// bootID names this run of the machine. It is not asked for here: after a crash,
// nothing is believed to be in the kernel's cache.
func bootID() string { return "" }

// mountID names the mount that a directory is on.
func mountID(int) uint64 { return 0 }

// wholeSyncReports reports whether a sync of the whole file system says that
// something was not written.
func wholeSyncReports() bool { return false }
