package measure

import (
	"os"
	"os/exec"
	"testing"
)

// TestChildrenTime: what a child used is counted when it has ended.
func TestChildrenTime(t *testing.T) {
	before, err := ChildrenTime(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	work := exec.Command("/bin/sh", "-c", "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done")
	if err := work.Run(); err != nil {
		t.Fatal(err)
	}
	after, err := ChildrenTime(os.Getpid())
	used := work.ProcessState.UserTime() + work.ProcessState.SystemTime()
	if got := after - before; err != nil || got < used-2*tick || got > used+2*tick {
		t.Errorf("children used %v, %v, and the child says %v", got, err, used)
	}
}
