package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/peer"
	"github.com/circles-host/circles/host/storage"
	"github.com/circles-host/circles/host/store"
	"github.com/circles-host/circles/host/store/cas"
	"github.com/circles-host/circles/host/store/natsobj"
	"github.com/circles-host/circles/host/store/plugin"
	"github.com/circles-host/circles/host/store/s3"
	"github.com/circles-host/circles/host/units"
)

// openWithin bounds how long a server is waited for when a context is opened. It is
// the time of the one who wants it; other peers do not wait.
const openWithin = 30 * time.Second

// bucketSettings are those of a backend in circles.toml, and ours.
type bucketSettings struct {
	Cache units.Size `toml:"cache"` // bytes of each context that are kept on this machine; default 256 MiB
}

// s3Backend keeps each context under its peer's id in one bucket.
func s3Backend(root *host.Root) storage.Backend {
	config := func(e peer.Entry) (s3.Config, error) {
		var c struct {
			s3.Config
			bucketSettings
		}
		if err := settingsOf("s3", root.Config.Store.S3, &c); err != nil {
			return c.Config, err
		}
		inRoot(root, &c.CredentialsFile, &c.SecretKeyFile, &c.CAFile)
		c.Prefix += idText(e) + "/"
		c.Store = cached(e, c.bucketSettings)
		return c.Config, nil
	}
	b := bucket(func(ctx context.Context, e peer.Entry) (cas.Remote, cas.Config, error) {
		c, err := config(e)
		if err != nil {
			return nil, c.Store, err
		}
		r, err := s3.Dial(ctx, c)
		return r, c.Store, err
	})
	b.Check = func() error { _, err := config(peer.Entry{}); return err }
	b.Where = func(e peer.Entry) string {
		c, err := config(e)
		if err != nil {
			return "a bucket"
		}
		return fmt.Sprintf("%s of bucket %s at %s", c.Prefix, c.Bucket, c.Endpoint)
	}
	return b
}

// natsBackend keeps each context under its peer's id in one bucket.
func natsBackend(root *host.Root) storage.Backend {
	config := func(e peer.Entry) (natsobj.Config, error) {
		var c struct {
			natsobj.Config
			bucketSettings
		}
		if err := settingsOf("natsobj", root.Config.Store.NATSObj, &c); err != nil {
			return c.Config, err
		}
		inRoot(root, &c.CredentialsFile, &c.SeedFile, &c.PasswordFile, &c.CAFile, &c.CertFile, &c.KeyFile)
		c.Prefix += idText(e)
		c.Store = cached(e, c.bucketSettings)
		return c.Config, nil
	}
	b := bucket(func(ctx context.Context, e peer.Entry) (cas.Remote, cas.Config, error) {
		c, err := config(e)
		if err != nil {
			return nil, c.Store, err
		}
		r, err := natsobj.Dial(ctx, c)
		return r, c.Store, err
	})
	b.Check = func() error { _, err := config(peer.Entry{}); return err }
	b.Where = func(e peer.Entry) string {
		c, err := config(e)
		if err != nil {
			return "a bucket"
		}
		return fmt.Sprintf("%s of bucket %s at %s", c.Prefix, c.Bucket, strings.Join(c.Servers, ", "))
	}
	return b
}

