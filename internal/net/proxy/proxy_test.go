package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"

	"nodeagent/internal/net"
	. "nodeagent/internal/net/nettest"
)

const tcp, udp = corev1.ProtocolTCP, corev1.ProtocolUDP

// web makes the n-th service, and its slice with endpoints.
func web(n, ends int) []metav1.Object {
	name := fmt.Sprintf("web-%04d", n)
	s := Service(name, []string{fmt.Sprintf("10.96.%d.%d", n/250, n%250+1)}, Port("http", tcp, 80, 0))
	s.UID = types.UID("uid-" + name)
	parts := []func(*discoveryv1.EndpointSlice){To("http", tcp, 8080)}
	for i := range ends {
		parts = append(parts, At(fmt.Sprintf("10.0.%d.%d", n%250, i+1), "elsewhere"))
	}
	return []metav1.Object{s, Slice(name+"-x", name, parts...)}
}

func webs(n, ends int) []metav1.Object {
	var out []metav1.Object
	for i := range n {
		out = append(out, web(i, ends)...)
	}
	return out
}

func aNode(change ...func(*corev1.Node)) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "here"}, Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "192.168.0.1"}}}}
	for _, f := range change {
		f(n)
	}
	return n
}

// TestFollows: one look at the start, then what changes, at once; a daemon that
// starts again changes nothing.
func TestFollows(t *testing.T) {
	play(t, func(s *scene) {
		s.put(append(webs(3, 2), aNode())...)
		s.begin()
		s.want("the start", s.told(), []string{"sync 3"})
		if s.took != 1 {
			t.Errorf("another proxy's place was taken %d times", s.took)
		}
		s.after(time.Hour) // watches end and go on; nothing is written meanwhile
		s.want("an hour without a change", s.told(), nil)
		begun := time.Now()
		s.put(web(1, 3)[1])
		synctest.Wait()
		s.kernel.set(func() {
			if len(s.at) != 1 || !s.at[0].Equal(begun) {
				t.Errorf("a change that came alone at %s was written at %s", begun, s.at)
			}
		})
		s.want("a change", s.told(), []string{"apply 1"})
		s.after(time.Second)
		s.put(web(1, 3)[1]) // written again, as it was
		s.settle()
		s.want("the same again", s.told(), nil)
		s.remove(web(2, 0)[0])
		s.settle()
		s.want("a service that goes", s.told(), []string{"apply 1"})
		s.begin()
		s.want("a new daemon", s.told(), []string{"sync 0"})
		s.want("what there is", s.names(), []string{"web-0000", "web-0001"})
	})
}

// TestTakesOver: what another proxy left goes in the end, also where nothing else
// changes, and is not looked for again.
func TestTakesOver(t *testing.T) {
	play(t, func(s *scene) {
		s.stays = 3
		s.put(append(webs(3, 2), aNode())...)
		s.begin()
		for i, wait := range []time.Duration{0, 30 * time.Second, time.Minute, 2 * time.Minute, 24 * time.Hour} {
			s.after(wait)
			s.kernel.set(func() {
				if want := min(i+1, 4); s.took != want {
					t.Errorf("another proxy's place was tried to take %d times, want %d", s.took, want)
				}
			})
		}
		s.want("what is written meanwhile", s.told(), []string{"sync 3"})
	})
}

