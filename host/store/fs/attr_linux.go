package fs

import "golang.org/x/sys/unix"

// immutable reports whether the owner has forbidden, with chattr, to remove or
// rename an entry. File systems that know no such thing say no.
func immutable(dir int, name string) bool {
	var st unix.Statx_t
	const forbid = unix.STATX_ATTR_IMMUTABLE | unix.STATX_ATTR_APPEND
	return unix.Statx(dir, name, unix.AT_SYMLINK_NOFOLLOW, unix.STATX_TYPE, &st) == nil && st.Attributes&forbid != 0
}

// casefold tells of a directory whether files in it are found by names of another
// case, where that is known without a try: on file systems that say so of each
// directory, or never do it.
func casefold(dir int) (folds, known bool) {
	var st unix.Statfs_t
	if unix.Fstatfs(dir, &st) != nil {
		return false, false
	}
	const casefoldFlag = 0x40000000 // FS_CASEFOLD_FL of linux/fs.h
	switch int64(uint32(st.Type)) {
	case unix.BTRFS_SUPER_MAGIC:
		return false, true
	case unix.EXT4_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC:
		flags, err := unix.IoctlGetUint32(dir, unix.FS_IOC_GETFLAGS)
		return flags&casefoldFlag != 0, err == nil
	}
	return false, false
}

// plainNames reports whether a file system is known to take every name of at
// most 255 bytes.
func plainNames(dir int) bool {
	var st unix.Statfs_t
	if unix.Fstatfs(dir, &st) != nil {
		return false
	}
	switch int64(uint32(st.Type)) {
	case unix.EXT4_SUPER_MAGIC, unix.XFS_SUPER_MAGIC, unix.BTRFS_SUPER_MAGIC, unix.F2FS_SUPER_MAGIC, unix.TMPFS_MAGIC:
		return true
	}
	return false
}
