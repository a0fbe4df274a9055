package wasi

import (
	"bytes"
	"encoding/binary"
	"unicode/utf8"

	"github.com/circles-host/circles/host/store"
)

// maxPath is the most bytes of a path, as PATH_MAX in Linux. What a guest passes
// is measured before it is copied: a million components would be.
const maxPath = 4096

// followLinks is the one flag of a lookup: to follow a link in the last
// component.
//
// https://github.com/WebAssembly/WASI/blob/snapshot-01/phases/snapshot/docs.md#lookupflags
const followLinks = 1

// directory returns an open directory that has the rights, and the files below.
func (c call) directory(fd uint64, need rights) (*descriptor, store.FS, errno) {
	d := c.files.get(fd)
	switch {
	case d == nil:
		return nil, nil, eBadf
	case d.kind != typeDirectory:
		return nil, nil, eNotdir
	case d.base&need != need:
		return nil, nil, eNotcapable
	}
	below, err := d.directory()
	return d, below, c.files.refuse(err)
}

// text copies what a guest passes as a path or as a link's target. The copy is
// the guest's no more: it would go on writing to what was checked and stored.
func (c call) text(ptr, n uint64) (string, errno) {
	switch size := uint32(n); {
	case size == 0:
		return "", eNoent
	case size > maxPath:
		return "", eNametoolong
	}
	b, ok := c.mem.Read(uint32(ptr), uint32(n))
	switch {
	case !ok:
		return "", eFault
	case bytes.IndexByte(b, 0) >= 0:
		return "", eInval
	case !utf8.Valid(b):
		return "", eIlseq
	}
	return string(b), 0
}

// path is text that leads from a directory to somewhere below it. The store
// would take a slash at the beginning for its own root.
func (c call) path(ptr, n uint64) (string, errno) {
	p, e := c.text(ptr, n)
	if e == 0 && p[0] == '/' {
		return "", eNotcapable
	}
	return p, e
}

// entry is the path of a name that is to be removed or moved, for which "." and
// ".." will not do.
func (c call) entry(ptr, n uint64) (string, errno) {
	p, e := c.path(ptr, n)
	if e != 0 {
		return "", e
	}
	end := len(p)
	for end > 0 && p[end-1] == '/' {
		end--
	}
	begin := end
	for begin > 0 && p[begin-1] != '/' {
		begin--
	}
	if last := p[begin:end]; last == "." || last == ".." {
		return "", eInval
	}
	return p, 0
}

// pathCreateDirectory: fd, path, len.
func pathCreateDirectory(c call, p []uint64) errno {
	_, below, e := c.directory(p[0], rightCreateDirectory)
	if e != 0 {
		return e
	}
	path, e := c.path(p[1], p[2])
	if e != 0 {
		return e
	}
	return c.files.refuse(below.Mkdir(path))
}

// pathRemoveDirectory: fd, path, len.
func pathRemoveDirectory(c call, p []uint64) errno {
	_, below, e := c.directory(p[0], rightRemoveDirectory)
	if e != 0 {
		return e
	}
	path, e := c.entry(p[1], p[2])
	if e != 0 {
		return e
	}
	return c.files.refuse(below.Rmdir(path))
}

// pathUnlinkFile: fd, path, len.
func pathUnlinkFile(c call, p []uint64) errno {
	_, below, e := c.directory(p[0], rightUnlink)
	if e != 0 {
		return e
	}
	path, e := c.entry(p[1], p[2])
	if e != 0 {
		return e
	}
	return c.files.refuse(below.Unlink(path))
}

// pathFilestatGet: fd, lookup, path, len, result.
func pathFilestatGet(c call, p []uint64) errno {
	d, below, e := c.directory(p[0], rightPathStat)
	if e != 0 {
		return e
	}
	path, e := c.path(p[2], p[3])
	if e != 0 {
		return e
	}
	b, e := c.space(p[4], filestatSize)
	if e != 0 {
		return e
	}
	info, err := below.Stat(path, p[1]&followLinks != 0)
	if err != nil {
		return c.files.refuse(err)
	}
	c.putFilestat(b, uint64(d.device), info)
	return 0
}

// pathFilestatSetTimes: fd, lookup, path, len, atime, mtime, flags.
func pathFilestatSetTimes(c call, p []uint64) errno {
	_, below, e := c.directory(p[0], rightPathSetTimes)
	if e != 0 {
		return e
	}
	path, e := c.path(p[2], p[3])
	if e != 0 {
		return e
	}
	atime, mtime, e := moments(p[4], p[5], p[6])
	if e != 0 {
		return e
	}
	return c.files.refuse(below.SetTimes(path, p[1]&followLinks != 0, atime, mtime))
}

// pathLink refuses: fd, lookup, path, len, fd, path, len. See the package's
// documentation for why.
func pathLink(c call, p []uint64) errno {
	if _, _, e := c.directory(p[0], rightLinkSource); e != 0 {
		return e
	}
	if _, _, e := c.directory(p[4], rightLinkTarget); e != 0 {
		return e
	}
	if _, e := c.path(p[2], p[3]); e != 0 {
		return e
	}
	if _, e := c.path(p[5], p[6]); e != 0 {
		return e
	}
	return eNotsup
}

