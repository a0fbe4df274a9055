package policy_test

import (
	"fmt"
	"log"
	"time"

	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/policy"
	"github.com/circles-host/circles/host/script"
)

// Bob lets alice sign his guestbook, and nobody read what is private in it.
func Example() {
	alice := peer.Peer{ID: "did:key:z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp", Name: "alice"}
	bob := peer.Peer{ID: "did:key:z6MkhaXgBZDvotDkL5257faiztiGiC2QtKLGpbnnEGta2doK", Name: "bob"}

	allow, err := policy.Permit{
		Peer: alice.ID, Name: alice.Name, Module: "guestbook",
		Read: []string{"/guestbook"}, Write: []string{"/guestbook"},
	}.Format()
	if err != nil {
		log.Fatal(err)
	}
	set, err := policy.Parse([]policy.File{
		{Name: "alice.cedar", Text: allow},
		{Name: "private.cedar", Text: `
			@id("private")
			forbid (principal, action, resource in Path::"/guestbook/private");`},
	})
	if err != nil {
		log.Fatal(err)
	}

	request := policy.Request{
		Parties: peer.Parties{Caller: alice, Target: bob},
		Code:    policy.Code{Found: true, Name: "guestbook", Layer: "peer"},
		Now:     time.Now(),
	}
	fmt.Println(set.Submit(request))
	grants := set.Grants(request)
	fmt.Println(grants.Allow(script.Write, "/guestbook/alice.txt"))
	fmt.Println(grants.Allow(script.Read, "/guestbook/private/diary.txt"))
	fmt.Println(grants.Allow(script.Remove, "/guestbook"))
	// Output:
	// policy allow-alice-guestbook permits it
	// <nil>
	// may not read "/guestbook/private/diary.txt" in the context of bob: policy private of bob forbids it
	// may not remove "/guestbook" in the context of bob: no policy of bob permits it
}
