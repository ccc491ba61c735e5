package need

import (
	"go/ast"
	"go/parser"
	"go/token"
	"testing"
	"time"
)

// TestByName: every fact of the list can be asked for by its name and is known.
func TestByName(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "need.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(f, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || spec.Type == nil {
			return true
		}
		if id, ok := spec.Type.(*ast.Ident); ok && id.Name == "Fact" {
			n++
			name := spec.Names[0].Name
			fact, known := ByName(name)
			if !known {
				t.Errorf("need.%s cannot be found by name: the machine bed would not see its tests", name)
			} else if why := Lacks(fact); why == "unknown fact "+string(fact) {
				t.Errorf("need.%s is %s", name, why)
			}
		}
		return true
	})
	if n == 0 {
		t.Error("found no facts")
	}
}

func TestSlow(t *testing.T) {
	for env, want := range map[string]time.Duration{"": time.Second, "10": 10 * time.Second, "0": time.Second, "x": time.Second} {
		t.Setenv("NODEAGENT_SLOW", env)
		if got := Slow(time.Second); got != want {
			t.Errorf("NODEAGENT_SLOW=%q: %v, want %v", env, got, want)
		}
	}
}