// TestNothingBeforeAll: as long as anything is not known, what an earlier daemon
// wrote stays.
func TestNothingBeforeAll(t *testing.T) {
	play(t, func(s *scene) {
		s.put(append(webs(2, 1), aNode())...)
		missing := "endpointslices"
		s.fault = func(w http.ResponseWriter, r *http.Request) bool {
			if !strings.HasSuffix(r.URL.Path, missing) {
				return false
			}
			refuse(w, http.StatusForbidden, metav1.StatusReasonForbidden)
			return true
		}
		s.begin()
		s.after(10 * time.Minute)
		s.want("before all is known", s.told(), nil)
		if code, _ := get(s.proxy.Health(), "/healthz"); code != http.StatusServiceUnavailable {
			t.Errorf("before the first rules healthz says %d", code)
		}
		if code, _ := get(s.proxy.Health(), "/livez"); code != http.StatusOK {
			t.Errorf("before the first rules livez says %d", code)
		}
		if v := s.proxy.Show(); len(v.Problems) != 1 || !strings.Contains(v.Problems[0], "system:node-proxier") {
			t.Errorf("it shows %+v", v)
		}
		s.asked()
		s.after(time.Hour)
		if n := len(s.asked()); n > 500 {
			t.Errorf("a server that refuses is asked %d times in an hour", n)
		}
		s.server(func() { missing = "nothing" })
		s.after(time.Minute)
		s.want("when all is known", s.told(), []string{"sync 2"})
		if v := s.proxy.Show(); len(v.Problems) != 0 {
			t.Errorf("it shows %+v", v)
		}
	})
}

func (s *scene) server(change func()) { s.apiServer.set(change) }

// TestOneBatch: a thousand changes at once are one batch, and the first of them.
func TestOneBatch(t *testing.T) {
	play(t, func(s *scene) {
		s.put(webs(1000, 1)...)
		s.begin()
		s.told()
		var changed []metav1.Object
		for i := range 1000 {
			changed = append(changed, web(i, 2)[1])
		}
		s.kernel.set(func() { s.slow = 5 * time.Millisecond })
		s.after(time.Minute)
		s.put(changed...)
		s.after(time.Second)
		calls := s.told()
		if len(calls) > 3 {
			t.Errorf("a thousand changes were written by %v", calls)
		}
		sum := 0
		for _, c := range calls {
			var n int
			fmt.Sscanf(c, "apply %d", &n)
			sum += n
		}
		if sum != 1000 {
			t.Errorf("%v are not a thousand", calls)
		}
	})
}

// TestStream: changes that go on coming are gathered, and one that comes alone before or
// after them is written at once.
func TestStream(t *testing.T) {
	play(t, func(s *scene) {
		s.put(webs(300, 1)...)
		s.begin()
		s.told()
		s.after(time.Minute)
		s.put(web(0, 2)[1])
		synctest.Wait()
		if calls := s.told(); len(calls) != 1 {
			t.Errorf("a change by itself was written by %v", calls)
		}
		for i := range 300 {
			s.put(web(i, 3)[1])
			time.Sleep(3 * time.Millisecond)
			synctest.Wait()
		}
		s.after(0)
		if calls := s.told(); len(calls) < 900/50 || len(calls) > 900/25 {
			t.Errorf("a change each 3 ms, of which none waits for more than 50 ms, were written in %d batches: %v", len(calls), calls)
		}
		s.after(time.Second)
		s.put(web(0, 4)[1])
		synctest.Wait()
		if calls := s.told(); len(calls) != 1 {
			t.Errorf("a change by itself was written by %v", calls)
		}
	})
}

