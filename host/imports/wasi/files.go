package wasi

import (
	"context"
	"io/fs"
	"path"
	"strings"
	"time"

	"github.com/tetratelabs/wazero/experimental/sys"
	wsys "github.com/tetratelabs/wazero/sys"

	"github.com/circles-host/circles/host/store"
)

// FS is one instance's "/", made by Mount: wazero's file system over a
// store.FS, which it relies on for confinement, permissions and quotas. Its
// methods are for wazero, behind the functions of Module; with wazero's own
// functions instead, directories cannot be read and errors lose their detail.
type FS struct {
	sys.UnimplementedFS
	store   store.FS
	handles int // how many may be open
	open    int // how many are, the preopened root not counted
	failure error

	// Of the function that is being served.
	ctx         context.Context
	refusal     errno // what the guest is to get for the last error; 0 if none
	readlinkMax int   // how much of a link's target fits; 0 means all
	probing     bool  // Stat is only to say which file it is
	probed      *file
}

// Err returns the first failure of the storage itself, as opposed to what a
// guest brought about. The guest was told of an I/O error and may have carried
// on; the transaction should not be committed.
func (f *FS) Err() error { return f.failure }

// Open returns how many files and directories the guest holds open.
func (f *FS) Open() int { return f.open }

// enter starts the service of one function.
func (f *FS) enter(ctx context.Context) {
	if f != nil {
		f.ctx, f.refusal, f.readlinkMax = ctx, 0, 0
	}
}

// substitute replaces the errno that wazero came to by what was meant: its
// own vocabulary has 21 errors, and the rest come out as EIO.
func (f *FS) substitute(e errno) errno {
	if f == nil || e == 0 || f.refusal == 0 {
		return e
	}
	return f.refusal
}

// failed is refuse, for a function that is served here.
func (f *FS) failed(err error) errno {
	if _ = f.refuse(err); f.refusal != 0 {
		return f.refusal
	}
	return eIO
}

// refuse records err and returns the nearest that wazero can carry.
func (f *FS) refuse(err error) sys.Errno {
	if err == nil {
		return 0
	}
	if f.ctx.Err() != nil { // the guest ends before it sees an errno
		return sys.EIO
	}
	guest, s, expected := translate(err)
	f.refusal = guest
	if !expected && f.failure == nil {
		f.failure = err
	}
	return s
}

// maxPath is the most bytes of a path, as PATH_MAX in Linux. What a guest
// passes is measured before it is copied; names joined by wazero, here.
const maxPath = 4096

// name makes a path of ours from one of wazero's: cleaned, relative, "." for
// the root. mustDir is set for a trailing slash, which asks for a directory,
// and follows a link to it.
func (f *FS) name(p string) (name string, mustDir bool, err error) {
	if err := f.ctx.Err(); err != nil {
		return "", false, err
	}
	if len(p) > maxPath {
		return "", false, store.ErrNameTooLong
	}
	if strings.IndexByte(p, 0) >= 0 {
		return "", false, store.ErrInvalid
	}
	// wazero has taken out "..", so that to clean loses no meaning.
	name = strings.TrimPrefix(path.Clean(p), "/")
	if name == "" {
		name = "."
	}
	if !fs.ValidPath(name) {
		return "", false, store.ErrEscapes
	}
	return name, strings.HasSuffix(p, "/") && name != ".", nil
}

// directory fails unless name, links followed, is a directory.
func (f *FS) directory(name string) error {
	info, err := f.store.Stat(name, true)
	if err == nil && info.Kind != store.KindDir {
		err = store.ErrNotDir
	}
	return err
}

