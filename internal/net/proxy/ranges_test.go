package proxy

import (
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func aServiceCIDR(name string, all ...string) *networkingv1.ServiceCIDR {
	return &networkingv1.ServiceCIDR{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: all}}
}

// withRanges lets the Backend ask for ranges, and keeps what the log says of them.
func withRanges(s *scene) *strings.Builder {
	said := &strings.Builder{}
	s.change = func(c *Config) {
		c.Needs.ServiceCIDRs = true
		c.Logger = slog.New(slog.NewTextHandler(said, nil))
	}
	return said
}

func (s *scene) wantRanges(what, want string) {
	s.t.Helper()
	s.kernel.mu.Lock()
	defer s.kernel.mu.Unlock()
	if s.ranges != want {
		s.t.Errorf("%s: the ranges are %q, want %q", what, s.ranges, want)
	}
}

// TestServiceCIDRs: the first rules have the ranges; each change of these is one look at
// everything, also when it is seen only after a watch that began anew.
func TestServiceCIDRs(t *testing.T) {
	play(t, func(s *scene) {
		withRanges(s)
		s.put(aNode(), aServiceCIDR("kubernetes", "10.96.0.0/12", "fd96::/108"))
		s.begin()
		s.want("the start", s.told(), []string{"sync 0"})
		s.wantRanges("the start", "[10.96.0.0/12 fd96::/108]")
		s.put(aServiceCIDR("more", "10.200.0.0/16"))
		s.settle()
		s.want("one more", s.told(), []string{"sync 0"})
		s.wantRanges("one more", "[10.96.0.0/12 10.200.0.0/16 fd96::/108]")
		s.put(aServiceCIDR("more", "10.200.0.0/16"))
		s.settle()
		s.want("the same", s.told(), nil)
		s.remove(aServiceCIDR("more"))
		s.settle()
		s.want("one less", s.told(), []string{"sync 0"})
		s.wantRanges("one less", "[10.96.0.0/12 fd96::/108]")
		s.put(aServiceCIDR("more", "10.201.0.0/16"))
		s.remove(aServiceCIDR("kubernetes"))
		s.compact()
		s.cut()
		s.after(time.Minute)
		s.wantRanges("a watch that began anew", "[10.201.0.0/16]")
	})
}

// TestServiceCIDRsNotAsked: a Backend that does not need them costs no watch.
func TestServiceCIDRsNotAsked(t *testing.T) {
	play(t, func(s *scene) {
		s.put(aNode(), aServiceCIDR("kubernetes", "10.96.0.0/12"))
		s.begin()
		if all := strings.Join(s.asked(), " "); strings.Contains(all, "servicecidrs") {
			t.Errorf("asked was %s", all)
		}
		s.wantRanges("the start", "[]")
	})
}

// TestServiceCIDRsForbidden: who may not read them, or whose API server has none, goes on
// without, says so once, and asks again every ten minutes.
func TestServiceCIDRsForbidden(t *testing.T) {
	for code, reason := range map[int]metav1.StatusReason{http.StatusForbidden: metav1.StatusReasonForbidden, http.StatusNotFound: metav1.StatusReasonNotFound} {
		play(t, func(s *scene) {
			said := withRanges(s)
			s.put(aNode(), aServiceCIDR("kubernetes", "10.96.0.0/12"))
			s.fault = func(w http.ResponseWriter, r *http.Request) bool {
				no := strings.HasSuffix(r.URL.Path, "servicecidrs")
				if no {
					refuse(w, code, reason)
				}
				return no
			}
			s.begin()
			s.want("the start", s.told(), []string{"sync 0"})
			s.wantRanges("the start", "[]")
			s.asked()
			s.after(time.Hour)
			if n := strings.Count(strings.Join(s.asked(), " "), "servicecidrs"); n < 4 || n > 6 {
				t.Errorf("%d: asked again %d times in an hour", code, n)
			}
			if n := strings.Count(said.String(), "are not refused"); n != 1 {
				t.Errorf("%d: said %d times:\n%s", code, n, said)
			}
			if v := s.proxy.Show(); len(v.Problems) != 0 {
				t.Errorf("%d: problems are %q", code, v.Problems)
			}
			s.apiServer.set(func() { s.fault = nil })
			s.after(11 * time.Minute)
			s.wantRanges("when it may", "[10.96.0.0/12]")
		})
	}
}

// TestServiceCIDRsLate: where the API server does not answer the question the rules wait
// for half a minute, and no longer.
func TestServiceCIDRsLate(t *testing.T) {
	play(t, func(s *scene) {
		withRanges(s)
		s.put(aNode(), aServiceCIDR("kubernetes", "10.96.0.0/12"))
		s.fault = func(w http.ResponseWriter, r *http.Request) bool {
			no := strings.HasSuffix(r.URL.Path, "servicecidrs")
			if no {
				refuse(w, http.StatusInternalServerError, metav1.StatusReasonInternalError)
			}
			return no
		}
		s.begin()
		s.after(20 * time.Second)
		s.want("at first", s.told(), nil)
		s.after(11 * time.Second)
		s.want("then", s.told(), []string{"sync 0"})
		s.apiServer.set(func() { s.fault = nil })
		s.after(time.Minute)
		s.wantRanges("when it answers", "[10.96.0.0/12]")
	})
}
