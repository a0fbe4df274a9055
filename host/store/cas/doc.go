// Package cas keeps a context in content-addressed blobs under a root object that
// is swapped by compare-and-set, on anything that can do that much: see Remote.
package cas
