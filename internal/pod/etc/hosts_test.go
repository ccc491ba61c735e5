package etc

import (
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
)

const managed = `# Kubernetes-managed hosts file.
127.0.0.1	localhost
::1	localhost ip6-localhost ip6-loopback
fe00::0	ip6-localnet
fe00::0	ip6-mcastprefix
fe00::1	ip6-allnodes
fe00::2	ip6-allrouters
`

func TestHosts(t *testing.T) {
	aliases := []corev1.HostAlias{
		{IP: "123.45.67.89", Hostnames: []string{"foo", "bar"}},
		{IP: "2001:db8::1", Hostnames: []string{"baz"}},
	}
	aliasText := "\n# Entries added by HostAliases.\n123.45.67.89\tfoo\tbar\n2001:db8::1\tbaz\n"
	node := "127.0.0.1 localhost\n203.0.113.1 node\n"
	for _, tc := range []struct {
		name string
		pod  *corev1.Pod
		id   Name
		ips  []string
		want string
	}{
		{"plain", pod("web", nil), Name{Short: "web"}, []string{"192.0.2.1"}, managed + "192.0.2.1\tweb\n"},
		{"no address", pod("web", nil), Name{Short: "web"}, nil, managed},
		{"two families and a domain", pod("web", nil), Name{Short: "h", Domain: "s.shop.svc.c"}, []string{"192.0.2.1", "2001:db8::7"},
			managed + "192.0.2.1\th.s.shop.svc.c\th\n2001:db8::7\th.s.shop.svc.c\th\n"},
		{"aliases", pod("web", func(s *corev1.PodSpec) { s.HostAliases = aliases }), Name{Short: "web"}, []string{"192.0.2.1"},
			managed + "192.0.2.1\tweb\n" + aliasText},
		{"host network", pod("web", func(s *corev1.PodSpec) { s.HostNetwork = true }), Name{Short: "web"}, []string{"203.0.113.1"},
			"# Kubernetes-managed hosts file (host network).\n" + node},
		{"host network with aliases", pod("web", func(s *corev1.PodSpec) { s.HostNetwork, s.HostAliases = true, aliases }), Name{Short: "web"}, nil,
			"# Kubernetes-managed hosts file (host network).\n" + node + aliasText},
		{"an alias is no second way in", pod("web", func(s *corev1.PodSpec) {
			s.HostAliases = []corev1.HostAlias{{IP: "192.0.2.9", Hostnames: []string{"a\n192.0.2.9\tlocalhost"}}, aliases[1]}
		}), Name{Short: "web"}, nil, managed + "\n# Entries added by HostAliases.\n2001:db8::1\tbaz\n"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := string(Hosts(tc.pod, tc.id, tc.ips, []byte(node))); got != tc.want {
				t.Errorf("got\n%s\nwant\n%s", got, tc.want)
			}
		})
	}
}

func TestOwnHosts(t *testing.T) {
	for path, want := range map[string]bool{"/etc/hosts": true, "/etc/../etc/hosts/": true, "/etc": false, "/etc/hosts.d": false} {
		c := &corev1.Container{VolumeMounts: []corev1.VolumeMount{{MountPath: "/data"}, {MountPath: path}}}
		if got := OwnHosts(c); got != want {
			t.Errorf("%s: got %t", path, got)
		}
	}
}

func TestHostsIsOneLineAnAlias(t *testing.T) {
	p := pod("web", func(s *corev1.PodSpec) {
		for r := rune(0); r < 0x100; r++ {
			s.HostAliases = append(s.HostAliases, corev1.HostAlias{IP: "192.0.2.1", Hostnames: []string{"x" + string(r) + "y"}})
		}
	})
	for line := range strings.Lines(string(Hosts(p, Name{Short: "web"}, nil, nil))[len(managed):]) {
		if !strings.HasPrefix(line, "192.0.2.1\t") && !strings.HasPrefix(line, "#") && line != "\n" {
			t.Errorf("a host name began the line %q", line)
		}
	}
}
