package wasi

import (
	"errors"
	"syscall"

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
	eXdev        errno = 75
	eNotcapable  errno = 76
)

// errnos maps the errors of the store to what guests get. A refusal comes
// first: its cause may be any error, and must not show through it.
var errnos = []struct {
	err   error
	guest errno
}{
	{store.ErrDenied, eAcces},
	{store.ErrHidden, eNoent},
	{store.ErrNotExist, eNoent},
	{store.ErrExists, eExist},
	{store.ErrClosed, eBadf},
	{store.ErrBadFile, eBadf},
	{store.ErrInvalid, eInval},
	{store.ErrReadOnly, eRofs},
	{store.ErrEscapes, eNotcapable},
	{store.ErrNotDir, eNotdir},
	{store.ErrIsDir, eIsdir},
	{store.ErrNotEmpty, eNotempty},
	{store.ErrLoop, eLoop},
	{store.ErrSpecial, ePerm},
	{store.ErrNameTooLong, eNametoolong},
	{store.ErrTooBig, eFbig},
	{store.ErrQuota, eDquot},
	{store.ErrNotSupported, eNotsup},
	{store.ErrTooManyOpen, eMfile},
}

// translate returns what a guest gets for err, and whether the guest asked for
// it: false when the storage itself has failed.
func translate(err error) (guest errno, expected bool) {
	for _, e := range errnos {
		if errors.Is(err, e.err) {
			return e.guest, true
		}
	}
	if errors.Is(err, syscall.ENOSPC) {
		return eNospc, false
	}
	return eIO, false
}