// TestServerFaults: whatever the API server does, rules stay, and become right when
// it is well again.
func TestServerFaults(t *testing.T) {
	for name, c := range map[string]struct {
		fault, cure func(*scene)
		wait        time.Duration
	}{
		"410": {func(s *scene) { s.cut(); s.compact() }, func(*scene) {}, time.Minute},
		"410 after an outage": {func(s *scene) {
			s.server(func() {
				s.fault = func(w http.ResponseWriter, _ *http.Request) bool {
					http.Error(w, "ill", http.StatusInternalServerError)
					return true
				}
			})
			s.cut()
		}, func(s *scene) { s.compact(); s.server(func() { s.fault = nil }) }, 2 * time.Minute},
		"connections break": {func(s *scene) {
			for range 50 {
				s.cut()
				s.settle()
			}
		}, func(*scene) {}, time.Minute},
		"500": {func(s *scene) {
			s.server(func() {
				s.fault = func(w http.ResponseWriter, _ *http.Request) bool {
					http.Error(w, "ill", http.StatusInternalServerError)
					return true
				}
			})
			s.cut()
		}, func(s *scene) { s.server(func() { s.fault = nil }) }, 2 * time.Minute},
		"no answer": {func(s *scene) {
			s.server(func() {
				s.fault = func(_ http.ResponseWriter, r *http.Request) bool { <-r.Context().Done(); return true }
			})
			s.cut()
		}, func(s *scene) { s.server(func() { s.fault = nil }) }, 2 * time.Minute},
		"a version that it does not take": {func(s *scene) {
			var anew sync.Map // who asked for everything
			s.server(func() {
				s.fault = func(w http.ResponseWriter, r *http.Request) bool {
					if r.URL.Query().Get("resourceVersion") == "" {
						anew.Store(r.URL.Path, true)
					}
					if _, ok := anew.Load(r.URL.Path); ok {
						return false
					}
					http.Error(w, "Invalid value: resourceVersion", http.StatusBadRequest)
					return true
				}
			})
			s.cut()
		}, func(*scene) {}, time.Minute},
		"nonsense": {func(s *scene) {
			s.server(func() {
				s.fault = func(w http.ResponseWriter, _ *http.Request) bool {
					w.Header().Set("Content-Type", "application/json")
					fmt.Fprint(w, `{"type":"ADDED","object":{"kind":"Secret","apiVersion":"v1"}}`, "\n{")
					return true
				}
			})
			s.cut()
		}, func(s *scene) { s.server(func() { s.fault = nil }) }, 2 * time.Minute},
		"a watch that is silent": {func(s *scene) { s.server(func() { s.mute = true }) }, func(s *scene) { s.server(func() { s.mute = false }) }, 3 * time.Minute},
		"a server that is set back": {func(s *scene) {
			s.cut()
			s.server(func() { s.version, s.history = 50, nil })
		}, func(*scene) {}, 10 * time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *scene) {
				s.put(append(webs(3, 2), aNode())...)
				s.begin()
				s.after(time.Minute)
				s.told()
				c.fault(s)
				s.after(5 * time.Minute)
				if got := s.names(); len(got) != 3 {
					t.Errorf("while it lasts there are rules for %v", got)
				}
				s.remove(web(0, 0)...) // by a server that may not tell so
				s.put(web(7, 1)...)
				c.cure(s)
				s.after(c.wait)
				s.want("afterwards", s.names(), []string{"web-0001", "web-0002", "web-0007"})
				if v := s.proxy.Show(); len(v.Problems) != 0 {
					t.Errorf("it shows %+v", v)
				}
				s.put(web(0, 0)[0]) // of its endpoints nothing was left, either
				s.settle()
				s.kernel.set(func() {
					for _, e := range s.holds {
						if e.Service.Name == "web-0000" && len(e.Cluster) != 0 {
							t.Errorf("a service that came back has endpoints of before: %v", e.Cluster)
						}
					}
				})
			})
		})
	}
}

// TestBackInTime: versions only grow in a watch; one that does not is of a server
// that was set back, and everything is read anew.
func TestBackInTime(t *testing.T) {
	out := make(chan news, 3)
	f := &follower{kind: services, server: server{is: is[*corev1.Service]}, out: out, version: "100"}
	at := func(version string) watch.Event {
		o := web(0, 0)[0].(*corev1.Service)
		o.ResourceVersion = version
		return watch.Event{Type: watch.Modified, Object: o}
	}
	if _, err := f.take(t.Context(), at("101"), nil); err != nil || f.version != "101" || len(out) != 1 {
		t.Errorf("a later version is %v, then %s", err, f.version)
	}
	if _, err := f.take(t.Context(), at("99"), nil); !errors.Is(err, errBack) || f.version != "" || len(out) != 1 {
		t.Errorf("an earlier version is %v, then %q", err, f.version)
	}
	if _, err := f.take(t.Context(), watch.Event{Type: watch.Added, Object: aNode()}, nil); err == nil || len(out) != 1 {
		t.Errorf("a Node among Services is %v", err)
	}
}

