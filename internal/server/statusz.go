package server

import (
	"encoding/json"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Statusz is what this program is, in the form that components of Kubernetes agreed on.
type Statusz struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitzero"`

	StartTime     metav1.Time `json:"startTime"`
	UptimeSeconds int64       `json:"uptimeSeconds"`
	GoVersion     string      `json:"goVersion"`
	BinaryVersion string      `json:"binaryVersion"`
	Paths         []string    `json:"paths"`
}

// statusz says since when which version runs, and what else can be asked.
func (a *NodeAPI) statusz(w http.ResponseWriter, r *http.Request, _ []string) {
	s := Statusz{
		TypeMeta:   metav1.TypeMeta{Kind: "Statusz", APIVersion: "config.k8s.io/v1beta1"},
		ObjectMeta: metav1.ObjectMeta{Name: "kubelet"},
		StartTime:  metav1.NewTime(a.began), UptimeSeconds: int64(time.Since(a.began).Seconds()),
		GoVersion: runtime.Version(), BinaryVersion: a.cfg.Version,
	}
	for _, name := range slices.Sorted(maps.Keys(a.routes)) {
		if rt := a.routes[name]; rt.handle != nil && rt.allows(http.MethodGet) && !rt.create {
			s.Paths = append(s.Paths, "/"+name)
		}
	}
	if asksForStatusz(r.Header.Get("Accept")) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(s) // who asked is gone
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	up := s.UptimeSeconds
	fmt.Fprintf(w, `
%s statusz
Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.

Started: %s
Up: %d hr %02d min %02d sec
Go version: %s
Binary version: %s
Paths: %s
`, s.Name, s.StartTime.UTC().Format(time.UnixDate), up/3600, up/60%60, up%60, s.GoVersion, s.BinaryVersion, strings.Join(s.Paths, " "))
}

// asksForStatusz tells whether a client names the structured form, which alone may be
// read by programs.
func asksForStatusz(accept string) bool {
	for one := range strings.SplitSeq(accept, ",") {
		kind, params, err := mime.ParseMediaType(one)
		if err == nil && kind == "application/json" && params["as"] == "Statusz" && params["g"] == "config.k8s.io" && params["v"] == "v1beta1" {
			return true
		}
	}
	return false
}
