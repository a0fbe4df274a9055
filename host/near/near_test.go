package near

import (
	"strings"
	"testing"
)

func TestName(t *testing.T) {
	long := strings.Repeat("x", maxName)
	for _, tt := range []struct{ s, names, want string }{
		{"guestbok", "album guestbook", "guestbook"},
		{"sned", "undo send", "send"},
		{"PERMIT", "permit forbid", "permit"},
		{"Read", "reads Reads", "Reads"},
		{"reed", "Reads read", "read"},
		{"send", "send", ""},
		{"send", "send sent", "sent"},
		{"a", "bc", ""},
		{"a", "b", "b"},
		{"", "a", "a"},
		{"frobnicate", "album guestbook", ""},
		{long[1:] + "y", long, long},
		{long + "y", long, ""},
		{"ünits", "units", "units"},
		{"units", "", ""},
	} {
		if got := Name(tt.s, strings.Fields(tt.names)); got != tt.want {
			t.Errorf("Name(%.20q, %.40q) = %.20q, want %.20q", tt.s, tt.names, got, tt.want)
		}
	}
}
