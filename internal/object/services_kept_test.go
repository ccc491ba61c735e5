package object

import (
	"context"
	"log/slog"
	"maps"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"nodeagent/internal/durable"
	"nodeagent/internal/object/objecttest"
)

// keeper is Services that are kept in a directory.
func keeper(t *testing.T, path string) (s *Services, stop func()) {
	t.Helper()
	dir, err := durable.New(durable.Config{Path: path})
	if err != nil {
		t.Fatal(err)
	}
	if s, err = NewServices(&objecttest.Server{}, slog.New(slog.DiscardHandler)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Keep(ctx, dir) }()
	return s, func() { cancel(); <-done }
}

// TestServicesKept: a daemon that starts without an API server tells of the services that
// its predecessor knew, but not before it was clear that there is none; what the server
// tells then takes their place, and what cannot be read costs nothing but that.
func TestServicesKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "services")
		first, stop := keeper(t, path)
		first.Begin()
		first.Tell(service("ns", "a", "10.0.0.1"), false)
		first.Complete()
		time.Sleep(keptWait + time.Second)
		first.Tell(service("ns", "b", "10.0.0.2"), false)
		time.Sleep(keptRest + 2*keptWait)
		synctest.Wait()
		stop()

		second, stop := keeper(t, path)
		synctest.Wait()
		if _, err := second.Variables("ns", true); err == nil {
			t.Error("what was kept counts before the API server had the time to tell")
		}
		time.Sleep(keptAfter + time.Second)
		synctest.Wait()
		if got, want := hosts(t, second, "ns", true), map[string]string{"A_SERVICE_HOST": "10.0.0.1", "B_SERVICE_HOST": "10.0.0.2"}; !maps.Equal(got, want) {
			t.Errorf("without an API server the services are %v, want %v", got, want)
		}
		second.Begin()
		second.Tell(service("ns", "c", "10.0.0.3"), false)
		second.Complete()
		if got, want := hosts(t, second, "ns", true), map[string]string{"C_SERVICE_HOST": "10.0.0.3"}; !maps.Equal(got, want) {
			t.Errorf("when it is back they are %v, want %v", got, want)
		}
		stop()

		third, stop := keeper(t, path+"-none")
		time.Sleep(time.Hour)
		synctest.Wait()
		if _, err := third.Variables("ns", true); err == nil {
			t.Error("services that nobody ever knew are known")
		}
		stop()
	})
}

// FuzzServices: whatever is in the file of the services, it is taken or refused.
func FuzzServices(f *testing.F) {
	f.Add([]byte(`[{"Namespace":"ns","Name":"a","ClusterIP":"10.0.0.1","Ports":[{"Name":"","Protocol":"TCP","Port":80}]}]`))
	f.Add([]byte(`[{}]`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		all, err := decodeServices(payload)
		if err != nil {
			return
		}
		for _, of := range all {
			for _, one := range of {
				one.Variables(map[string]string{})
			}
		}
	})
}
