package object

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"nodeagent/internal/object/objecttest"
	"nodeagent/internal/pod"
)

func service(namespace, name, ip string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name},
		Spec: corev1.ServiceSpec{ClusterIP: ip, Ports: []corev1.ServicePort{{Port: 80}}}}
}

func runServices(t *testing.T, api ServicesAPI) *Services {
	s, err := NewServices(api, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { _ = s.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return s
}

// hosts are the services that a pod of the namespace is told of.
func hosts(t *testing.T, s *Services, namespace string, links bool) map[string]string {
	t.Helper()
	all, err := s.Variables(namespace, links)
	if err != nil {
		t.Fatal(err)
	}
	maps.DeleteFunc(all, func(k, _ string) bool { return len(k) < 13 || k[len(k)-13:] != "_SERVICE_HOST" })
	return all
}

// TestServices: those of the pod's namespace and the API server's, kept right
// over changes, broken watches and compaction, with servers of both ages.
func TestServices(t *testing.T) {
	for _, old := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			server := &objecttest.Server{Old: old}
			server.Put(service("default", "kubernetes", "10.0.0.1"))
			server.Put(service("default", "other", "10.0.0.2"))
			server.Put(service("ns", "db", "10.0.0.3"))
			server.Put(service("ns", "headless", corev1.ClusterIPNone))
			server.Put(service("mine", "kubernetes", "10.0.0.4"))
			s := runServices(t, server)
			s.Await(t.Context())
			want := func(what, namespace string, links bool, want map[string]string) {
				t.Helper()
				synctest.Wait()
				if got := hosts(t, s, namespace, links); !maps.Equal(got, want) {
					t.Errorf("old=%v: %s: %v, want %v", old, what, got, want)
				}
			}
			api := map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1"}
			want("with links", "ns", true, map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1", "DB_SERVICE_HOST": "10.0.0.3"})
			want("without", "ns", false, api)
			want("a namespace without any", "empty", true, api)
			want("a namespace with a kubernetes of its own", "mine", true, map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.4"})

			server.Put(service("ns", "db", "10.0.0.5"))
			server.Put(service("ns", "new", "10.0.0.6"))
			server.Delete(pod.ObjectRef{Kind: "Service", Namespace: "mine", Name: "kubernetes"})
			want("changes", "ns", true, map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1", "DB_SERVICE_HOST": "10.0.0.5", "NEW_SERVICE_HOST": "10.0.0.6"})
			want("a deletion", "mine", true, api)

			time.Sleep(time.Minute)
			server.Mark()
			synctest.Wait()
			server.Break(nil)
			server.Put(service("ns", "db", corev1.ClusterIPNone))
			time.Sleep(time.Minute)
			want("over a broken watch", "ns", true, map[string]string{"KUBERNETES_SERVICE_HOST": "10.0.0.1", "NEW_SERVICE_HOST": "10.0.0.6"})
			server.Break(apierrors.NewResourceExpired("too old resource version"))
			server.Delete(pod.ObjectRef{Kind: "Service", Namespace: "ns", Name: "new"})
			server.Compact()
			time.Sleep(time.Minute)
			want("after compaction", "ns", true, api)
			time.Sleep(24 * time.Hour)
			want("after a day", "ns", true, api)
		})
	}
}

// TestServicesUnread: until they were read once there is an error, and not less
// than there should be; what was read stays true.
func TestServicesUnread(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		away := make(chan struct{})
		server := &objecttest.Server{Fault: func(context.Context, string, pod.ObjectRef) error {
			select {
			case <-away:
				return nil
			default:
				return errors.New("connection refused")
			}
		}}
		server.Put(service("default", "kubernetes", "10.0.0.1"))
		s := runServices(t, server)
		time.Sleep(time.Hour)
		if _, err := s.Variables("ns", true); !errors.Is(err, errServicesUnread) {
			t.Errorf("unread services are told as %v", err)
		}
		if n := server.Calls("watch"); n > 3600/15 {
			t.Errorf("%d requests in an hour", n)
		}
		close(away)
		s.Await(t.Context())
		if got := hosts(t, s, "ns", true); len(got) != 1 {
			t.Errorf("they are %v", got)
		}
	})
}

// TestServicesOverTheWire: by the real client.
func TestServicesOverTheWire(t *testing.T) {
	for _, old := range []bool{false, true} {
		server := &objecttest.Server{Old: old}
		for i := range 3 {
			server.Put(service("ns", fmt.Sprint("s", i), "10.0.0.1"))
		}
		h := httptest.NewServer(server.Handler(nil))
		t.Cleanup(h.Close)
		transport := &http.Transport{}
		client, err := NewClient(&rest.Config{Host: h.URL}, &http.Client{Transport: transport})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(transport.CloseIdleConnections)
		s := runServices(t, client)
		s.Await(t.Context())
		if got := hosts(t, s, "ns", true); len(got) != 3 {
			t.Errorf("they are %v", got)
		}
	}
}
