package oracle

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

// judge is the product's answerer: the test binary of internal/pod/validate.
type judge struct {
	binary string
	in     io.WriteCloser
	out    *bufio.Reader
}

// newJudge builds and starts the judge; it ends with the test.
func newJudge(t *testing.T) *judge {
	t.Helper()
	j := &judge{binary: t.TempDir() + "/judge"}
	build := exec.Command("go", "test", "-c", "-o", j.binary, "./internal/pod/validate")
	build.Dir = "../.."
	if text, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the judge: %v\n%s", err, text)
	}
	run := exec.Command(j.binary)
	run.Env = append(os.Environ(), "NODEAGENT_JUDGE=pods")
	run.Stderr = os.Stderr
	var err error
	if j.in, err = run.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := run.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	j.out = bufio.NewReader(out)
	if err := run.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		j.in.Close()
		if err := run.Wait(); err != nil {
			t.Errorf("judge: %v", err)
		}
	})
	return j
}

// answer asks for the verdict on one pod, a line of JSON.
func (j *judge) answer(line []byte) (verdict, error) {
	var v verdict
	if _, err := j.in.Write(append(line, '\n')); err != nil {
		return v, fmt.Errorf("ask the judge: %w", err)
	}
	text, err := j.out.ReadBytes('\n')
	if err != nil {
		return v, fmt.Errorf("hear the judge: %w", err)
	}
	return v, json.Unmarshal(text, &v)
}

// fields lists the fields of a PodSpec at the product's API level, by JSON path,
// and whether the product calls them younger than the level that it judges.
func (j *judge) fields(t *testing.T) map[string]bool {
	t.Helper()
	fields := map[string]bool{}
	for line := range strings.Lines(j.list(t, "fields")) {
		path, mark, _ := strings.Cut(strings.TrimSpace(line), " ")
		fields[path] = mark == "younger"
	}
	return fields
}

// rule is one of the product's own test cases.
type rule struct {
	Line int         `json:"line"`
	Path string      `json:"path"` // where the error is; "" if there is none
	Pod  *corev1.Pod `json:"pod"`
}

func (j *judge) rules(t *testing.T) []rule {
	t.Helper()
	var rules []rule
	for line := range strings.Lines(j.list(t, "rules")) {
		var r rule
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		rules = append(rules, r)
	}
	if len(rules) == 0 {
		t.Fatal("the product has no rules")
	}
	return rules
}

// list runs the judge once for one of its lists.
func (j *judge) list(t *testing.T, mode string) string {
	t.Helper()
	run := exec.Command(j.binary)
	run.Dir = "../../internal/pod/validate"
	run.Env = append(os.Environ(), "NODEAGENT_JUDGE="+mode)
	text, err := run.Output()
	if err != nil {
		t.Fatalf("list %s: %v", mode, err)
	}
	return string(text)
}
