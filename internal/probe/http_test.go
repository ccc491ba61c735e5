package probe

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// targetAt is an HTTP probe of a server.
func targetAt(t testing.TB, server, path string, change ...func(*corev1.HTTPGetAction)) *Target {
	t.Helper()
	u, err := url.Parse(server)
	if err != nil {
		t.Fatal(err)
	}
	get := &corev1.HTTPGetAction{Path: path, Port: intstr.Parse(u.Port()), Scheme: corev1.URIScheme(strings.ToUpper(u.Scheme))}
	for _, f := range change {
		f(get)
	}
	return &Target{
		Container: "c", Host: u.Hostname(), Spec: &corev1.Container{Name: "app"},
		Probe: asks(func(p *corev1.Probe) {
			if p.HTTPGet = get; path != "/hang" {
				p.TimeoutSeconds = 60 // ten handshakes, on a busy machine
			}
		}),
	}
}

func brief(o Outcome) string {
	if o.Err != nil {
		return "error " + o.Err.Error()
	}
	return [...]string{"failure ", "success ", "warning "}[o.Result] + o.Text
}

// TestHTTP: what an answer means, over HTTP and HTTPS.
func TestHTTP(t *testing.T) {
	stop := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/code/{n}", func(w http.ResponseWriter, r *http.Request) {
		var n int
		_, _ = fmt.Sscan(r.PathValue("n"), &n)
		w.WriteHeader(n)
		fmt.Fprintf(w, "body of %d", n)
	})
	mux.HandleFunc("/to", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Location", r.URL.Query().Get("l"))
		w.WriteHeader(http.StatusFound)
		fmt.Fprint(w, "moved")
	})
	mux.HandleFunc("/hang", func(_ http.ResponseWriter, r *http.Request) { <-stop })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/flood", func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := w.Write(make([]byte, 1<<16)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/header", func(w http.ResponseWriter, _ *http.Request) {
		for i := range 200 {
			w.Header().Set(fmt.Sprintf("X-%d", i), strings.Repeat("x", 1000))
		}
	})
	mux.HandleFunc("/short", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		fmt.Fprint(w, "less")
	})
	mux.HandleFunc("/early", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusEarlyHints) })
	for _, start := range []func(http.Handler) *httptest.Server{httptest.NewServer, httptest.NewTLSServer} {
		s := start(mux)
		s.Config.ErrorLog = nil
		prober := NewHTTP("1.36")
		t.Cleanup(s.Close)
		for path, want := range map[string]string{
			"/code/200":                          "success ",
			"/code/299":                          "success ",
			"/code/304":                          "warning Probe terminated redirects, Response body: ",
			"/code/399":                          "warning Probe terminated redirects, Response body: body of 399",
			"/code/400":                          "failure HTTP probe failed with statuscode: 400",
			"/code/503":                          "failure HTTP probe failed with statuscode: 503",
			"/missing":                           "failure HTTP probe failed with statuscode: 404",
			"/flood":                             "success ",
			"/early":                             "success ",
			"/to?l=/code/201":                    "success ",
			"/to?l=code/500":                     "failure HTTP probe failed with statuscode: 500",
			"/to":                                "warning Probe terminated redirects, Response body: moved",
			"/to?l=http://example.invalid/a":     "warning Probe terminated redirects, Response body: moved",
			"/to?l=//example.invalid/a":          "warning Probe terminated redirects, Response body: moved",
			"/to?l=http://%5B::1":                "failure Get \"" + s.URL + "/to?l=http://%5B::1\": failed to parse Location header",
			"/to?l=gopher://127.0.0.1/code/200":  "failure Get \"gopher://127.0.0.1/code/200\": unsupported protocol scheme",
			"/to?l=http://u:secret@127.0.0.1:1/": "failure Get \"http://u:xxxxx@127.0.0.1:1/\": dial tcp 127.0.0.1:1: connect: connection refused",
			"/loop":                              "failure Get \"" + s.URL + "/loop\": stopped after 10 redirects",
			"/hang":                              "failure Get \"" + s.URL + "/hang\": context deadline exceeded (Client.Timeout exceeded while awaiting headers)",
			"/header":                            "failure Get \"" + s.URL + "/header\": ",
			"/short":                             "error unexpected EOF",
		} {
			got := brief(prober.probe(t.Context(), targetAt(t, s.URL, path)))
			if !strings.HasPrefix(got, want) || strings.HasPrefix(want, "success") && got != want {
				t.Errorf("%s%s: got %q, want %q", s.URL, path, got, want)
			}
			if strings.Contains(got, "secret") {
				t.Errorf("%s tells a password: %q", path, got)
			}
		}
		if got := brief(prober.probe(t.Context(), targetAt(t, s.URL, "/", func(g *corev1.HTTPGetAction) { g.Port = intstr.FromInt32(1) }))); !strings.Contains(got, "connect: connection refused") {
			t.Errorf("nobody listens: %q", got)
		}
	}
	close(stop)
}

