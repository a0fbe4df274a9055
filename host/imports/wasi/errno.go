package wasi

import (
	"errors"
	"syscall"

	"github.com/tetratelabs/wazero/experimental/sys"

	"github.com/circles-host/circles/host/store"
)

// errno is what a function returns to its guest.
//
// https://github.com/WebAssembly/WASI/blob/snapshot-01/phases/snapshot/docs.md#errno
type errno uint16

const (
	eAcces       errno = 2
	eBadf        errno = 8
	eDquot       errno = 19
	eExist       errno = 20
	eFault       errno = 21
	eFbig        errno = 22
	eIlseq       errno = 25
	eInval       errno = 28
	eIO          errno = 29
	eIsdir       errno = 31
	eLoop        errno = 32
	eMfile       errno = 33
	eNametoolong errno = 37
	eNoent       errno = 44
	eNospc       errno = 51
	eNotdir      errno = 54
	eNotempty    errno = 55
	eNotsock     errno = 57
	eNotsup      errno = 58
	ePerm        errno = 63
	eRofs        errno = 69
	eSpipe       errno = 70
	eNotcapable  errno = 76
)

// errnos maps the errors of the store to what guests get, and to the nearest
// of the few that wazero can carry. A refusal comes first: its cause may be
// any error, and must not show through it.
//
// None maps to sys.EPERM or sys.ENOSYS: when a file's Utimens fails with one
// of these, wazero tries again by the name that the file was opened by, which
// may be another file by now.
var errnos = []struct {
	err   error
	guest errno
	sys   sys.Errno
}{
	{store.ErrDenied, eAcces, sys.EACCES},
	{store.ErrHidden, eNoent, sys.ENOENT},
	{store.ErrNotExist, eNoent, sys.ENOENT},
	{store.ErrExists, eExist, sys.EEXIST},
	{store.ErrClosed, eBadf, sys.EBADF},
	{store.ErrBadFile, eBadf, sys.EBADF},
	{store.ErrInvalid, eInval, sys.EINVAL},
	{store.ErrReadOnly, eRofs, sys.EROFS},
	{store.ErrEscapes, eNotcapable, sys.EIO},
	{store.ErrNotDir, eNotdir, sys.ENOTDIR},
	{store.ErrIsDir, eIsdir, sys.EISDIR},
	{store.ErrNotEmpty, eNotempty, sys.ENOTEMPTY},
	{store.ErrLoop, eLoop, sys.ELOOP},
	{store.ErrSpecial, ePerm, sys.EIO},
	{store.ErrNameTooLong, eNametoolong, sys.ENAMETOOLONG},
	{store.ErrTooBig, eFbig, sys.EIO},
	{store.ErrQuota, eDquot, sys.EIO},
	{store.ErrNotSupported, eNotsup, sys.ENOTSUP},
	{store.ErrTooManyOpen, eMfile, sys.EIO},
}

// translate returns what a guest and what wazero get for err, and whether the
// guest asked for it: false when the storage itself has failed.
func translate(err error) (guest errno, s sys.Errno, expected bool) {
	for _, e := range errnos {
		if errors.Is(err, e.err) {
			return e.guest, e.sys, true
		}
	}
	if errors.Is(err, syscall.ENOSPC) {
		return eNospc, sys.EIO, false
	}
	return eIO, sys.EIO, false
}