// TestOldServer: a server that cannot stream its list is asked for it in parts.
func TestOldServer(t *testing.T) {
	for name, how := range map[string]func(*scene){
		"refuses": func(s *scene) { s.noStream = true }, "ignores": func(s *scene) { s.ignorant = true },
	} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *scene) {
				how(s)
				s.put(webs(10, 1)...)
				s.begin()
				s.after(30 * time.Second)
				s.want("the start", s.told(), []string{"sync 10"})
				s.put(web(10, 1)...)
				s.settle()
				if got := s.names(); len(got) != 11 {
					t.Errorf("a new service is not there: %v", got)
				}
			})
		})
	}
}

// TestHeal: what somebody else changes is mended at once, and whoever does so all
// the time does not get all of the CPU.
func TestHeal(t *testing.T) {
	play(t, func(s *scene) {
		s.put(webs(5, 1)...)
		s.begin()
		s.after(time.Minute)
		s.told()
		s.flush()
		synctest.Wait()
		s.want("a flush", s.told(), []string{"sync 5"})
		s.after(time.Minute)
		s.kernel.set(func() { s.slow = 100 * time.Millisecond })
		for range 1000 {
			s.flush()
			time.Sleep(10 * time.Millisecond)
		}
		s.after(time.Second)
		if n := len(s.told()); n < 10 || n > 25 {
			t.Errorf("ten seconds of flushes were mended %d times, want one in half a second", n)
		}
		if got := s.names(); len(got) != 5 {
			t.Errorf("in the end there is %v", got)
		}
	})
}

// TestKernelFaults: what fails is tried again, later and later, with all that
// changed meanwhile.
func TestKernelFaults(t *testing.T) {
	play(t, func(s *scene) {
		s.put(append(webs(2, 1), aNode())...)
		s.kernel.err = errors.New("no buffer space")
		s.begin()
		s.after(time.Hour)
		if n := len(s.told()); n < 60 || n > 200 {
			t.Errorf("a kernel that does not answer is asked %d times in an hour", n)
		}
		s.put(web(2, 1)...)
		if v := s.proxy.Show(); v.Waiting.IsZero() || !strings.Contains(fmt.Sprint(v.Problems), "no buffer space") {
			t.Errorf("it shows %+v", v)
		}
		if code, _ := get(s.proxy.Health(), "/livez"); code != http.StatusServiceUnavailable {
			t.Errorf("after an hour without rules livez says %d", code)
		}
		s.kernel.set(func() { s.kernel.err = nil })
		s.after(time.Minute)
		s.want("afterwards", s.told(), []string{"sync 3"})
		if code, _ := get(s.proxy.Health(), "/healthz"); code != http.StatusOK {
			t.Errorf("afterwards healthz says %d", code)
		}
	})
}

func get(h http.Handler, path string) (int, string) {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	return w.Code, w.Body.String()
}

// TestNarrow: of many services the one that the kernel does not take is left out,
// and it alone; when it changes it is tried again.
func TestNarrow(t *testing.T) {
	for name, refused := range map[string][]int{"one": {13}, "the first": {0}, "some": {3, 4, 30}, "many": {1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31, 33, 35, 37}} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *scene) {
				bad := func(i int) bool { return slices.Contains(refused, i) }
				var want []string
				for i := range 40 {
					if n := web(i, 0)[0].GetName(); bad(i) {
						s.refuses[n] = true
					} else {
						want = append(want, n)
					}
				}
				s.put(webs(40, 1)...)
				s.begin() // all at once
				s.after(time.Minute)
				s.want("at the start", s.names(), want)
				said := s.events.all()
				if len(said) != len(refused) || !strings.Contains(said[0], "ServiceRulesRefused: no rule of this service is in force until it changes: no room for") {
					t.Errorf("the events are %q", said)
				}
				s.told()
				s.after(time.Hour)
				s.want("an hour later", s.told(), nil)
				s.flush()
				s.settle()
				s.want("after a flush", s.told(), []string{fmt.Sprint("sync ", len(want))})
				s.put(web(refused[0], 2)[1]) // it changes, and is as bad
				s.after(time.Minute)
				s.want("tried again", s.names(), want)
				s.kernel.set(func() { s.refuses = map[string]bool{} })
				for _, i := range refused {
					s.put(web(i, 3)[1])
				}
				s.after(time.Minute)
				if got := s.names(); len(got) != 40 {
					t.Errorf("in the end there is %v", got)
				}
			})
		})
	}
}