// pathReadlink: fd, path, len, buf, len, result. A target longer than the buffer
// is cut to it, as POSIX has it.
func pathReadlink(c call, p []uint64) errno {
	_, below, e := c.directory(p[0], rightReadlink)
	if e != 0 {
		return e
	}
	path, e := c.path(p[1], p[2])
	if e != 0 {
		return e
	}
	size := min(uint32(p[4]), maxPath)
	if size == 0 {
		return eInval
	}
	b, e := c.space(p[3], size)
	if e != 0 {
		return e
	}
	used, e := c.space(p[5], 4)
	if e != 0 {
		return e
	}
	target, err := below.Readlink(path)
	if err != nil {
		return c.files.refuse(err)
	}
	binary.LittleEndian.PutUint32(used, uint32(copy(b, target)))
	return 0
}

// pathRename: fd, path, len, fd, path, len.
func pathRename(c call, p []uint64) errno {
	from, a, e := c.directory(p[0], rightRenameSource)
	if e != 0 {
		return e
	}
	to, b, e := c.directory(p[3], rightRenameTarget)
	if e != 0 {
		return e
	}
	old, e := c.entry(p[1], p[2])
	if e != 0 {
		return e
	}
	new, e := c.entry(p[4], p[5])
	if e != 0 {
		return e
	}
	switch {
	case from.device != to.device:
		return eXdev
	case from == to:
		return c.files.refuse(a.Rename(old, new))
	}
	return c.files.refuse(a.RenameTo(old, b, new))
}

// pathSymlink: target, len, fd, path, len.
func pathSymlink(c call, p []uint64) errno {
	_, below, e := c.directory(p[2], rightSymlink)
	if e != 0 {
		return e
	}
	target, e := c.text(p[0], p[1])
	if e != 0 {
		return e
	}
	path, e := c.path(p[3], p[4])
	if e != 0 {
		return e
	}
	return c.files.refuse(below.Symlink(target, path))
}

// How path_open opens.
//
// https://github.com/WebAssembly/WASI/blob/snapshot-01/phases/snapshot/docs.md#oflags
const (
	openCreate = 1 << iota
	openDirectory
	openExclusive
	openTruncate

	allOpen = 1<<4 - 1
)

// pathOpen: fd, lookup, path, len, how, base, inheriting, flags, result.
func pathOpen(c call, p []uint64) errno {
	how, flags := uint16(p[4]), uint16(p[7])
	if how&^allOpen != 0 || flags&^allFlags != 0 {
		return eInval
	}
	need := rightPathOpen
	if how&openCreate != 0 {
		need |= rightCreateFile
	}
	if how&openTruncate != 0 {
		need |= rightPathSetSize
	}
	at, below, e := c.directory(p[0], need)
	if e != 0 {
		return e
	}
	path, e := c.path(p[2], p[3])
	if e != 0 {
		return e
	}
	result, e := c.space(p[8], 4)
	if e != 0 {
		return e
	}
	if c.files.open >= c.files.handles {
		return eMfile
	}
	base, inheriting := rights(p[5])&allRights, rights(p[6])&allRights
	// What needs no look is refused before anything is made or emptied.
	surely := inheriting
	if how&(openCreate|openTruncate) != 0 {
		surely |= base & fileRights
	}
	if surely&^at.inheriting != 0 {
		return eNotcapable
	}

	opened, err := below.Open(path, openFlags(p[1], how, base))
	if err != nil {
		return c.files.refuse(err)
	}
	info, err := opened.Stat()
	if err != nil {
		_ = opened.Close() // the error to report is Stat's
		return c.files.refuse(err)
	}
	applies := fileRights
	if info.Kind == store.KindDir {
		applies = directoryRights
	}
	if base&applies&^at.inheriting != 0 {
		_ = opened.Close() // its rights are the error to report
		return eNotcapable
	}
	d := &descriptor{
		kind: typeOf(info.Kind), base: base & applies, inheriting: inheriting, flags: flags,
		file: opened, device: at.device, read: base&rightRead != 0, write: base&rightWrite != 0, charge: 1,
	}
	binary.LittleEndian.PutUint32(result, c.files.add(d))
	return 0
}

// openFlags are the store's. It is asked for what the guest may do with the file,
// so that a guard is: O_APPEND is ours to do, as a guest may switch it on and off.
func openFlags(lookup uint64, how uint16, base rights) (want store.Flag) {
	if base&rightRead != 0 {
		want |= store.FlagRead
	}
	if base&rightWrite != 0 {
		want |= store.FlagWrite
	}
	if how&openCreate != 0 {
		want |= store.FlagCreate
		if how&openExclusive != 0 {
			want |= store.FlagExclusive
		}
	}
	if how&openTruncate != 0 {
		// To truncate is to write, whatever the guest says it will do with the
		// file after: the guard must be asked for it.
		want |= store.FlagTruncate | store.FlagWrite
	}
	if how&openDirectory != 0 {
		want |= store.FlagDirectory
	}
	if lookup&followLinks == 0 {
		want |= store.FlagNoFollow
	}
	return want
}
