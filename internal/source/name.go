package source

import (
	"regexp"
	"strings"
)

// kind is what a file name says about a file.
type kind int

const (
	kindManifest kind = iota
	kindSilent        // hidden, or what an editor or a package manager leaves
	kindForeign       // no manifest, though kubelet would take it for one
)

var (
	leftovers = regexp.MustCompile(`(?i)(~|\.(bak|backup|old|orig|rej|save|sw[a-z]|tmp|temp|part|new|dpkg-[a-z]+|ucf-[a-z]+|rpm(save|new|orig))|~\d+~)$`)
	editorTmp = regexp.MustCompile(`^(4913|sed[A-Za-z0-9]{6}|[#~.].*|.*#)$`)
)

// kindOf sorts file names. Only .yaml, .yml and .json are manifests: a copy that
// somebody keeps beside the real one must not win over it, as it can with
// kubelet, which reads every file whose name does not begin with a dot.
func kindOf(name string) kind {
	switch {
	case editorTmp.MatchString(name):
		return kindSilent
	case isManifest(name):
		return kindManifest
	case leftovers.MatchString(name):
		return kindSilent
	default:
		return kindForeign
	}
}

func isManifest(name string) bool {
	for _, ext := range []string{".yaml", ".yml", ".json"} {
		if strings.HasSuffix(name, ext) {
			return true
		}
	}
	return false
}
