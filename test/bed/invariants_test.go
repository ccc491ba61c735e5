package bed_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"nodeagent/test/bed"
)

func status(uid string, phase corev1.PodPhase, restarts, exit int32) bed.Change {
	p := &corev1.Pod{}
	p.UID, p.Name, p.Status.Phase = types.UID(uid), uid, phase
	p.Status.ContainerStatuses = []corev1.ContainerStatus{{
		Name: "c", RestartCount: restarts,
		LastTerminationState: corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: "x", ExitCode: exit}},
	}}
	return bed.Change{Pod: p}
}

func TestHistory(t *testing.T) {
	gone := status("a", corev1.PodRunning, 2, 0)
	gone.Gone = true
	for name, c := range map[string]struct {
		seen []bed.Change
		want string
	}{
		"a pod's life":       {[]bed.Change{status("a", "Pending", 0, 0), status("a", "Running", 1, 0), status("a", "Failed", 1, 0)}, ""},
		"phase goes back":    {[]bed.Change{status("a", "Running", 0, 0), status("a", "Pending", 0, 0)}, "from Running to Pending"},
		"an end is an end":   {[]bed.Change{status("a", "Succeeded", 0, 0), status("a", "Failed", 0, 0)}, "from Succeeded to Failed"},
		"fewer restarts":     {[]bed.Change{status("a", "Running", 2, 0), status("a", "Running", 1, 0)}, "had 2 restarts"},
		"another exit code":  {[]bed.Change{status("a", "Running", 1, 7), status("a", "Running", 1, 137)}, "ended with 7 and now with 137"},
		"comes back as new":  {[]bed.Change{status("a", "Running", 2, 0), gone, status("a", "Pending", 0, 0)}, ""},
		"pods are different": {[]bed.Change{status("a", "Running", 2, 0), status("b", "Pending", 0, 0)}, ""},
	} {
		h := bed.NewHistory()
		for _, s := range c.seen {
			h.See(s)
		}
		got := strings.Join(h.Illegal(), "; ")
		if (c.want == "") != (got == "") || !strings.Contains(got, c.want) {
			t.Errorf("%s: the history says %q, want %q", name, got, c.want)
		}
	}
}

func TestCheckLog(t *testing.T) {
	line := func(n int) string {
		return fmt.Sprintf("2026-01-01T00:00:00.000000000Z stdout F %012d%s\n", n, strings.Repeat(".", 87))
	}
	end := "2026-01-01T00:00:00.000000000Z stdout F end 4\n"
	for name, c := range map[string]struct {
		files map[string]string
		want  bed.FloodLog
		err   string
	}{
		"whole":          {map[string]string{"0.log.20260101-000000": line(0) + line(1), "0.log": line(2) + line(3) + end}, bed.FloodLog{First: 0, Next: 4, Printed: 4}, ""},
		"oldest missing": {map[string]string{"0.log": line(2) + line(3) + end}, bed.FloodLog{First: 2, Next: 4, Printed: 4}, ""},
		"a gap":          {map[string]string{"0.log": line(0) + line(2)}, bed.FloodLog{}, "line 2 where 1 should be"},
		"cut short":      {map[string]string{"0.log": line(0) + line(1)[:60] + "\n"}, bed.FloodLog{}, "not a line of the flood"},
		"no log line":    {map[string]string{"0.log": "hello\n"}, bed.FloodLog{}, "not a log line"},
		"no log":         {nil, bed.FloodLog{}, "find the log"},
	} {
		dir := t.TempDir()
		for n, text := range c.files {
			if err := os.WriteFile(filepath.Join(dir, n), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		got, err := bed.CheckLog(dir)
		if c.err != "" {
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%s: error %v, want %q", name, err, c.err)
			}
			continue
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %+v, %v; want %+v", name, got, err, c.want)
		}
	}
}
