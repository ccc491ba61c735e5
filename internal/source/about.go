package source

import (
	"path/filepath"
	"strings"

	"nodeagent/internal/pod"
)

// Refusal is the problem as pod.Explain takes it.
func (p Problem) Refusal() pod.Refusal {
	return pod.Refusal{File: p.File, Line: p.Line, Message: p.Message, Since: p.Since}
}

// About tells whether the problem is the named pod's: it says so, or, where it knows no
// pod, its file has the pod's name, with or without the node's. That a second manifest of
// the pod is not taken is that manifest's problem.
func (p Problem) About(namespace, name, node string) bool {
	if strings.HasPrefix(p.Message, doubled) {
		return false
	}
	if p.Pod != "" {
		return p.Pod == namespace+"/"+name
	}
	file := filepath.Base(p.File)
	base := strings.TrimSuffix(file, filepath.Ext(file))
	return base != "" && base != file && (name == base || name == base+"-"+strings.ToLower(node))
}
