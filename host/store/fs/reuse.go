//go:build linux || darwin || freebsd

package fs

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/overlay"
)

// A commit that replaces a small file needs a new one, and leaves an old one. To
// make and remove files is most of what it would cost: ext4 looks for an inode that
// was not freed in the last seconds, one by one, and writes out a file that is
// renamed over another before the rename returns. So the two change places, and the
// old one, when nothing of the owner's or of a recovery can refer to it any more, is
// the next new one.
//
// That is: when the record by which it left is settled, so that no state of the
// disk has it in its old place; when it was made here, so that it has nothing that
// an owner gave it; and when nobody has it open, or another name for it. Whoever
// reads a file sees it as it was opened, for as long as it is open.

// spare is an old file in the staging directory.
type spare struct {
	slot string
	seq  uint64 // of the record by which it left
}

const (
	// maxSpares is how many a context keeps: as many as it replaces in the second
	// that records stay in the journal.
	maxSpares = 256
	// spareSize is the size in bytes of the largest. Others are removed, which
	// frees their blocks.
	spareSize = 16 << 10
	// maxMade bounds what is remembered of files that were made here.
	maxMade = 4096
)

// replace puts a small file that was staged in the place of another, which is the
// one that the transaction saw, or was a moment ago.
func (b *backend) replace(c *cursor, name string, o op) error {
	switch err := b.disk.exchange(b.stage, o.slot, c.fd, name); err {
	case nil:
	case unix.EINVAL, unix.ENOSYS, unix.ENOTSUP, unix.ENOENT: // a file system that cannot; or the owner has removed it
		return b.disk.rename(b.stage, o.slot, c.fd, name)
	default:
		return err
	}
	st, err := lstatat(b.stage, o.slot)
	if err != nil {
		return err
	}
	if !is(&st, o.was) { // the owner's, from just now
		aside, err := c.free(name)
		if err != nil {
			return err
		}
		return b.disk.rename(b.stage, o.slot, c.fd, aside)
	}
	if b.session.spares(o.slot, o.was.Version.ID, st.Size) {
		return nil
	}
	return b.disk.unlink(b.stage, o.slot)
}

// spares keeps a file that was replaced, if it may be used again.
func (s *session) spares(slot string, id [2]uint64, size int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, ours := s.made[id]; !ours || size > spareSize || len(s.spare) >= maxSpares {
		return false
	}
	delete(s.made, id)
	s.spare = append(s.spare, spare{slot, s.seq})
	return true
}

// makes notes that a file was made here.
func (s *session) makes(v overlay.Version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.made) >= maxMade {
		clear(s.made)
	}
	s.made[v.ID] = struct{}{}
}

// loses notes that a file was removed: another may have its number.
func (s *session) loses(v overlay.Version) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.made, v.ID)
}

// takeSpare returns the name of a file that may be used again, "" if there is none.
func (s *session) takeSpare() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.spare) == 0 || s.spare[0].seq > s.settled || s.err != nil {
		return ""
	}
	slot := s.spare[0].slot
	s.spare = s.spare[1:]
	return slot
}

// dropSpares removes what is not used again.
func (b *backend) dropSpares() {
	b.session.mu.Lock()
	defer b.session.mu.Unlock()
	for _, spare := range b.session.spare {
		_ = b.disk.unlink(b.stage, spare.slot) // what remains is swept when the store is opened
	}
	b.session.spare = nil
}

// reuse makes what is in memory the content of a file that was replaced before. If
// it cannot, nothing was done but that there is one of those fewer.
func (s *staged) reuse() bool {
	b := s.b
	if b.session == nil || b.fresh == nil {
		return false
	}
	slot := b.session.takeSpare()
	if slot == "" {
		return false
	}
	fd, err := openat(b.stage, slot, unix.O_RDWR|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if err != nil {
		return false
	}
	f := os.NewFile(uintptr(fd), slot)
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || kindOfMode(uint32(st.Mode)) != store.KindFile || !unshared(fd, &st) || b.refill(f, &st, s.held) != nil {
		f.Close()
		_ = b.disk.unlink(b.stage, slot)
		return false
	}
	s.name, s.f = slot, f
	b.reused++
	return true
}

// refill gives a file other content, and the owner and permissions of a new one.
func (b *backend) refill(f *os.File, st *unix.Stat_t, content []byte) error {
	if st.Uid != b.fresh.Uid || st.Gid != b.fresh.Gid {
		if err := unix.Fchown(int(f.Fd()), int(b.fresh.Uid), int(b.fresh.Gid)); err != nil {
			return err
		}
	}
	if mode := uint32(b.fresh.Mode) & 0o777; uint32(st.Mode)&0o7777 != mode {
		if err := unix.Fchmod(int(f.Fd()), mode); err != nil {
			return err
		}
	}
	if err := b.disk.write(f, content, 0); err != nil {
		return err
	}
	if st.Size > int64(len(content)) {
		return b.disk.truncate(f, int64(len(content)))
	}
	return nil
}