// TestNarrowAtOnce: at a start at which the kernel refuses the whole, all services but
// those at fault are served without a wait: half of them by the second part that is
// tried, three quarters by the fourth, wherever those are.
func TestNarrowAtOnce(t *testing.T) {
	const services = 64
	for _, bad := range [][]int{{0}, {13}, {63}, {5, 6, 7, 40}} {
		play(t, func(s *scene) {
			for _, i := range bad {
				s.refuses[web(i, 0)[0].GetName()] = true
			}
			s.put(webs(services, 1)...)
			begun := time.Now()
			s.begin()
			if got := s.names(); len(got) != services-len(bad) {
				t.Errorf("bad %v: %d services are served", bad, len(got))
			}
			for i, at := range s.kernel.at {
				if at.Sub(begun) > full {
					t.Errorf("bad %v: step %d is %s late", bad, i, at.Sub(begun))
				}
			}
			served := func(step int) int { return len(s.looks[step+1]) } // after the whole, which is tried twice
			if len(bad) == 1 && (served(1+2-1) < services/2 || served(1+4-1) < services*3/4) {
				t.Errorf("bad %v: so many are served after each step: %v", bad, counts(s.looks))
			}
			if len(s.looks) > 8*(2+len(bad)*7) {
				t.Errorf("bad %v: %d steps", bad, len(s.looks))
			}
		})
	}
}

func counts(looks []map[string]bool) (out []int) {
	for _, x := range looks {
		out = append(out, len(x))
	}
	return out
}

// TestNarrowKeeps: where there are more at fault than are found in one go, at the start
// and later, nobody who is innocent loses the rules that it has.
func TestNarrowKeeps(t *testing.T) {
	for name, before := range map[string]bool{"at the start": false, "later": true} {
		t.Run(name, func(t *testing.T) {
			play(t, func(s *scene) {
				refuse := func() {
					for i := range 30 {
						s.refuses[web(7*i, 0)[0].GetName()] = true
					}
				}
				if !before {
					refuse()
				}
				s.put(webs(210, 1)...)
				s.begin()
				s.kernel.set(func() {
					if refuse(); before {
						s.looks, s.only = nil, 2
					}
				})
				var all []metav1.Object
				for i := range 210 {
					all = append(all, web(i, 2)[1])
				}
				s.put(all...)
				s.after(10 * time.Minute)
				if n := len(s.names()); n != 180 {
					t.Errorf("%d services are served", n)
				}
				if n := len(s.events.all()); n < 30 {
					t.Errorf("%d events", n)
				}
				for i := 1; i < len(s.looks); i++ {
					for svc := range s.looks[i-1] {
						if !s.looks[i][svc] && !s.refuses[svc] {
							t.Fatalf("after step %d of %d %s is without rules: %v", i, len(s.looks), svc, counts(s.looks))
						}
					}
				}
			})
		})
	}
}

// TestNarrowBatch: where a batch is refused, nobody in it who is innocent is without
// rules for a moment.
func TestNarrowBatch(t *testing.T) {
	play(t, func(s *scene) {
		s.put(webs(30, 1)...)
		s.begin()
		s.after(time.Minute)
		s.told()
		s.kernel.set(func() { s.refuses["web-0007"] = true })
		lost := 0
		s.change = nil
		var all []metav1.Object
		for i := range 30 {
			all = append(all, web(i, 2)[1])
		}
		s.put(all...)
		for range 200 {
			time.Sleep(time.Millisecond)
			synctest.Wait()
			if n := len(s.names()); n < 29 {
				lost++
			}
		}
		if lost > 0 {
			t.Errorf("in %d looks services were missing", lost)
		}
		if got := s.names(); len(got) != 29 || slices.Contains(got, "web-0007") {
			t.Errorf("in the end there is %v", got)
		}
	})
}

