//go:build darwin || freebsd

package fs

// immutable reports whether an entry cannot be removed or renamed. It is not
// known here: such a commit fails when it is applied.
func immutable(int, string) bool { return false }

// casefold is not known without a try.
func casefold(int) (folds, known bool) { return false, false }

// plainNames reports whether a file system is known to take every name.
func plainNames(int) bool { return false }
