package cri

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"
)

// TestStopsOfOneContainer: whoever notes a stop of a container while another one does,
// what is on disk is in the end what all of them agreed on.
func TestStopsOfOneContainer(t *testing.T) {
	var log bytes.Buffer
	n := &Native{cfg: Config{RunDir: t.TempDir()}, state: newState(), log: slog.New(slog.NewTextHandler(&log, nil))}
	if err := os.MkdirAll(filepath.Dir(n.stopPath("c1")), 0o700); err != nil {
		t.Fatal(err)
	}
	c := newContainer("c1", "s1", "u1")
	n.state.containers[c.id] = c
	var callers sync.WaitGroup
	for i := range 4 {
		callers.Go(func() {
			for j := range 200 {
				grace := time.Hour - time.Duration(4*j+i)*time.Second
				if err := n.NoteStop(t.Context(), c.id, grace, false, false); err != nil {
					t.Error(err)
				}
			}
		})
	}
	callers.Wait()
	if r, ok := n.readStop(c.id); !ok || r != *c.stop {
		t.Errorf("on disk is %+v, %v, want %+v", r, ok, *c.stop)
	}
	if log.Len() > 0 {
		t.Errorf("%s", log.String())
	}
}
