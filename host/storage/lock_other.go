//go:build !unix || solaris || aix

package storage

import "os"

func openLock(path string) (*os.File, error) { return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) }

// tryLock cannot lock here; the backends' own locks are all that there is, and a
// migration must not be tried beside a worker.
func tryLock(*os.File, bool) error { return nil }
