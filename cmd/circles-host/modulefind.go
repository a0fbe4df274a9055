package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/circles-host/circles/host"
	"github.com/circles-host/circles/host/module"
	"github.com/circles-host/circles/host/script"
)

// moduleSuffixes are those of files in which modules lie.
func moduleSuffixes() []string {
	suffixes := []string{module.Suffix}
	for _, l := range hostLanguages() {
		suffixes = append(suffixes, l.Suffix)
	}
	return suffixes
}

// surveyed are the layers that a command works on, and what is wrong with them: the
// host's, and before it that of --peer.
func surveyed(c *cli.Context, root *host.Root) (list []layer, surveys []module.Survey, problem error, err error) {
	list = []layer{{"host", filepath.Join(root.Dir, "modules")}}
	if name := c.String("peer"); name != "" {
		e, err := held(root, name)
		if err != nil {
			return nil, nil, nil, err
		}
		list = layers(root, e)
	}
	for _, l := range list {
		s, err := module.Look(l.dir, moduleSuffixes()...)
		problem = errors.Join(problem, err)
		surveys = append(surveys, s)
	}
	return list, surveys, problem, nil
}

// aModule is one that was named on the command line.
type aModule struct {
	title string // as it was named
	name  string // in its layer; "" for a file
	layer layer
	path  string
	code  []byte
}

// moduleWords is how commands name a module.
const moduleWords = `A module is named by its file, or by its name in a layer: that of --peer, and then
the host's. After the name, @host is the host's although the peer has one, @previous
the version that was in force before, @DIGEST one that is kept, of which the first
8 digits do.`

var versionDigits = regexp.MustCompile(`^(sha256:)?[0-9a-f]{8,64}$`)

// findModule finds a module as moduleWords says.
func findModule(c *cli.Context, word string) (m aModule, err error) {
	m.title = word
	name, version, _ := strings.Cut(word, "@")
	if !module.ValidName(name) {
		m.path = word
		m.code, err = readModule(word)
		return m, err
	}
	root, err := openRoot(c)
	if err != nil {
		return m, err
	}
	list, surveys, _, err := surveyed(c, root)
	if err != nil {
		return m, err
	}
	if version == "host" {
		list, surveys, version = list[len(list)-1:], surveys[len(surveys)-1:], ""
	}
	for i, s := range surveys {
		one, ok := s.Get(name)
		if version != "" {
			v, err := findVersion(s.Dir, name, version, one)
			if errors.Is(err, module.ErrNoVersion) && i+1 < len(surveys) && !ok {
				continue
			}
			if err != nil {
				return m, coded{exitNotFound, err}
			}
			m.name, m.layer = name, list[i]
			m.code, err = v.Read(s.Dir)
			m.path = v.Path(s.Dir)
			return m, notFound(err)
		}
		if !ok {
			continue
		}
		m.name, m.layer, m.path = name, list[i], one.Path
		if m.code, _, err = one.Code(); one.Problem != nil {
			err = coded{exitInvalid, err}
		}
		return m, err
	}
	return m, coded{exitNotFound, fmt.Errorf("there is no module %s in %s; %s module list names those that are", name, relative(root.Dir), host.Command)}
}

// findVersion finds a version that is kept: "previous", or by the first digits of its
// digest. now is what is in force.
func findVersion(dir, name, version string, now module.Standing) (found module.Version, err error) {
	all, err := module.Versions(dir, name)
	if err != nil {
		return found, err
	}
	if version != "previous" && !versionDigits.MatchString(version) {
		return found, usage("%s@%s: after the @ stands host, previous, or a digest, of which 8 digits do", name, version)
	}
	var digest script.Digest
	if version == "previous" && now.Name != "" {
		_, digest, _ = now.Code() // if it cannot be read, any other is the one before
	}
	var matching []module.Version
	for _, v := range all {
		if version == "previous" {
			if v.Digest != digest {
				return v, nil
			}
		} else if strings.HasPrefix(fmt.Sprintf("%x", v.Digest), strings.TrimPrefix(version, "sha256:")) {
			matching = append(matching, v)
		}
	}
	switch {
	case len(matching) > 0 && matching[len(matching)-1].Digest != matching[0].Digest:
		return found, usage("%s@%s is the beginning of several versions; say more of it", name, version)
	case len(matching) > 0:
		return matching[0], nil
	}
	return found, fmt.Errorf("%w: no %s of module %s is kept in %s; %s module versions %s lists those that are", module.ErrNoVersion, version, name, relative(dir), host.Command, name)
}

// digestOf is a digest that was typed, or the beginning of one that is kept.
func digestOf(dir, name, typed string) (script.Digest, error) {
	if d, err := script.ParseDigest(typed); err == nil {
		return d, nil
	}
	if !versionDigits.MatchString(typed) {
		return script.Digest{}, usage("%q is no digest: want sha256: and 64 digits, or the first 8 of a version that is kept", typed)
	}
	v, err := findVersion(dir, name, typed, module.Standing{})
	return v.Digest, notFound(err)
}

// notFound gives the errors about what is not there their exit code.
func notFound(err error) error {
	if errors.Is(err, module.ErrNoVersion) || errors.Is(err, module.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return coded{exitNotFound, err}
	}
	return err
}

// wantName checks a name that was typed.
func wantName(name string) error {
	if !module.ValidName(name) {
		return usage("module name %q: want 1 to 63 of a-z, 0-9 and \"-\"", name)
	}
	return nil
}