// OpenFile implements sys.FS. A permission of 0 is wazero's own call, since
// path_open always asks for 0600: with O_RDONLY it opens the preopened
// directory on first use, with O_WRONLY it is path_filestat_set_times on a
// link rather than what it points to.
func (f *FS) OpenFile(p string, flag sys.Oflag, perm fs.FileMode) (sys.File, sys.Errno) {
	if perm == 0 && flag == sys.O_RDONLY {
		// Not counted, nor refused for any reason: wazero panics then.
		return f.root(0), 0
	}
	name, mustDir, err := f.name(p)
	if err != nil {
		return nil, f.refuse(err)
	}
	if perm == 0 && flag == sys.O_WRONLY {
		if mustDir {
			err = f.directory(name)
		} else {
			_, err = f.store.Stat(name, false)
		}
		if err != nil {
			return nil, f.refuse(err)
		}
		return &link{fs: f, name: name, follow: mustDir}, 0
	}
	if mustDir && flag&sys.O_CREAT != 0 {
		return nil, f.refuse(store.ErrIsDir) // open(2) does not make directories
	}
	if f.open >= f.handles {
		return nil, f.refuse(store.ErrTooManyOpen)
	}
	if name == "." && flag&(sys.O_RDWR|sys.O_WRONLY|sys.O_CREAT|sys.O_TRUNC) == 0 {
		return f.root(1), 0
	}

	h := &file{fs: f, name: name, append: flag&sys.O_APPEND != 0}
	switch {
	case flag&sys.O_RDWR != 0:
		h.read, h.write = true, true
	case flag&sys.O_WRONLY != 0:
		h.write = true
	default:
		h.read = true
	}
	// O_APPEND is ours to do, as a guest may switch it on and off.
	want := storeFlags(flag, h.read, h.write)
	if mustDir {
		want = want&^store.FlagNoFollow | store.FlagDirectory
	}
	opened, err := f.store.Open(name, want)
	if err != nil {
		return nil, f.refuse(err)
	}
	info, err := opened.Stat()
	if err != nil {
		_ = opened.Close() // the error to report is Stat's
		return nil, f.refuse(err)
	}
	h.file, h.dir, h.charge = opened, info.Kind == store.KindDir, 1
	f.open++
	return h, 0
}

// root is the root opened without asking the store: a guard may well refuse
// its list of names and yet allow a file below it.
func (f *FS) root(charge int) *file {
	f.open += charge
	return &file{fs: f, name: ".", dir: true, root: true, charge: charge}
}

func storeFlags(flag sys.Oflag, read, write bool) (want store.Flag) {
	if read {
		want |= store.FlagRead
	}
	if write {
		want |= store.FlagWrite
	}
	if flag&sys.O_CREAT != 0 {
		want |= store.FlagCreate
		if flag&sys.O_EXCL != 0 {
			want |= store.FlagExclusive
		}
	}
	if flag&sys.O_TRUNC != 0 {
		// To truncate is to write, whatever the guest says it will do with
		// the file after: the guard must be asked for it.
		want |= store.FlagTruncate | store.FlagWrite
	}
	if flag&sys.O_DIRECTORY != 0 {
		want |= store.FlagDirectory
	}
	if flag&sys.O_NOFOLLOW != 0 {
		want |= store.FlagNoFollow
	}
	return want
}

// Stat implements sys.FS.
func (f *FS) Stat(p string) (wsys.Stat_t, sys.Errno) { return f.stat(p, true) }

// Lstat implements sys.FS.
func (f *FS) Lstat(p string) (wsys.Stat_t, sys.Errno) { return f.stat(p, false) }

func (f *FS) stat(p string, follow bool) (wsys.Stat_t, sys.Errno) {
	name, mustDir, err := f.name(p)
	if err != nil {
		return wsys.Stat_t{}, f.refuse(err)
	}
	info, err := f.store.Stat(name, follow || mustDir)
	if err == nil && mustDir && info.Kind != store.KindDir {
		err = store.ErrNotDir
	}
	if err != nil {
		return wsys.Stat_t{}, f.refuse(err)
	}
	return stat(info), 0
}

// stat makes wazero's of the store's. A directory has no size, or else
// fd_allocate would take one for a file that is big enough.
func stat(info store.Info) wsys.Stat_t {
	s := wsys.Stat_t{Dev: device, Ino: info.Inode, Nlink: 1, Size: info.Size,
		Atim: nanoseconds(info.Atime), Mtim: nanoseconds(info.Mtime), Ctim: nanoseconds(info.Ctime)}
	switch info.Kind {
	case store.KindFile:
		s.Mode = 0o600
	case store.KindDir:
		s.Mode, s.Size = fs.ModeDir|0o700, 0
	case store.KindLink:
		s.Mode = fs.ModeSymlink | 0o700
	default:
		s.Mode = fs.ModeIrregular
	}
	return s
}

