package snapshot

import "testing"

// ways are those that this system has. All of them work on a Linux that this is
// developed on, or the tests would hold nothing of what production does.
func ways(t testing.TB) []way {
	if works() != scanned {
		t.Log("this kernel has no PAGEMAP_SCAN (Linux 6.7): images are mapped and forgotten")
		return []way{copied, forgotten}
	}
	return []way{copied, forgotten, scanned}
}
