package measure

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestGroupTime(t *testing.T) {
	file := filepath.Join(t.TempDir(), "cpu.stat")
	for _, c := range []struct {
		text string
		want time.Duration
		ok   bool
	}{
		{"usage_usec 1234567\nuser_usec 1\nsystem_usec 2\n", 1234567 * time.Microsecond, true},
		{"user_usec 1\n", 0, false},
		{"usage_usec much\n", 0, false},
	} {
		if err := os.WriteFile(file, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		if got, err := GroupTime(file); got != c.want || (err == nil) != c.ok {
			t.Errorf("%q: %v, %v", c.text, got, err)
		}
	}
	if _, err := GroupTime(file + "-missing"); err == nil {
		t.Error("no error where there is no such file")
	}
}