// device is the number of the one device that a guest sees.
const device = 1

func nanoseconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixNano()
}

// moment is the inverse of nanoseconds; the zero time leaves a time as it is.
func moment(ns int64) time.Time {
	if ns == sys.UTIME_OMIT {
		return time.Time{}
	}
	return time.Unix(0, ns).UTC()
}

// entry is name for what acts on a name in its directory, for which "." will
// not do: wazero would make "d/." into "d".
func (f *FS) entry(p string) (name string, mustDir bool, err error) {
	name, mustDir, err = f.name(p)
	if err == nil && (name == "." || strings.HasSuffix(strings.TrimRight(p, "/"), "/.")) {
		err = store.ErrInvalid
	}
	return name, mustDir, err
}

// Mkdir implements sys.FS.
func (f *FS) Mkdir(p string, _ fs.FileMode) sys.Errno {
	name, _, err := f.name(p)
	if err == nil {
		err = f.store.Mkdir(name)
	}
	return f.refuse(err)
}

// Rmdir implements sys.FS.
func (f *FS) Rmdir(p string) sys.Errno {
	name, _, err := f.entry(p)
	if err == nil {
		err = f.store.Rmdir(name)
	}
	return f.refuse(err)
}

// Unlink implements sys.FS.
func (f *FS) Unlink(p string) sys.Errno {
	name, mustDir, err := f.entry(p)
	if err != nil {
		return f.refuse(err)
	}
	if mustDir {
		if err := f.directory(name); err != nil {
			return f.refuse(err)
		}
		return f.refuse(store.ErrIsDir)
	}
	return f.refuse(f.store.Unlink(name))
}

// Rename implements sys.FS.
func (f *FS) Rename(from, to string) sys.Errno {
	a, aDir, err := f.entry(from)
	if err != nil {
		return f.refuse(err)
	}
	b, bDir, err := f.entry(to)
	if err != nil {
		return f.refuse(err)
	}
	if aDir || bDir { // a trailing slash on either means that a directory is moved
		info, err := f.store.Stat(a, false)
		if err != nil {
			return f.refuse(err)
		}
		if info.Kind != store.KindDir {
			return f.refuse(store.ErrNotDir)
		}
	}
	return f.refuse(f.store.Rename(a, b))
}

// Link implements sys.FS: a context has no hard links, whose charge and
// permissions would belong to two paths at once.
func (f *FS) Link(_, _ string) sys.Errno { return f.refuse(store.ErrNotSupported) }

// Symlink implements sys.FS.
func (f *FS) Symlink(target, p string) sys.Errno {
	name, mustDir, err := f.entry(p)
	if err != nil {
		return f.refuse(err)
	}
	if mustDir { // only an existing directory can be called so
		if _, err := f.store.Stat(name, false); err != nil {
			return f.refuse(err)
		}
		return f.refuse(store.ErrExists)
	}
	// wazero's target is the guest's memory, which the guest would go on
	// writing to after it was checked and stored.
	return f.refuse(f.store.Symlink(strings.Clone(target), name))
}

// Readlink implements sys.FS.
func (f *FS) Readlink(p string) (string, sys.Errno) {
	name, mustDir, err := f.name(p)
	if err != nil {
		return "", f.refuse(err)
	}
	if mustDir { // the directory that a link leads to is not a link
		if err := f.directory(name); err != nil {
			return "", f.refuse(err)
		}
		return "", f.refuse(store.ErrInvalid)
	}
	target, err := f.store.Readlink(name)
	if err != nil {
		return "", f.refuse(err)
	}
	if m := f.readlinkMax; m > 0 && len(target) > m {
		target = target[:m]
	}
	return target, 0
}

// Utimens implements sys.FS.
func (f *FS) Utimens(p string, atim, mtim int64) sys.Errno {
	name, mustDir, err := f.name(p)
	if err == nil && mustDir {
		err = f.directory(name)
	}
	if err == nil {
		err = f.store.SetTimes(name, true, moment(atim), moment(mtim))
	}
	return f.refuse(err)
}