// TestHTTPRequest: the request is kubelet's, byte for byte, and made once.
func TestHTTPRequest(t *testing.T) {
	header := func(list ...string) func(*corev1.HTTPGetAction) {
		return func(g *corev1.HTTPGetAction) {
			for i := 0; i < len(list); i += 2 {
				g.HTTPHeaders = append(g.HTTPHeaders, corev1.HTTPHeader{Name: list[i], Value: list[i+1]})
			}
		}
	}
	for _, c := range []struct {
		path   string
		change func(*corev1.HTTPGetAction)
		want   string
	}{
		{"/a?b=c", header(), "GET /a?b=c HTTP/1.1\nHost: 10.0.0.7:80\nUser-Agent: kube-probe/1.36\nConnection: close\nAccept: */*\n\n"},
		{"a b", header("Host", "example.org", "X-A", "1", "x-a", "2"), "GET /a%20b HTTP/1.1\nHost: example.org\nUser-Agent: kube-probe/1.36\nConnection: close\nAccept: */*\nX-A: 1\nX-A: 2\n\n"},
		{"/", header("User-Agent", "", "Accept", ""), "GET / HTTP/1.1\nHost: 10.0.0.7:80\nConnection: close\n\n"},
		{"//evil/x", header("User-Agent", "mine", "Accept", "text/html"), "GET /x HTTP/1.1\nHost: 10.0.0.7:80\nUser-Agent: mine\nConnection: close\nAccept: text/html\n\n"},
		{"/", header("X", "1\r\nInjected: 2"), "GET / HTTP/1.1\nHost: 10.0.0.7:80\nUser-Agent: kube-probe/1.36\nConnection: close\nAccept: */*\nX: 1  Injected: 2\n\n"},
	} {
		r, err := NewHTTP("1.36").request(targetAt(t, "http://10.0.0.7:80", c.path, c.change))
		if err != nil {
			t.Errorf("%s: %v", c.path, err)
			continue
		}
		if got := strings.ReplaceAll(string(r.bytes), "\r\n", "\n"); got != c.want || strings.Contains(got, "\r") {
			t.Errorf("%s:\n got %q\nwant %q", c.path, got, c.want)
		}
	}
}

// TestPort: a port by number, by name, and by a name that spells a number.
func TestPort(t *testing.T) {
	c := &corev1.Container{Name: "app", Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080, HostPort: 80}}}
	for which, want := range map[string]string{
		"80": "80", "web": "8080", "nope": "", "0": "", "65536": "", "-1": "",
	} {
		got, err := port(intstr.Parse(which), c)
		if got != want || (err == nil) != (want != "") {
			t.Errorf("port %q is %q, %v, want %q", which, got, err, want)
		}
	}
	if got, err := port(intstr.FromString("81"), c); got != "81" {
		t.Errorf("port by the name \"81\" is %q, %v", got, err)
	}
}

