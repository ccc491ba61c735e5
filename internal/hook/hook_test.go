package hook

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"nodeagent/internal/pod"
)

func hooks(t *testing.T, exec Exec) *Hooks {
	t.Helper()
	if exec == nil {
		exec = func(context.Context, string, []string) (int32, error) { panic("no command was wanted") }
	}
	h, err := New(exec)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestExec(t *testing.T) {
	for code, want := range map[int32]string{0: "", 3: "the command exited with 3"} {
		h := hooks(t, func(_ context.Context, id string, command []string) (int32, error) {
			if id != "c1" || strings.Join(command, " ") != "say hello" {
				t.Errorf("ran %v in %s", command, id)
			}
			return code, nil
		})
		err := h.Run(t.Context(), pod.Hook{Container: "c1", Handler: &corev1.LifecycleHandler{Exec: &corev1.ExecAction{Command: []string{"say", "hello"}}}})
		if text(err) != want {
			t.Errorf("exit code %d: %v, want %q", code, err, want)
		}
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// TestSleep: zero is allowed, and the end of the container ends it.
func TestSleep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h, begun := hooks(t, nil), time.Now()
		for _, seconds := range []int64{0, 7} {
			if err := h.Run(t.Context(), pod.Hook{Handler: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: seconds}}}); err != nil {
				t.Errorf("%d s: %v", seconds, err)
			}
		}
		if took := time.Since(begun); took != 7*time.Second {
			t.Errorf("0 s and 7 s took %s", took)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := h.Run(ctx, pod.Hook{Handler: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 60}}}); err == nil {
			t.Error("a sleep that was cut short was a success")
		}
	})
}

// TestUnsupported: tcpSocket fails when it is run, as in kubelet, and so does nothing at
// all.
func TestUnsupported(t *testing.T) {
	for _, handler := range []*corev1.LifecycleHandler{{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt(80)}}, {}} {
		if err := hooks(t, nil).Run(t.Context(), pod.Hook{Handler: handler}); err == nil {
			t.Errorf("%+v was a success", handler)
		}
	}
}

// at returns a hook that asks the server.
func at(t *testing.T, server *httptest.Server, change func(*corev1.HTTPGetAction)) pod.Hook {
	t.Helper()
	host, port, err := net.SplitHostPort(server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	a := &corev1.HTTPGetAction{Path: "/hook?token=s3cret", Port: intstr.Parse(port)}
	if change != nil {
		change(a)
	}
	return pod.Hook{Addr: netip.MustParseAddr(host), Handler: &corev1.LifecycleHandler{HTTPGet: a}}
}

func TestHTTP(t *testing.T) {
	var seen *http.Request
	mux := http.NewServeMux()
	mux.HandleFunc("/hook", func(w http.ResponseWriter, r *http.Request) {
		seen = r
		w.WriteHeader(http.StatusInternalServerError) // any answer is one
	})
	server := httptest.NewServer(mux)
	defer server.Close()
	own := func(a *corev1.HTTPGetAction) {
		a.HTTPHeaders = []corev1.HTTPHeader{{Name: "Host", Value: "other"}, {Name: "X-Two", Value: "a"}, {Name: "X-Two", Value: "b"}, {Name: "Accept", Value: ""}, {Name: "user-agent", Value: "mine"}}
	}
	if err := hooks(t, nil).Run(t.Context(), at(t, server, nil)); err != nil {
		t.Fatal(err)
	}
	if seen.UserAgent() != userAgent || seen.Header.Get("Accept") != "*/*" || seen.URL.RawQuery != "token=s3cret" {
		t.Errorf("asked with %v %v", seen.URL, seen.Header)
	}
	if err := hooks(t, nil).Run(t.Context(), at(t, server, own)); err != nil {
		t.Fatal(err)
	}
	if seen.Host != "other" || seen.UserAgent() != "mine" || len(seen.Header["X-Two"]) != 2 || seen.Header["Accept"] != nil {
		t.Errorf("asked %s with %v", seen.Host, seen.Header)
	}
}

// TestFallBack: a server that speaks no TLS is asked in the clear, without the
// credentials, as kubelet does; one that does is not verified.
func TestFallBack(t *testing.T) {
	var authorization string
	var asked int
	handler := http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked, authorization = asked+1, r.Header.Get("Authorization")
	})
	plain, secure := httptest.NewServer(handler), httptest.NewTLSServer(handler)
	defer plain.Close()
	defer secure.Close()
	https := func(a *corev1.HTTPGetAction) {
		a.Scheme = corev1.URISchemeHTTPS
		a.HTTPHeaders = []corev1.HTTPHeader{{Name: "Authorization", Value: "s3cret"}}
	}
	if err := hooks(t, nil).Run(t.Context(), at(t, plain, https)); err != nil || asked != 1 || authorization != "" {
		t.Errorf("plain server: %v, asked %d times, with authorization %q", err, asked, authorization)
	}
	if err := hooks(t, nil).Run(t.Context(), at(t, secure, https)); err != nil || asked != 2 || authorization != "s3cret" {
		t.Errorf("server with TLS: %v, asked %d times, with authorization %q", err, asked, authorization)
	}
}

// TestRedirects: only those on the same host are followed.
func TestRedirects(t *testing.T) {
	other := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("a foreign host was asked") }))
	defer other.Close()
	var followed bool
	mux := http.NewServeMux()
	mux.HandleFunc("/hook", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/next", http.StatusFound) })
	mux.HandleFunc("/next", func(w http.ResponseWriter, r *http.Request) {
		followed = true
		http.Redirect(w, r, strings.Replace(other.URL, "127.0.0.1", "localhost", 1), http.StatusFound)
	})
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	server := httptest.NewServer(mux)
	defer server.Close()
	if err := hooks(t, nil).Run(t.Context(), at(t, server, nil)); err != nil || !followed {
		t.Errorf("%v, followed on the same host: %t", err, followed)
	}
	if err := hooks(t, nil).Run(t.Context(), at(t, server, func(a *corev1.HTTPGetAction) { a.Path = "/loop" })); err == nil {
		t.Error("a loop was a success")
	}
}

// TestHostileServer: what answers without end holds nobody up, and what fails says
// nothing of the request.
func TestHostileServer(t *testing.T) {
	endless := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	}))
	defer endless.Close()
	if err := hooks(t, nil).Run(t.Context(), at(t, endless, nil)); err != nil {
		t.Error(err)
	}
	silent := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer silent.Close()
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("the time is over"))
	for name, hook := range map[string]pod.Hook{
		"silent":      at(t, silent, nil),
		"closed port": {Addr: netip.MustParseAddr("127.0.0.1"), Handler: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/hook?token=s3cret", Port: intstr.FromInt(1)}}},
		"no address":  {Handler: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Path: "/hook?token=s3cret", Port: intstr.FromInt(1)}}},
		"bad host":    {Handler: &corev1.LifecycleHandler{HTTPGet: &corev1.HTTPGetAction{Host: "a b\x7f", Path: "/hook?token=s3cret", Port: intstr.FromInt(1)}}},
	} {
		c := t.Context()
		if name == "silent" {
			c = ctx
		}
		err := hooks(t, nil).Run(c, hook)
		if err == nil || strings.Contains(err.Error(), "s3cret") {
			t.Errorf("%s: %v", name, err)
		}
	}
}
