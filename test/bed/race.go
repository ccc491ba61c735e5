package bed

import (
	"os"
	"path/filepath"
	"testing"
)

// raceEnv has a program that was built with the race detector write what it finds
// beside everything else of the bed, so that it is there also after a SIGKILL.
// Without the detector nobody reads it.
func (b *Bed) raceEnv() string {
	return "GORACE=atexit_sleep_ms=0 log_path=" + filepath.Join(b.dir, "race")
}

// raced fails a test in which the detector found something in a program of ours.
func (b *Bed) raced(t testing.TB) {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(b.dir, "race.*"))
	if err != nil {
		t.Error(err)
	}
	for _, f := range found {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Error(err)
		}
		t.Errorf("the race detector says:\n%s", text[:min(len(text), 16<<10)])
	}
}