// bucket is a backend on what dial reaches.
func bucket(dial func(context.Context, peer.Entry) (cas.Remote, cas.Config, error)) storage.Backend {
	return storage.Backend{
		Shared: true,
		Open: func(ctx context.Context, e peer.Entry) (store.Store, error) {
			ctx, cancel := context.WithTimeout(ctx, openWithin)
			defer cancel()
			r, c, err := dial(ctx, e)
			if err != nil {
				return nil, err
			}
			return known(cas.Open(ctx, r, c))
		},
		Verify: func(ctx context.Context, e peer.Entry, repair bool, report func(store.Finding)) error {
			r, c, err := dial(ctx, e)
			if err != nil {
				return err
			}
			s, err := cas.Open(ctx, r, c)
			if err != nil {
				return err
			}
			damaged := false
			err = s.Check(ctx, func(err error) {
				damaged = true
				report(store.Finding{Where: "bucket", What: err.Error(), Damage: true})
			})
			// Of a damaged one nothing is deleted: it may be what a backup refers to.
			if err == nil && repair && !damaged {
				var garbage cas.Collected
				if garbage, err = s.Collect(ctx, 0); garbage.Deleted > 0 {
					report(store.Finding{
						Where: "bucket", Fixed: true, Fix: "they are deleted",
						What: fmt.Sprintf("%d blobs of %d bytes that nothing refers to: replaced, or of a commit that was not completed", garbage.Deleted, garbage.DeletedBytes),
					})
				}
			}
			return errors.Join(err, s.Close())
		},
		Remove: func(ctx context.Context, e peer.Entry) error {
			r, _, err := dial(ctx, e)
			if err != nil {
				return err
			}
			return errors.Join(cas.Clear(ctx, r), remove(e, cacheDir))
		},
	}
}

// cacheDir is where blobs of a context are kept on this machine.
const cacheDir = "context.cache"

func cached(e peer.Entry, s bucketSettings) cas.Config {
	return cas.Config{CacheDir: filepath.Join(e.Dir, cacheDir), CacheBytes: int64(s.Cache)}
}

// idText is a peer's id as a part of a name.
func idText(e peer.Entry) string { return strings.TrimPrefix(string(e.ID), "did:key:") }

// settingsOf decodes [store.NAME] of circles.toml into v; a setting that is misspelt
// is an error.
func settingsOf(name string, table map[string]any, v any) error {
	fail := func(err error) error { return fmt.Errorf("circles.toml: [store.%s]: %w", name, err) }
	if len(table) == 0 {
		return fail(errors.New("it is not there: say where the contexts are kept; see docs/storage.md"))
	}
	text, err := toml.Marshal(table)
	if err != nil {
		return fail(err)
	}
	err = toml.NewDecoder(bytes.NewReader(text)).DisallowUnknownFields().Decode(v)
	var strict *toml.StrictMissingError
	if errors.As(err, &strict) && len(strict.Errors) > 0 {
		return fail(fmt.Errorf("there is no setting %q", strings.Join(strict.Errors[0].Key(), ".")))
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// inRoot makes the names of files that are not absolute relative to the root.
func inRoot(root *host.Root, files ...*string) {
	for _, f := range files {
		if *f != "" && !filepath.IsAbs(*f) {
			*f = filepath.Join(root.Dir, *f)
		}
	}
}

// pluginBackend is a program of somebody else's.
func pluginBackend(root *host.Root, name string, p host.PluginConfig) storage.Backend {
	apart := slices.ContainsFunc(slices.Collect(maps.Values(p.Settings)), func(v string) bool {
		return strings.Contains(v, "{dir}") || strings.Contains(v, "{id}")
	})
	check := func() error {
		switch {
		case p.Command == "":
			return fmt.Errorf("circles.toml: [store.plugin.%s]: command is missing: the program that keeps the contexts", name)
		case !apart:
			return fmt.Errorf("circles.toml: [store.plugin.%s.settings]: neither {dir} nor {id} is in it, so that all contexts would be kept in one place", name)
		}
		return nil
	}
	return storage.Backend{
		Check: check,
		Where: func(peer.Entry) string { return "the plugin " + name },
		Open: func(ctx context.Context, e peer.Entry) (store.Store, error) {
			if err := check(); err != nil {
				return nil, err
			}
			c := plugin.Config{Command: p.Command, Args: p.Args, Env: p.Env, Dir: root.Dir, SHA256: p.SHA256, Settings: map[string]string{}}
			if strings.ContainsRune(p.Command, filepath.Separator) {
				inRoot(root, &c.Command)
			}
			own := strings.NewReplacer("{id}", string(e.ID), "{dir}", e.Dir)
			for k, v := range p.Settings {
				c.Settings[k] = own.Replace(v)
			}
			return known(plugin.Open(ctx, c))
		},
		Remove: func(context.Context, peer.Entry) error {
			return fmt.Errorf("what the plugin %s keeps, only it can remove: %w", name, store.ErrNotSupported)
		},
	}
}