// TestRefusesAll: a kernel that takes nothing blames nobody.
func TestRefusesAll(t *testing.T) {
	play(t, func(s *scene) {
		s.kernel.all = true
		s.put(webs(8, 1)...)
		s.begin()
		s.after(10 * time.Minute)
		if said := s.events.all(); len(said) != 0 {
			t.Errorf("the events are %q", said)
		}
		s.kernel.set(func() { s.kernel.all = false })
		s.after(time.Minute)
		if got := s.names(); len(got) != 8 {
			t.Errorf("in the end there is %v", got)
		}
	})
}

// TestMoment: a refusal that does not come again was about the moment.
func TestMoment(t *testing.T) {
	play(t, func(s *scene) {
		s.put(webs(4, 1)...)
		s.begin()
		s.after(time.Minute)
		s.kernel.set(func() { s.moody = 2 })
		s.put(web(4, 1)...)
		s.after(time.Second)
		if got := s.names(); len(got) != 5 {
			t.Errorf("there is %v", got)
		}
		s.want("the events", s.events.all(), nil)
	})
}

// TestFindings: what is wrong with a service is told once, with its UID.
func TestFindings(t *testing.T) {
	play(t, func(s *scene) {
		all := web(1, 1)
		all[1].(*discoveryv1.EndpointSlice).Endpoints[0].Addresses[0] = "127.0.0.1"
		s.put(append(all, aNode())...)
		s.begin()
		said := s.events.all()
		if len(said) != 1 || !strings.HasPrefix(said[0], "web-0001 uid-web-0001 EndpointAddressInvalid: ") {
			t.Errorf("the events are %q", said)
		}
		all[0].(*corev1.Service).Spec.ExternalIPs = []string{"127.0.0.2"}
		s.put(all[0])
		s.settle()
		if said := s.events.all(); len(said) != 1 || !strings.HasPrefix(said[0], "web-0001 uid-web-0001 ServiceAddressInvalid: ") {
			t.Errorf("when one thing more is wrong the events are %q", said)
		}
		s.put(web(1, 1)[1])
		s.settle()
		s.put(all[1])
		s.settle()
		if said := s.events.all(); len(said) != 1 {
			t.Errorf("when it is wrong again the events are %q", said)
		}
	})
}

// TestFlows: when an endpoint of UDP goes, flows to it are forgotten, after the
// rules were written, and again while that fails; also where none is left.
func TestFlows(t *testing.T) {
	play(t, func(s *scene) {
		dns := Service("dns", []string{"10.96.0.10"}, Port("dns", udp, 53, 0))
		ends := func(ips ...string) *discoveryv1.EndpointSlice {
			parts := []func(*discoveryv1.EndpointSlice){To("dns", udp, 53)}
			for _, ip := range ips {
				parts = append(parts, At(ip, "elsewhere"))
			}
			return Slice("dns-x", "dns", parts...)
		}
		at := net.Address{IP: netip.MustParseAddr("10.96.0.10"), Port: 53, Proto: net.UDP}
		one, two := netip.MustParseAddrPort("10.0.0.1:53"), netip.MustParseAddrPort("10.0.0.2:53")
		expect := func(what string, want ...[]netip.AddrPort) {
			t.Helper()
			got := s.flows.all()
			if len(got) != len(want) {
				t.Errorf("%s: forgotten %v, want %v", what, got, want)
				return
			}
			for i, f := range got {
				if ends, ok := f[at]; len(f) != 1 || !ok || !slices.Equal(ends, want[i]) {
					t.Errorf("%s: forgotten %v, want %v", what, got, want)
				}
			}
		}
		s.put(append(webs(1, 1), dns, ends("10.0.0.1"))...)
		s.begin()
		expect("what happened before", []netip.AddrPort{one})
		s.put(ends("10.0.0.1", "10.0.0.2"))
		s.settle()
		expect("one more")
		s.flows.mu.Lock()
		s.flows.err = errors.New("busy")
		s.flows.mu.Unlock()
		s.put(ends("10.0.0.2"))
		s.settle()
		expect("one less", []netip.AddrPort{two})
		s.flows.mu.Lock()
		s.flows.err = nil
		s.flows.mu.Unlock()
		s.after(time.Second)
		expect("again", []netip.AddrPort{two})
		s.put(ends())
		s.settle()
		expect("none left", nil)
		s.remove(dns)
		s.settle()
		expect("the service goes", nil)
	})
}

