package cert

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/internal/cert/certtest"
)

// serve runs a Serving until the test ends, or stop is called.
func serve(t *testing.T, cfg ServingConfig) (s *Serving, stop func()) {
	t.Helper()
	cfg.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	s, err := NewServing(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { _ = s.Run(ctx); close(done) }()
	return s, func() { cancel(); <-done }
}

func serial(t *testing.T, s *Serving) string {
	t.Helper()
	c, err := s.GetCertificate(nil)
	if err != nil {
		t.Fatal(err)
	}
	return c.Leaf.SerialNumber.String()
}

func TestSelfSigned(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		cfg := ServingConfig{Dir: dir, NodeName: "n1", Names: Names{DNS: []string{"n1", "10.0.0.1"}}, blind: true}
		s, stop := serve(t, cfg)
		synctest.Wait()
		<-s.Ready()
		first := serial(t, s)
		if !hasIP(s.pair.Load().leaf().IPAddresses, net.ParseIP("10.0.0.1")) {
			t.Error("a name that is an address is not one in the certificate")
		}
		if st, err := os.Stat(filepath.Join(dir, "kubelet.key")); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("kubelet.key: %v, %v", st, err)
		}
		stop()
		s, stop = serve(t, cfg)
		synctest.Wait()
		if serial(t, s) != first {
			t.Error("a restart has made another")
		}
		s.SetNames(Names{DNS: []string{"n1"}, IPs: []net.IP{net.ParseIP("10.0.0.1"), net.ParseIP("fd00::1")}})
		synctest.Wait()
		second := serial(t, s)
		if second == first {
			t.Error("new addresses, old certificate")
		}
		s.SetNames(Names{DNS: []string{"n1"}, IPs: []net.IP{net.ParseIP("fd00::1")}})
		synctest.Wait()
		if serial(t, s) != second {
			t.Error("a certificate that is good for more was thrown away")
		}
		time.Sleep(selfLife * 9 / 10)
		synctest.Wait()
		if serial(t, s) == second {
			t.Error("not renewed in time")
		}
		stop()
		// Killed between key and certificate.
		if err := os.WriteFile(filepath.Join(dir, "kubelet.key"), []byte("-----BEGIN"), 0o600); err != nil {
			t.Fatal(err)
		}
		s, stop = serve(t, cfg)
		synctest.Wait()
		serial(t, s)
		stop()
	})
}

func TestServingByRequest(t *testing.T) {
	within(t, func(n *node) {
		n.start()
		n.api.Set(certtest.Hold)
		n.api.Life = 30 * 24 * time.Hour
		s, stop := serve(t, ServingConfig{ByRequest: true, API: n.c.Config(), APIReady: n.c.Ready(), Dir: n.path("pki"), NodeName: "n1", blind: true})
		defer stop()
		synctest.Wait()
		if len(n.api.Requests()) != 1 {
			t.Error("asked before the addresses are known")
		}
		s.SetNames(Names{DNS: []string{"n1"}, IPs: []net.IP{net.ParseIP("10.0.0.1")}})
		synctest.Wait()
		if _, err := s.GetCertificate(nil); err == nil || s.State().Request == "" {
			t.Errorf("no certificate, and it is not said why: %v, %+v", err, s.State())
		}
		n.api.Set(certtest.Sign)
		synctest.Wait()
		first := serial(t, s)
		s.SetNames(Names{DNS: []string{"n1"}, IPs: []net.IP{net.ParseIP("10.0.0.2")}})
		synctest.Wait()
		if got := s.pair.Load(); serial(t, s) == first || !got.covers(Names{IPs: []net.IP{net.ParseIP("10.0.0.2")}}) {
			t.Errorf("no certificate for the new address: %+v", s.State())
		}
		if _, err := os.Readlink(n.path("pki/kubelet-server-current.pem")); err != nil {
			t.Error(err)
		}
	})
}

// TestFilesReplaced: the files of somebody else are followed as they change, by
// real events of the kernel; what does not fit together changes nothing.
func TestFilesReplaced(t *testing.T) {
	dir := t.TempDir()
	crt, key := filepath.Join(dir, "tls", "tls.crt"), filepath.Join(dir, "tls", "tls.key")
	s, stop := serve(t, ServingConfig{CertFile: crt, KeyFile: key})
	defer stop()
	for i, put := range []func(path string, b []byte) error{
		func(path string, b []byte) error { return os.WriteFile(path, b, 0o600) },
		func(path string, b []byte) error { return disk{}.replace(path, b, 0o600) },
	} {
		p, err := selfSign("n1", Names{DNS: []string{"n1"}}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			if err := os.Mkdir(filepath.Dir(crt), 0o755); err != nil {
				t.Fatal(err)
			}
		}
		if err := put(crt, p.cert); err != nil {
			t.Fatal(err)
		}
		if now := s.pair.Load(); now != nil && now.leaf().SerialNumber.Cmp(p.leaf().SerialNumber) == 0 {
			t.Error("a certificate without its key is shown")
		}
		if err := put(key, p.key); err != nil {
			t.Fatal(err)
		}
		limit := time.After(time.Minute)
		for now := s.pair.Load(); now == nil || now.leaf().SerialNumber.Cmp(p.leaf().SerialNumber) != 0; now = s.pair.Load() {
			select {
			case <-limit:
				t.Fatalf("not followed: %+v", s.State())
			case <-time.After(time.Millisecond):
			}
		}
	}
}
