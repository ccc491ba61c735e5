package etc

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func pod(name string, change func(*corev1.PodSpec)) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "shop"}}
	p.Spec.DNSPolicy = corev1.DNSClusterFirst
	if change != nil {
		change(&p.Spec)
	}
	return p
}

func TestHostname(t *testing.T) {
	yes := true
	long := strings.Repeat("a", 62)
	for _, tc := range []struct {
		name string
		pod  *corev1.Pod
		want Name
		warn bool
		err  string
	}{
		{name: "pod name", pod: pod("web-0", nil), want: Name{Short: "web-0", Kernel: "web-0"}},
		{name: "pod name of 63", pod: pod(long+"b", nil), want: Name{Short: long + "b", Kernel: long + "b"}},
		{name: "pod name cut", pod: pod(long+"bcdef", nil), want: Name{Short: long + "b", Kernel: long + "b"}, warn: true},
		{name: "no dash or dot at the cut", pod: pod(long[:60]+"-.-tail", nil), want: Name{Short: long[:60], Kernel: long[:60]}, warn: true},
		{name: "nothing left", pod: pod(strings.Repeat("-", 70), nil), err: "nothing is left"},
		{name: "spec.hostname", pod: pod("web-0", func(s *corev1.PodSpec) { s.Hostname = "busybox" }), want: Name{Short: "busybox", Kernel: "busybox"}},
		{name: "spec.hostname is a label", pod: pod("web-0", func(s *corev1.PodSpec) { s.Hostname = "a.b" }), err: "spec.hostname"},
		{name: "spec.hostname with a newline", pod: pod("web-0", func(s *corev1.PodSpec) { s.Hostname = "a\nb" }), err: "spec.hostname"},
		{name: "subdomain", pod: pod("web-0", func(s *corev1.PodSpec) { s.Hostname, s.Subdomain = "h", "sub" }),
			want: Name{Short: "h", Domain: "sub.shop.svc.cluster.local", Kernel: "h"}},
		{name: "subdomain is a label", pod: pod("web-0", func(s *corev1.PodSpec) { s.Subdomain = "_x" }), err: "spec.subdomain"},
		{name: "FQDN", pod: pod("web-0", func(s *corev1.PodSpec) { s.Hostname, s.Subdomain, s.SetHostnameAsFQDN = "h", "sub", &yes }),
			want: Name{Short: "h", Domain: "sub.shop.svc.cluster.local", Kernel: "h.sub.shop.svc.cluster.local"}},
		{name: "FQDN without subdomain", pod: pod("web-0", func(s *corev1.PodSpec) { s.SetHostnameAsFQDN = &yes }), want: Name{Short: "web-0", Kernel: "web-0"}},
		{name: "FQDN of 64", pod: pod(strings.Repeat("h", 37), func(s *corev1.PodSpec) { s.Subdomain, s.SetHostnameAsFQDN = "sub", &yes }),
			want: Name{Short: strings.Repeat("h", 37), Domain: "sub.shop.svc.cluster.local", Kernel: strings.Repeat("h", 37) + ".sub.shop.svc.cluster.local"}},
		{name: "FQDN of 65", pod: pod(strings.Repeat("h", 38), func(s *corev1.PodSpec) { s.Subdomain, s.SetHostnameAsFQDN = "sub", &yes }), err: "at most 64"},
		{name: "FQDN of 65 on the host network", pod: pod(strings.Repeat("h", 38), func(s *corev1.PodSpec) {
			s.Subdomain, s.SetHostnameAsFQDN, s.HostNetwork = "sub", &yes, true
		}), want: Name{Short: strings.Repeat("h", 38), Domain: "sub.shop.svc.cluster.local"}},
		{name: "override", pod: pod("web-0", func(s *corev1.PodSpec) {
			s.HostnameOverride = new(string)
			*s.HostnameOverride = "a.b"
			s.Subdomain = "sub"
		}),
			want: Name{Short: "a.b", Kernel: "a.b"}},
		{name: "bad override", pod: pod("web-0", func(s *corev1.PodSpec) { s.HostnameOverride = new(string) }), err: "spec.hostnameOverride"},
		{name: "host network", pod: pod("web-0", func(s *corev1.PodSpec) { s.HostNetwork = true }), want: Name{Short: "web-0"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, warnings, err := Hostname(tc.pod, "cluster.local")
			if tc.err != "" {
				if err == nil || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("error %v, want one with %q", err, tc.err)
				}
				return
			}
			if err != nil || got != tc.want {
				t.Fatalf("got %+v, %v; want %+v", got, err, tc.want)
			}
			if (len(warnings) > 0) != tc.warn {
				t.Fatalf("warnings %v, want some: %t", warnings, tc.warn)
			}
		})
	}
}

func TestHostnameFile(t *testing.T) {
	if got := string(Name{Short: "a", Kernel: "a"}.File()); got != "a\n" {
		t.Errorf("got %q", got)
	}
	if got := (Name{Short: "a"}).File(); got != nil {
		t.Errorf("a pod with the node's name got the file %q", got)
	}
}
