package cgroups

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"testing"
)

func TestParse(t *testing.T) {
	if got, err := parsePIDs([]byte("1\n20\n0\n")); err != nil || !slices.Equal(got, []int{1, 20, 0}) {
		t.Errorf("pids: %v, %v", got, err)
	}
	got, err := parseFlatKeyed([]byte("oom_kill_disable 0\nunder_oom 1\noom_kill 18446744073709551615\n"))
	if err != nil || !maps.Equal(got, map[string]uint64{"oom_kill_disable": 0, "under_oom": 1, "oom_kill": 1<<64 - 1}) {
		t.Errorf("keys: %v, %v", got, err)
	}
	for text, want := range map[string]any{
		"max\n": nil, "-1\n": nil, "9223372036854771712\n": nil, "9223372036852678656\n": nil,
		"0\n": uint64(0), "4096\n": uint64(4096),
	} {
		v, err := parseLimit([]byte(text))
		if err != nil || (v == nil) != (want == nil) || v != nil && *v != want {
			t.Errorf("limit %q: %v, %v", text, v, err)
		}
	}
	if q, p, err := parseCPUMax([]byte("max 100000\n")); err != nil || q != nil || p != 100000 {
		t.Errorf("cpu.max: %v %d %v", q, p, err)
	}
	if q, p, err := parseCPUMax([]byte("5000 10000\n")); err != nil || *q != 5000 || p != 10000 {
		t.Errorf("cpu.max: %v %d %v", q, p, err)
	}
	for name, want := range map[string]string{
		"hugepages-2048kB": "2MB", "hugepages-1048576kB": "1GB", "hugepages-64kB": "64KB", "hugepages-16777216kB": "16GB",
		"hugepages-": "", "hugepages-0kB": "", "hugepages-xkB": "", "other": "", "hugepages-1": "",
	} {
		if got, ok := parsePageSize(name); got != want || ok != (want != "") {
			t.Errorf("page size %s: %q", name, got)
		}
	}
	stat := "123 (a) b (c\n) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 1 1"
	if s, err := parseProcStat([]byte(stat)); err != nil || s != (procStat{comm: "a) b (c\n", state: "S", start: 98765}) {
		t.Errorf("stat: %+v, %v", s, err)
	}
}

func TestParseRefuses(t *testing.T) {
	for _, text := range []string{"x\n", "-1\n", "99999999999\n", "\n"} {
		if got, err := parsePIDs([]byte(text)); err == nil {
			t.Errorf("pids %q: %v", text, got)
		}
	}
	for _, text := range []string{"key\n", " 1\n", "key x\n", "key 1 2\n", "\n"} {
		if got, err := parseFlatKeyed([]byte(text)); err == nil {
			t.Errorf("keys %q: %v", text, got)
		}
	}
	for _, text := range []string{"", "x", "-2", "1 2"} {
		if got, err := parseLimit([]byte(text)); err == nil {
			t.Errorf("limit %q: %v", text, got)
		}
	}
	for _, text := range []string{"", "max", "x 1", "1 x"} {
		if _, _, err := parseCPUMax([]byte(text)); err == nil {
			t.Errorf("cpu.max %q was taken", text)
		}
	}
	for _, text := range []string{"few avg10=0", "some avg10=x", "some total=-1", "some avg10=NaN", "full avg300=Inf"} {
		if got, err := parsePressure([]byte(text)); err == nil {
			t.Errorf("pressure %q: %v", text, got)
		}
	}
	for _, text := range []string{"", "1 (a", "1 a) S", ") (", "1 (a) S 1 1", "1 (a) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 x"} {
		if got, err := parseProcStat([]byte(text)); err == nil {
			t.Errorf("stat %q: %v", text, got)
		}
	}
}

// FuzzParse: no parser panics, and what is understood can be shown as JSON.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"1\n2\n", "oom_kill 3\n", "max\n", "max 100000\n", "hugepages-2048kB",
		"some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
		"123 (a) b (c\n) S 1 1 1 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 98765 1 1 1",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		pids, err := parsePIDs(b)
		if err == nil && slices.ContainsFunc(pids, func(p int) bool { return p < 0 }) {
			t.Errorf("pids %v", pids)
		}
		if want, err := parseFlatKeyed(b); err == nil {
			got := map[string]uint64{}
			if err := eachKeyed(b, func(key []byte, v uint64) { got[string(key)] = v }); err != nil || !maps.Equal(got, want) {
				t.Errorf("%q: %v, %v; want %v", b, got, err, want)
			}
		}
		(&Facts{}).io(bytes.Fields(b))
		_, _ = parseLimit(b)
		_, _, _ = parseCPUMax(b)
		_, _ = parsePageSize(string(b))
		_, _ = parseProcStat(b)
		if p, err := parsePressure(b); err == nil {
			if _, err := json.Marshal(p); err != nil {
				t.Errorf("%q: %v", b, err)
			}
		}
		for _, s := range []setting{{kind: paged}, {kind: plain}} {
			if once := s.canonical(string(b)); s.canonical(once) != once {
				t.Errorf("%q is not canonical", once)
			}
		}
	})
}
