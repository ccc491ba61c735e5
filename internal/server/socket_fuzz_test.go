package server

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

type noPods struct{}

func (noPods) Pods() []*corev1.Pod { return nil }

func (noPods) Watch(context.Context, func(*corev1.Pod, bool) error) error { return nil }

// FuzzRoutes: whatever is asked of the local socket, the answer is one of those
// that there are, and only a POST changes anything.
func FuzzRoutes(f *testing.F) {
	for _, r := range [][3]string{
		{"GET", "/v1/pods", ""}, {"POST", "/v1/reload", ""}, {"GET", "/v1/reload", ""}, {"GET", "/v1/problems?x=%zz", ""}, {"GET", "/v1/service?namespace=a&name=%00", ""},
		{"DELETE", "/v1/pods", "{}"}, {"GET", "//v1/../v1/pods", ""}, {"POST", "/v1/restart", `{"pod":"a"}`}, {"PRI", "*", ""},
	} {
		f.Add(r[0], r[1], r[2])
	}
	f.Fuzz(func(t *testing.T, method, target, body string) {
		changed := false
		s, err := NewSocket(SocketConfig{Path: "/nowhere/s", Pods: noPods{},
			Info:    map[string]func() any{"problems": func() any { return nil }},
			Reload:  func() error { changed = true; return errors.New("no") },
			Service: func(context.Context, string, string) (any, error) { return nil, nil },
		})
		if err != nil {
			t.Fatal(err)
		}
		req, err := http.NewRequestWithContext(t.Context(), method, "http://local", strings.NewReader(body))
		if err != nil {
			return // no client can send it
		}
		if req.URL, err = req.URL.Parse(target); err != nil {
			return
		}
		w := httptest.NewRecorder()
		s.handler().ServeHTTP(w, req)
		switch w.Code {
		case http.StatusOK, http.StatusNotFound, http.StatusMethodNotAllowed, http.StatusMovedPermanently, http.StatusTemporaryRedirect,
			http.StatusBadRequest, http.StatusUnprocessableEntity, http.StatusConflict:
		default:
			t.Errorf("%s %q is answered with %d", method, target, w.Code)
		}
		if changed && method != http.MethodPost {
			t.Errorf("%s %q changed something", method, target)
		}
	})
}
