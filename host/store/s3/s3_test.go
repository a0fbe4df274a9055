package s3_test

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/cas"
	"github.com/circles-host/circles/host/store/cas/castest"
	"github.com/circles-host/circles/host/store/s3"
	"github.com/circles-host/circles/host/store/s3/s3test"
	"github.com/circles-host/circles/host/store/storetest"
)

var prefixes atomic.Int64

// on is an empty place in the server's bucket.
func on(server *s3test.Server) s3.Config {
	return s3.Config{
		Endpoint: server.Endpoint, Region: server.Region, Bucket: server.Bucket,
		Prefix:    fmt.Sprintf("context %d/", prefixes.Add(1)),
		AccessKey: server.AccessKey, SecretKey: server.SecretKey,
	}
}

func mustOpen(t testing.TB, c s3.Config) *cas.Store {
	t.Helper()
	s, err := s3.Open(t.Context(), c)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRemote(t *testing.T) {
	server := s3test.Start(t)
	castest.Run(t, func(t *testing.T) cas.Remote {
		r, err := s3.Dial(t.Context(), on(server))
		if err != nil {
			t.Fatal(err)
		}
		return r
	})
}

func TestStore(t *testing.T) {
	server := s3test.Start(t)
	storetest.RunDurable(t, func(t *testing.T) (store.Store, func() store.Store) {
		c := on(server)
		open := func() store.Store { return mustOpen(t, c) }
		return open(), open
	})
}
