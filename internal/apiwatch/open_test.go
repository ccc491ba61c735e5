package apiwatch

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// TestOpen: a server that answers has no deadline after that, one that does not
// is given up, and the connection of a watch that is stopped goes back.
func TestOpen(t *testing.T) {
	gone := make(chan struct{}, 2)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() { gone <- struct{}{} }()
		if r.URL.Path == "/api/v1/pods" {
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(http.StatusOK)
			w.(http.Flusher).Flush()
		}
		<-r.Context().Done()
	}))
	defer s.Close()
	client, err := rest.RESTClientFor(&rest.Config{Host: s.URL, APIPath: "/api", ContentConfig: rest.ContentConfig{
		GroupVersion: &corev1.SchemeGroupVersion, NegotiatedSerializer: scheme.Codecs.WithoutConversion(),
	}})
	if err != nil {
		t.Fatal(err)
	}
	w, err := Open(t.Context(), client.Get().Resource("pods"), time.Minute)
	if err != nil {
		t.Fatal(err)
	}
	w.Stop()
	<-gone
	if _, open := <-w.ResultChan(); open {
		t.Error("a stopped watch tells something")
	}
	_, err = Open(t.Context(), client.Get().Resource("nodes").MaxRetries(0), 50*time.Millisecond)
	if err == nil || !strings.Contains(err.Error(), "does not answer within 50ms") {
		t.Errorf("a server that says nothing: %v", err)
	}
}
