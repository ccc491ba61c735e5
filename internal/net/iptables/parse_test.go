package iptables

import (
	"encoding/binary"
	"hash/maphash"
	"slices"
	"strings"
	"testing"

	"nodeagent/internal/net"
)

func TestParseVersion(t *testing.T) {
	for said, want := range map[string]release{
		"iptables v1.8.9 (nf_tables)\n": {"1.8.9", [3]int{1, 8, 9}, NFT},
		"iptables v1.8.9 (legacy)":      {"1.8.9", [3]int{1, 8, 9}, Legacy},
		"ip6tables v1.6.2":              {"1.6.2", [3]int{1, 6, 2}, Legacy},
		"iptables v1.6.1":               {"1.6.1", [3]int{1, 6, 1}, Legacy},
		"iptables v1.4-rc1":             {"1.4-rc1", [3]int{1, 4, 0}, Legacy},
	} {
		if got, err := parseVersion(said); err != nil || got != want {
			t.Errorf("%q: %+v, %v", said, got, err)
		}
		if old := want.text == "1.6.1" || want.text == "1.4-rc1"; want.old() != old {
			t.Errorf("%q is old: %t", said, want.old())
		}
	}
	for _, said := range []string{"", "iptables", "iptables 1.8", "iptables vX.Y", "iptables v1.2.3.4.5"} {
		if r, err := parseVersion(said); err == nil {
			t.Errorf("%q is taken for %+v", said, r)
		}
	}
}

func TestTarget(t *testing.T) {
	for rule, want := range map[string]string{
		"-j NODEAGENT-IP": "NODEAGENT-IP",
		`-p tcp -m comment --comment "a -j B" -g C`:               "C",
		`-m comment --comment "say \" -j B" -j C --set-xmark 0x1`: "C",
		"-d 1.2.3.4/32": "",
		"":              "",
	} {
		if got := target(rule); got != want {
			t.Errorf("%q leads to %q, want %q", rule, got, want)
		}
	}
}

func TestPlain(t *testing.T) {
	for rule, want := range map[string]string{
		"-d ::0.1.0.0/::0.3.0.0 -g X":                       "-d ::1:0/::3:0 -g X",
		"-s ::1.2.3.4/128 -j X":                             "-s ::102:304/128 -j X",
		"-d 1.2.3.4/32 -j DNAT --to-destination 1.2.3.4:80": "-d 1.2.3.4/32 -j DNAT --to-destination 1.2.3.4:80",
		`-m comment --comment "-d ::1.2.3.4" -j X`:          `-m comment --comment "-d ::1.2.3.4" -j X`,
	} {
		if got := plain(rule); got != want {
			t.Errorf("%q becomes %q", rule, got)
		}
	}
}

func TestParse(t *testing.T) {
	ours := func(s string) bool { return own("NODEAGENT", s) }
	text := "# x\n*nat\n:PREROUTING ACCEPT [1:2]\n:NODEAGENT-IP - [0:0]\n:DOCKER - [0:0]\n-A PREROUTING -j NODEAGENT-SERVICES\n-A NODEAGENT-IP -j NODEAGENT-SVC-A\n-A DOCKER -j RETURN\nCOMMIT\n"
	s, err := parse(strings.NewReader(text), maphash.MakeSeed(), ours)
	must(t, err)
	if len(s.chains) != 1 || s.chains["NODEAGENT-IP"].n != 1 || !slices.Equal(s.rules, []foreign{{"PREROUTING", "-j NODEAGENT-SERVICES", "NODEAGENT-SERVICES"}}) ||
		!s.builtin["PREROUTING"] || s.builtin["DOCKER"] {
		t.Errorf("%+v", s)
	}
	if _, err := parse(strings.NewReader(strings.TrimSuffix(text, "COMMIT\n")), maphash.MakeSeed(), ours); err == nil {
		t.Error("what ends too early is taken for all")
	}
	if _, err := parse(strings.NewReader("# Table `nat' is incompatible, use 'nft' tool.\n"), maphash.MakeSeed(), ours); err == nil {
		t.Error("what cannot be read is taken for empty")
	}
}

func TestLineOf(t *testing.T) {
	text := []byte("*nat\n-A X -j Y\nCOMMIT\n")
	for said, want := range map[string]string{
		"iptables-restore: line 2 failed":                 ` (line 2 is "-A X -j Y")`,
		"line 2: RULE_APPEND failed (No such file)":       ` (line 2 is "-A X -j Y")`,
		"Error occurred at line: 2":                       ` (line 2 is "-A X -j Y")`,
		"line 99 failed":                                  "",
		"line -1":                                         "",
		"something else":                                  "",
		"line 99999999999999999999999999999999999 failed": "",
	} {
		if got := lineOf(text, said, 0); got != want {
			t.Errorf("%q: %q", said, got)
		}
	}
	if got := lineOf(text, "line 1002 failed", 1000); got != ` (line 1002 is "-A X -j Y")` {
		t.Errorf("behind a thousand lines: %q", got)
	}
	if got := lineOf(text, "line 2 failed", 1000); got != "" {
		t.Errorf("before the text: %q", got)
	}
}

// TestOwn: no chain of others is taken for ours, and no name is too long.
func TestOwn(t *testing.T) {
	for _, name := range []string{"NODEAGENT-HOSTPORTS", "NODEAGENT-LOOPBACK", "NODEAGENT-HAIRPIN", "NODEAGENT-LEAVING", "NODEAGENT-POST", "NODEAGENT-FORWARD", "KUBE-SERVICES", "NODEAGENT", "NODEAGENT-", "NODEAGENTX-IP", "INPUT", ""} {
		if own("NODEAGENT", name) {
			t.Errorf("%s is taken for ours", name)
		}
	}
	l := newLayout(Config{Prefix: "NODEAGENT"}, 1, ipv4, nil)
	e := &net.Entry{}
	for _, kind := range ownKinds {
		if name := l.chainOf(kind, e); len(name) > maxName || !own("NODEAGENT", name) {
			t.Errorf("%s", name)
		}
	}
	for _, n := range treeNames {
		longest := "-01230123t753"
		if strings.HasPrefix(n, slot) {
			longest = "-t753001230123"
		}
		if name := l.name(n) + longest; n != unknown && n != hairpin && len(name) > maxName {
			t.Errorf("%s is too long", name)
		}
	}
}

func TestConfig(t *testing.T) {
	bad := int32(32)
	for _, cfg := range []Config{{Prefix: "lower"}, {Prefix: "TOOLONGPREFIX"}, {Prefix: "A-B"}, {Flavour: "other"}, {MasqueradeBit: &bad}} {
		if _, err := New(cfg); err == nil {
			t.Errorf("%+v is taken", cfg)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("*nat\n:A - [0:0]\n-A NODEAGENT-IP -d ::1.2.3.4/::f -j \"X\nCOMMIT\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = parse(strings.NewReader(text), maphash.MakeSeed(), func(s string) bool { return own("NODEAGENT", s) })
	})
}

func FuzzSums(f *testing.F) {
	e := make([]byte, 160)
	binary.NativeEndian.PutUint16(e[88:], 112)
	binary.NativeEndian.PutUint16(e[90:], 160)
	f.Add(e)
	f.Fuzz(func(t *testing.T, blob []byte) {
		for _, s := range []shape{shape4, shape6} {
			sums(blob, s, maphash.MakeSeed(), func(string) bool { return true })
		}
	})
}
