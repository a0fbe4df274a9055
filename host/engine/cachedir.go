package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// openCache makes the directory of compiled code, or checks the one that is
// there. Whoever can write to it can have the host execute what they like.
func openCache(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("make compilation cache: %w", err)
	}
	// wazero keeps the code in a directory below, named after its version.
	below, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("open compilation cache: %w", err)
	}
	if err := checkCache(dir); err != nil {
		return err
	}
	for _, d := range below {
		if d.IsDir() || d.Type()&fs.ModeSymlink != 0 {
			if err := checkCache(filepath.Join(dir, d.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkCache(dir string) error {
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("open compilation cache: %w", err)
	}
	switch why := foreign(info); {
	case info.Mode()&fs.ModeSymlink != 0:
		return fmt.Errorf("open compilation cache: %s is a symbolic link; what it holds is executed, so name the directory itself", dir)
	case !info.IsDir():
		return fmt.Errorf("open compilation cache: %s is not a directory", dir)
	case why != "":
		return fmt.Errorf("open compilation cache: %s %s, and what it holds is executed; remove it, or chown it to the host's user and chmod it to 0700", dir, why)
	}
	return nil
}

// clearCache removes the compiled code, which can always be made again.
func clearCache(dir string) error {
	files, err := filepath.Glob(filepath.Join(dir, "wazero-*", "*"))
	for _, f := range files {
		if e := os.Remove(f); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = e
		}
	}
	return err
}

// pruneCache removes the oldest files until what is left has at most max bytes.
// Whoever may send modules makes the cache grow by several times their size.
func pruneCache(dir string, max int64) error {
	names, err := filepath.Glob(filepath.Join(dir, "wazero-*", "*"))
	if err != nil {
		return err
	}
	images, err := filepath.Glob(filepath.Join(dir, imageDir, "*"))
	if err != nil {
		return err
	}
	names = append(names, images...)
	var files []fs.FileInfo
	paths := make(map[fs.FileInfo]string, len(names))
	total := int64(0)
	for _, name := range names {
		if info, err := os.Lstat(name); err == nil && info.Mode().IsRegular() {
			files = append(files, info)
			paths[info] = name
			total += info.Size()
		}
	}
	slices.SortFunc(files, func(a, b fs.FileInfo) int { return a.ModTime().Compare(b.ModTime()) })
	for _, f := range files {
		if total <= max {
			break
		}
		if e := os.Remove(paths[f]); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = e
			continue
		}
		total -= f.Size()
	}
	return err
}
