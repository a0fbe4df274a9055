package sqlite

import (
	"context"

	"github.com/ncruces/go-sqlite3"

	"github.com/circles-host/circles/host/store/overlay"
)

// Head implements overlay.Header.
func (b *backend) Head() (seq uint64, hash [32]byte) {
	end := b.end()
	return end.seq, end.hash
}

// Count implements overlay.Counter.
func (b *backend) Count(ctx context.Context) (bytes, entries int64, err error) {
	if ctx.Err() != nil {
		return 0, 0, context.Cause(ctx)
	}
	err = b.look(func(c *conn) error {
		// total, unlike sum, does not overflow.
		_, err := c.row(`SELECT count(*), CAST(total(iif(kind = 1, size, 0)) AS INTEGER) FROM node WHERE id <> 1`, func(s *sqlite3.Stmt) {
			entries, bytes = s.ColumnInt64(0), max(s.ColumnInt64(1), 0)
		})
		return err
	})
	return bytes, entries, err
}

// LogBytes implements overlay.LogCounter.
func (b *backend) LogBytes(ctx context.Context, seq uint64) (sum int64, err error) {
	if ctx.Err() != nil {
		return 0, context.Cause(ctx)
	}
	end := min(seq, b.end().seq)
	err = b.look(func(c *conn) error {
		_, err := c.row(`SELECT CAST(total(length(data)) AS INTEGER) FROM log WHERE seq <= ?`,
			func(s *sqlite3.Stmt) { sum = max(s.ColumnInt64(0), 0) }, int64(end))
		return err
	})
	return sum + int64(end)*overlay.LogSize(0), err
}
