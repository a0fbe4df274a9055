package envelope_test

import (
	"context"
	"fmt"
	"log"
	"time"

	"github.com/circles-host/circles/host/envelope"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/script"
)

// bobsHost knows one context, and has had no scripts yet.
type bobsHost struct{ bob peer.ID }

func (h bobsHost) Holds(id peer.ID) bool { return id == h.bob }

func (h bobsHost) Prior(context.Context, peer.ID, peer.ID, peer.ID, script.Nonce) (script.ID, []byte, bool, error) {
	return script.ID{}, nil, false, nil
}

func ExampleOpen() {
	alice, err := peer.GenerateKey()
	if err != nil {
		log.Fatal(err)
	}
	bob, err := peer.GenerateKey()
	if err != nil {
		log.Fatal(err)
	}

	// Alice's side.
	sealed, id, err := envelope.SealScript(script.Script{
		Target: bob.ID(),
		Logic:  script.Logic{Name: "guestbook"},
		Entry:  "sign",
		Params: []byte(`"hello"`),
	}, alice)
	if err != nil {
		log.Fatal(err)
	}

	// The side of bob's host.
	ctx, known := context.Background(), bobsHost{bob.ID()}
	v, err := envelope.Open(ctx, sealed, time.Now(), known)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("from alice:", v.Script().Caller == alice.ID())
	fmt.Println("the same script:", v.ID() == id)
	fmt.Println("asks for:", v.Script().Logic.Name, v.Script().Entry)

	// On the way somebody changed one bit.
	sealed[100] ^= 1
	_, err = envelope.Open(ctx, sealed, time.Now(), known)
	fmt.Println("changed:", envelope.KindOf(err) == envelope.Unauthenticated)

	// Output:
	// from alice: true
	// the same script: true
	// asks for: guestbook sign
	// changed: true
}
