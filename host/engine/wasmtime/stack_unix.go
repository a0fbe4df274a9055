//go:build wasmtime && unix

package wasmtime

import "golang.org/x/sys/unix"

// stack is how many bytes of stack a guest may take. Guests run on the stack of
// the thread that calls them, which is the C library's to make: by glibc as large as
// the limit of the process was when it began, 2 MiB if there is none, and by others
// smaller. To go beyond it would be the end of the process, so a quarter is left
// to Wasmtime, and to what a signal needs.
func stack() int {
	const least, most = 512 << 10, 6 << 20
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_STACK, &r); err != nil || r.Cur == unix.RLIM_INFINITY {
		return least
	}
	return int(min(max(r.Cur/4*3, least), most))
}
