//go:build linux || darwin || freebsd

package fs

// Head implements overlay.Header.
func (b *backend) Head() (seq uint64, hash [32]byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return uint64(len(b.log.where)), b.log.last
}