// TestHealthPorts: load balancers are answered with what is on this node.
func TestHealthPorts(t *testing.T) {
	play(t, func(s *scene) {
		lb := Service("lb", []string{"10.96.0.20"}, Port("http", tcp, 80, 30080), Balanced("203.0.113.1"), LocalOutside)
		lb.UID, lb.Spec.HealthCheckNodePort = "uid-lb", 31000
		s.taken[":31000"] = true
		s.put(lb, Slice("lb-x", "lb", To("http", tcp, 8080), At("10.0.0.1", "here"), At("10.0.0.2", "elsewhere")), aNode())
		s.begin()
		if said := s.events.all(); len(said) != 1 || !strings.HasPrefix(said[0], "lb uid-lb FailedToStartServiceHealthcheck: ") {
			t.Errorf("of a port that is taken the events are %q", said)
		}
		s.portMu.Lock()
		delete(s.taken, ":31000")
		s.portMu.Unlock()
		s.after(time.Minute)
		ask := func(want int, local float64) {
			t.Helper()
			h := s.port(":31000")
			if h == nil {
				t.Fatal("nobody answers at the port")
			}
			code, body := get(h, "/anything")
			var got map[string]any
			if err := json.Unmarshal([]byte(body), &got); err != nil {
				t.Fatalf("%v: %s", err, body)
			}
			if code != want || got["localEndpoints"] != local || fmt.Sprint(got["service"]) != "map[name:lb namespace:default]" || got["serviceProxyHealthy"] != true {
				t.Errorf("it answers %d %s", code, body)
			}
		}
		ask(http.StatusOK, 1)
		s.put(Slice("lb-x", "lb", To("http", tcp, 8080), At("10.0.0.2", "elsewhere")))
		s.settle()
		ask(http.StatusServiceUnavailable, 0)
		lb.Spec.HealthCheckNodePort = 31001
		s.put(lb)
		s.settle()
		if s.port(":31000") != nil || s.port(":31001") == nil {
			t.Error("the port did not move")
		}
		s.remove(lb)
		s.settle()
		if s.port(":31001") != nil {
			t.Error("the port of a service that is gone is open")
		}
	})
}

// TestHealth: what load balancers of the whole node are told, and dashboards.
func TestHealth(t *testing.T) {
	play(t, func(s *scene) {
		s.put(append(webs(2, 1), aNode())...)
		s.server(func() { s.mute = true })
		s.fault = func(w http.ResponseWriter, _ *http.Request) bool {
			refuse(w, 503, metav1.StatusReasonServiceUnavailable)
			return true
		}
		s.begin()
		expect := func(what string, healthz, livez int) {
			t.Helper()
			a, _ := get(s.proxy.Health(), "/healthz")
			b, _ := get(s.proxy.Health(), "/livez")
			if a != healthz || b != livez {
				t.Errorf("%s healthz is %d, livez %d; want %d, %d", what, a, b, healthz, livez)
			}
		}
		s.after(10 * time.Minute)
		expect("without a server", 503, 200)
		s.server(func() { s.fault, s.mute = nil, false })
		s.after(time.Minute)
		expect("with rules", 200, 200)
		s.put(aNode(func(n *corev1.Node) { n.Spec.Taints = []corev1.Taint{{Key: deletedSoon}} }))
		s.settle()
		expect("before its end", 503, 200)
		s.put(aNode())
		s.settle()
		s.remove(aNode())
		s.settle()
		expect("without a Node", 503, 200)
		_, text := get(s.proxy.Metrics(), "/metrics")
		for _, line := range []string{
			"kubeproxy_sync_full_proxy_rules_duration_seconds_count 1\n", "kubeproxy_sync_proxy_rules_duration_seconds_bucket{le=\"+Inf\"} 1\n",
			"kubeproxy_sync_proxy_rules_service_changes_total 2\n", `kubeproxy_proxy_healthz_total{code="503"} 3` + "\n",
			"nodeagent_services_entries 2\n",
		} {
			if !strings.Contains(text, line) {
				t.Errorf("the metrics have no %q:\n%s", line, text)
			}
		}
		if code, mode := get(s.proxy.Metrics(), "/proxyMode"); code != 200 || mode != "fake" {
			t.Errorf("the mode is %d %q", code, mode)
		}
	})
}