// TestTCP: a port that takes a connection and one that does not.
func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	target := func() *Target {
		p := asks(func(p *corev1.Probe) {
			p.TCPSocket = &corev1.TCPSocketAction{Port: intstr.FromInt(l.Addr().(*net.TCPAddr).Port)}
		})
		return &Target{Spec: &corev1.Container{Name: "app"}, Probe: p, Host: "127.0.0.1"}
	}
	if got := brief(tcpProbe(t.Context(), target())); got != "success " {
		t.Errorf("open: %q", got)
	}
	_ = l.Close()
	if got := brief(tcpProbe(t.Context(), target())); !strings.Contains(got, "connect: connection refused") {
		t.Errorf("closed: %q", got)
	}
	without := target()
	without.Host = ""
	if got := brief(tcpProbe(t.Context(), without)); !strings.HasPrefix(got, "error ") {
		t.Errorf("without an address: %q", got)
	}
}

// asked is an Exec by a function.
type asked func(ctx context.Context, args []string, out io.Writer) (int32, error)

func (f asked) Exec(ctx context.Context, _ string, args []string, out io.Writer) (int32, error) {
	return f(ctx, args, out)
}

// killed is the error of a command that ran until its time was over.
type killed struct{ error }

func (killed) Killed() bool { return true }

// TestExec: exit codes, a bounded output, and what a timeout means.
func TestExec(t *testing.T) {
	target := &Target{Spec: &corev1.Container{Name: "app", Env: []corev1.EnvVar{{Name: "A", Value: "1"}}}, Probe: asks(func(p *corev1.Probe) {
		p.Exec = &corev1.ExecAction{Command: []string{"say", "$(A)", "$(B)"}}
	})}
	wait := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	for name, c := range map[string]struct {
		exec asked
		want string
	}{
		"arguments": {func(_ context.Context, args []string, out io.Writer) (int32, error) {
			fmt.Fprint(out, strings.Join(args, " "))
			return 0, nil
		}, "success say 1 $(B)"},
		"another code": {func(_ context.Context, _ []string, out io.Writer) (int32, error) {
			fmt.Fprint(out, "no")
			return 3, nil
		}, "failure no"},
		"too long": {func(ctx context.Context, _ []string, out io.Writer) (int32, error) { return 0, killed{wait(ctx)} },
			`failure command timed out: "say 1 $(B)" timed out after 1s`},
		"never run": {func(ctx context.Context, _ []string, out io.Writer) (int32, error) { return 0, wait(ctx) }, "error context deadline exceeded"},
		"much": {func(_ context.Context, _ []string, out io.Writer) (int32, error) {
			for range 100 {
				fmt.Fprint(out, strings.Repeat("x", 1000))
			}
			return 1, nil
		}, "failure " + strings.Repeat("x", maxText)},
	} {
		if got := brief(execProbe(t.Context(), c.exec, target)); got != c.want {
			t.Errorf("%s: got %.100q, want %.100q", name, got, c.want)
		}
	}
}

// TestPrintable: nothing of what a container says acts on a terminal or ends a
// line, and a message is no longer than an event's.
func TestPrintable(t *testing.T) {
	for text, want := range map[string]string{
		"":                                 "",
		"plain\r\n":                        "plain",
		"two\nlines":                       `two\nlines`,
		"\x1b[31mred":                      `\x1b[31mred`,
		"\xff\xfe":                         `\xff\xfe`,
		"häßlich \u202e":                   `häßlich \u202e`,
		strings.Repeat("é", 1000):          strings.Repeat("é", 512),
		strings.Repeat("\x00", 1000):       strings.Repeat(`\x00`, 256),
		strings.Repeat("a", 1023) + "\x00": strings.Repeat("a", 1023),
	} {
		if got := Printable(text); got != want {
			t.Errorf("Printable(%.40q) = %.60q, want %.60q", text, got, want)
		}
	}
}

// TestBenchmarkServer keeps the benchmark's server honest: it answers what the
// prober takes for a success.
func TestBenchmarkServer(t *testing.T) {
	if got := brief(NewHTTP("1.36").probe(t.Context(), targetAt(t, answering(t), "/healthz"))); got != "success " {
		t.Error(got)
	}
}
