package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/circles-host/circles/host/store/natsobj/natstest"
	"github.com/circles-host/circles/host/store/s3/s3test"
)

// TestStorageScripts runs testdata/storage/*.txtar: contexts on the backends that
// need a server, which is started here, or a program, which is built here.
func TestStorageScripts(t *testing.T) {
	if found, err := filepath.Glob("testdata/storage/*.txtar"); err != nil || len(found) == 0 {
		t.Fatalf("no scripts to run: %v, %v", found, err)
	}
	dir := t.TempDir()
	example := filepath.Join(dir, "example")
	if out, err := exec.Command("go", "build", "-o", example, "../../host/store/plugin/example").CombinedOutput(); err != nil {
		t.Fatalf("build the example of a plugin: %v\n%s", err, out)
	}
	bucket, stream := s3test.Start(t), natstest.Start(t, "")
	t.Run("scripts", func(t *testing.T) {
		testscript.Run(t, testscript.Params{
			Dir: "testdata/storage",
			Setup: func(env *testscript.Env) error {
				env.Setenv("HOME", env.WorkDir)
				env.Setenv("GORACE", race())
				env.Setenv("TMPDIR", os.TempDir()) // that of a script is too long for the name of a socket
				env.Setenv("PLUGIN", example)
				env.Setenv("S3_ENDPOINT", bucket.Endpoint)
				env.Setenv("S3_REGION", bucket.Region)
				env.Setenv("S3_BUCKET", bucket.Bucket)
				env.Setenv("NATS_URL", stream.URL)
				for name, text := range map[string]string{
					"keys": "[default]\naws_access_key_id = " + bucket.AccessKey + "\naws_secret_access_key = " + bucket.SecretKey + "\n",
				} {
					if err := os.WriteFile(filepath.Join(env.WorkDir, name), []byte(text), 0o600); err != nil {
						return err
					}
				}
				return writeModules(filepath.Join(env.WorkDir, "modules"))
			},
			Cmds:                scriptCommands,
			RequireExplicitExec: true,
		})
	})
}
