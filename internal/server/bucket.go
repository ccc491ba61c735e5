package server

import (
	"net/http"
	"strings"
)

// other is what a client made up.
const other = "other"

// bucket is what a request is counted as, in kubelet's words: its method, the first
// part of its path, of figures the second one too, and whether it lasts as long as its
// client wants.
func (a *NodeAPI) bucket(r *http.Request, known bool) (method, path string, long bool) {
	method, path = r.Method, other
	switch method {
	case http.MethodGet, http.MethodHead, http.MethodPost, http.MethodPut, http.MethodDelete, http.MethodOptions, http.MethodTrace, http.MethodConnect:
	default:
		method = other
	}
	if !known {
		return method, path, false
	}
	first, rest, _ := strings.Cut(strings.Trim(r.URL.Path, "/"), "/")
	path = first
	if first == "metrics" && rest != "" {
		if path = other; a.cfg.Metrics[rest] != nil {
			path = first + "/" + rest
		}
	}
	return method, path, first == "exec" || first == "attach" || first == "portForward"
}