// TestLatency: how long after its cause a change is in force.
func TestLatency(t *testing.T) {
	play(t, func(s *scene) {
		s.put(webs(1, 1)...)
		s.begin()
		s.after(time.Minute)
		slice := web(0, 2)[1].(*discoveryv1.EndpointSlice)
		slice.Annotations = map[string]string{triggerAnnotation: time.Now().Add(-3 * time.Second).Format(time.RFC3339Nano)}
		s.put(slice)
		s.settle()
		_, text := get(s.proxy.Metrics(), "/metrics")
		for _, line := range []string{`network_programming_duration_seconds_bucket{le="2"} 0`, `network_programming_duration_seconds_bucket{le="4"} 1`} {
			if !strings.Contains(text, line) {
				t.Errorf("the metrics have no %q", line)
			}
		}
	})
}

// TestNodeFacts: rules that need to know the Node wait for it, but not for ever,
// and are made anew when it changes.
func TestNodeFacts(t *testing.T) {
	play(t, func(s *scene) {
		var made []Facts
		s.change = func(c *Config) {
			c.Needs.Addrs = true
			c.Backend = func(f Facts) (Backend, error) {
				made = append(made, f)
				return s.kernel, nil
			}
		}
		s.put(webs(2, 1)...)
		s.begin()
		s.after(10 * time.Second)
		s.want("without the Node", s.told(), nil)
		s.put(aNode())
		s.settle()
		s.want("with it", s.told(), []string{"sync 2"})
		s.put(aNode(func(n *corev1.Node) { n.Labels = map[string]string{corev1.LabelTopologyZone: "a"} }))
		s.settle()
		s.want("with a zone that matters to nobody", s.told(), nil)
		s.put(aNode(func(n *corev1.Node) { n.Status.Addresses[0].Address = "192.168.0.2" }))
		s.settle()
		s.want("with another address", s.told(), []string{"sync 0"})
		if len(made) != 2 || made[1].Addrs[0] != netip.MustParseAddr("192.168.0.2") {
			t.Errorf("backends were made for %v", made)
		}
		s.remove(aNode())
		s.begin()
		s.after(patience)
		s.want("where there never is a Node", s.told(), []string{"sync 0"})
	})
}

// TestProgress: a loop that rests, waits for the API server or for a kernel that has
// time left makes progress; one in a call that does not end makes none.
func TestProgress(t *testing.T) {
	play(t, func(s *scene) {
		want := func(what string, silent time.Duration) {
			t.Helper()
			if got := time.Since(s.proxy.Progress()); got != silent {
				t.Errorf("%s: silent for %v, want %v", what, got, silent)
			}
		}
		s.put(append(webs(3, 2), aNode())...)
		s.begin()
		s.after(time.Hour)
		want("nothing changes", 0)
		s.kernel.set(func() { s.slow = time.Hour }) // whatever its deadline is
		s.put(web(1, 3)[1])
		synctest.Wait()
		time.Sleep(callTimeout)
		want("in a call that has time", 0)
		time.Sleep(time.Minute)
		want("in a call that hangs", time.Minute)
		s.kernel.set(func() { s.slow = 0 })
		s.after(time.Hour)
		want("behind it", 0)
		s.server(func() { s.mute = true })
		s.cut()
		s.after(time.Hour)
		want("without an API server", 0)
	})
}
