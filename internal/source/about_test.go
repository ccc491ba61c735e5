package source

import "testing"

// TestProblemIsAboutAPod: a manifest that cannot be read to its end tells whose it is
// by its name where it has one, else by its file's.
func TestProblemIsAboutAPod(t *testing.T) {
	for _, tc := range []struct{ name, text, pod string }{
		{"an unknown field", "apiVersion: v1\nkind: Pod\nmetadata: {name: a, nam: b}\n", "default/a-node"},
		{"another namespace", "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: other}\nspec: {x: 1}\n", "other/a-node"},
		{"a name that cannot be one", "apiVersion: v1\nkind: Pod\nmetadata: {name: \"a b\"}\nspec: {x: 1}\n", ""},
		{"no name", "apiVersion: v1\nkind: Pod\nspec: {x: 1}\n", ""},
	} {
		m := testSource(t, "/m", nil)
		m.cfg.NodeName = "Node"
		_, wrong := m.decode("/m/file.yaml", []byte(tc.text))
		if len(wrong) == 0 || wrong[0].pod != tc.pod {
			t.Errorf("%s: %+v is not of pod %q", tc.name, wrong, tc.pod)
		}
	}
	for _, tc := range []struct {
		p    Problem
		name string
		want bool
	}{
		{Problem{File: "/m/file.yaml", Pod: "default/a-node"}, "a-node", true},
		{Problem{File: "/m/a.yaml", Pod: "default/b-node"}, "a-node", false},
		{Problem{File: "/m/a.yaml"}, "a-node", true},
		{Problem{File: "/m/a.yaml"}, "a", true},
		{Problem{File: "/m/a.yaml"}, "ab-node", false},
		{Problem{File: "/m"}, "m", false},
		{Problem{File: "/m/.yaml"}, "-node", false},
		{Problem{File: "/m/x.yaml", Pod: "default/a-node", Message: doubled + "a.yaml has one"}, "a-node", false},
	} {
		if got := tc.p.About("default", tc.name, "Node"); got != tc.want {
			t.Errorf("%+v is about %s: %v", tc.p, tc.name, got)
		}
	}
}
