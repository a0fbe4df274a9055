package build

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// tree writes files below a folder, name and text in turn.
func tree(t *testing.T, dir string, files ...string) string {
	t.Helper()
	for i := 0; i < len(files); i += 2 {
		file := filepath.Join(dir, files[i])
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(files[i+1]), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// TestSources: what somebody else needs to build it, and nothing that is ignored, made,
// or secret.
func TestSources(t *testing.T) {
	repository := tree(t, t.TempDir(), ".git/HEAD", "", ".gitignore", "/mods/m/notes.go\nlogs/\n",
		"mods/m/go.mod", "module m", "mods/m/main.go", "package main", "mods/m/sub/a.go", "package sub", "mods/m/vendor/modules.txt", "# x",
		"mods/m/manifest.json", "{}", "mods/m/build.toml", "", "mods/m/README.md", "x", "mods/m/words/de.txt", "eins", "mods/m/words/secret.txt", "zwei",
		"mods/m/.gitignore", "*.gen.go\n!keep.gen.go\n/only/*.go\n**/deep.go\n", "mods/m/a.gen.go", "", "mods/m/keep.gen.go", "", "mods/m/only/b.go", "",
		"mods/m/sub/only/c.go", "", "mods/m/sub/deep.go", "", "mods/m/notes.go", "", "mods/m/logs/x.go", "",
		"mods/m/.env", "TOKEN=x", "mods/m/.cargo/config.toml", "x", "mods/m/server.key", "x", "mods/m/id_ed25519", "x", "mods/m/credentials.json", "{}", "mods/m/prod.env", "x",
		"mods/m/node_modules/x/index.js", "x", "mods/m/target/x.rs", "x", "mods/m/m.wasm", "x", "mods/m/draft/x.go", "x", "mods/m/photo.png", "x")
	dir := filepath.Join(repository, "mods", "m")
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "passwd.go")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("..", filepath.Join(dir, "up")); err != nil {
		t.Fatal(err)
	}
	files, left, err := Sources(dir, Settings{Include: []string{"words/*.txt", "server.key", ".env"}, LeaveOut: []string{"draft/"}})
	if err != nil {
		t.Fatal(err)
	}
	var names, gone []string
	for _, f := range files {
		names = append(names, f.Name)
	}
	for _, l := range left {
		gone = append(gone, l.Name)
	}
	if want := []string{"README.md", "build.toml", "go.mod", "keep.gen.go", "main.go", "manifest.json", "sub/a.go", "sub/only/c.go", "vendor/modules.txt", "words/de.txt"}; !slices.Equal(names, want) {
		t.Errorf("gathered\n%v, want\n%v", names, want)
	}
	if want := []string{"a.gen.go", "credentials.json", "id_ed25519", "logs", "notes.go", "only/b.go", "passwd.go", "photo.png", "prod.env", "server.key", "sub/deep.go", "up", "words/secret.txt"}; !slices.Equal(gone, want) {
		t.Errorf("left out\n%v, want\n%v", left, want)
	}
	if i := slices.IndexFunc(files, func(f Source) bool { return f.Name == "main.go" }); i < 0 || string(files[i].Text) != "package main" {
		t.Error("main.go is another")
	}
}

func TestSourcesThatAreTooMuch(t *testing.T) {
	var many []string
	for i := range maxSources + 1 {
		many = append(many, fmt.Sprintf("f%d.go", i), "")
	}
	for name, tt := range map[string]struct {
		files []string
		want  string
	}{
		"many":  {many, "leave some out"},
		"large": {[]string{"a.go", strings.Repeat("x", maxSourcesSize+1)}, "leave some out"},
		"deep":  {[]string{strings.Repeat("d/", maxDepth+1) + "a.go", ""}, "folders deep"},
		"a key": {[]string{"main.go", "const k = `-----BEGIN EC PRIVATE KEY-----\n`"}, "main.go has a private key in it"},
	} {
		if _, _, err := Sources(tree(t, t.TempDir(), tt.files...), Settings{}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v; want %q", name, err, tt.want)
		}
	}
	for text, want := range map[string]string{
		"embed-sources = true": `build.toml:1: there is no setting "embed-sources"`,
		"embed-source = 1":     "build.toml:1:",
		"embed-source = true":  "",
	} {
		s, err := ReadSettings(tree(t, t.TempDir(), SettingsFile, text))
		if want == "" && (err != nil || !s.EmbedSource) || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %+v, %v", text, s, err)
		}
	}
}
