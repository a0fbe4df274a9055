package cas_test

import (
	"testing"

	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/cas"
	"github.com/circles-host/circles/host/store/cas/castest"
	"github.com/circles-host/circles/host/store/storetest"
)

func TestStore(t *testing.T) {
	storetest.RunDurable(t, func(t *testing.T) (store.Store, func() store.Store) {
		bucket, c := &castest.Bucket{}, cas.Config{CacheDir: t.TempDir(), StageDir: t.TempDir()}
		open := func() store.Store {
			s, err := cas.Open(t.Context(), bucket, c)
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		return open(), open
	})
}
