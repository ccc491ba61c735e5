package server

import (
	"net/http"
	"path"
	"slices"
	"strings"
)

// route is one thing that can be asked. What right it needs and who answers stand
// in one place, so that they cannot disagree.
type route struct {
	// subresources of the node, any of which gives the right (kubelet:
	// pkg/kubelet/server/auth.go).
	subresources []string
	// create is the verb, whatever the method: a WebSocket is opened with GET.
	create  bool
	methods []string                                                    // none: GET
	args    []int                                                       // how many parts the path has behind its first one; none: any
	stream  bool                                                        // it may last
	handle  func(w http.ResponseWriter, r *http.Request, args []string) // nil: there is no such thing here
}

// unknown is what is asked with any other path.
var unknown = route{subresources: []string{"proxy"}}

// table lists by the first part of the path. Things that are not built stand here
// with the right that they need, and without a handler.
func (a *NodeAPI) table() map[string]route {
	both := []string{http.MethodGet, http.MethodPost}
	proxy := []string{"proxy"}
	return map[string]route{
		"healthz":       {subresources: []string{"healthz", "proxy"}, args: []int{0, 1}, handle: a.healthz},
		"pods":          {subresources: []string{"pods", "proxy"}, args: []int{0}, handle: a.pods},
		"runningpods":   {subresources: []string{"pods", "proxy"}, args: []int{0}, handle: a.runningPods},
		"configz":       {subresources: []string{"configz", "proxy"}, args: []int{0}, handle: a.configz},
		"containerLogs": {subresources: proxy, args: []int{3}, stream: true, handle: a.containerLogs},
		"metrics":       {subresources: []string{"metrics"}, args: []int{0, 1}, handle: a.metrics},
		"stats":         {subresources: []string{"stats"}, args: []int{1}, handle: a.summary},
		"logs":          {subresources: []string{"log"}, stream: true, handle: a.nodeLogs},
		"checkpoint":    {subresources: []string{"checkpoint"}},
		"statusz":       {subresources: []string{"statusz"}, args: []int{0}, handle: a.statusz},
		"flagz":         {subresources: []string{"configz"}},
		"run":           {subresources: proxy, create: true, methods: []string{http.MethodPost}, args: []int{3, 4}, stream: true, handle: a.streamed(a.run)},
		"exec":          {subresources: proxy, create: true, methods: both, args: []int{3, 4}, stream: true, handle: a.streamed(a.exec)},
		"attach":        {subresources: proxy, create: true, methods: both, args: []int{3, 4}, stream: true, handle: a.streamed(a.attach)},
		"portForward":   {subresources: proxy, create: true, methods: both, args: []int{2, 3}, stream: true, handle: a.streamed(a.portForward)},
	}
}

// route finds what a path asks for. A path that is not in its one simple form is
// unknown, and never redirected to that form: a redirect of a stream could be
// followed with somebody else's rights. One of a known first part and a wrong
// number of others needs the right of that part.
func (a *NodeAPI) route(p string) (rt route, args []string, known bool) {
	trimmed := strings.TrimSuffix(p, "/")
	first, rest, more := strings.Cut(strings.TrimPrefix(trimmed, "/"), "/")
	rt, known = a.routes[first]
	if !known || trimmed == "" || path.Clean(trimmed) != trimmed || trimmed[0] != '/' {
		return unknown, nil, false
	}
	if more {
		args = strings.Split(rest, "/")
	}
	if len(rt.args) > 0 && !slices.Contains(rt.args, len(args)) {
		return rt, nil, false
	}
	return rt, args, true
}

func (rt route) allows(method string) bool {
	if len(rt.methods) == 0 {
		return method == http.MethodGet
	}
	return slices.Contains(rt.methods, method)
}

func (rt route) allow() string {
	if len(rt.methods) == 0 {
		return http.MethodGet
	}
	return strings.Join(rt.methods, ", ")
}

// verbs of the API for methods of HTTP; no other method means anything here.
var verbs = map[string]string{
	http.MethodGet: "get", http.MethodPost: "create", http.MethodPut: "update", http.MethodPatch: "patch", http.MethodDelete: "delete",
}

// verb is what must be allowed; "" for a method without meaning.
func (rt route) verb(method string) string {
	if rt.create && verbs[method] != "" {
		return "create"
	}
	return verbs[method]
}
