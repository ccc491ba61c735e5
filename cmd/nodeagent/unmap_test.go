package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

func TestCleanMappings(t *testing.T) {
	const smaps = `00400000-01156000 r-xp 00000000 fe:01 77 /usr/local/bin/nodeagent
Rss:  100 kB
Anonymous:             0 kB
01156000-0249f000 r--p 00d56000 fe:01 77 /usr/local/bin/nodeagent
Anonymous:             0 kB
0249f000-024a0000 r--p 0209f000 fe:01 77 /usr/local/bin/nodeagent
Anonymous:             4 kB
0249f000-02540000 rw-p 0209f000 fe:01 77 /usr/local/bin/nodeagent
Anonymous:             0 kB
c000000000-c001400000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f0000000000-7f0000001000 r-xp 00000000 fe:01 78 /opt/usr/local/bin/nodeagent
Anonymous:             0 kB
`
	got, err := cleanMappings(strings.NewReader(smaps), "/usr/local/bin/nodeagent")
	if err != nil {
		t.Fatal(err)
	}
	want := []mapping{{0x400000, 0x1156000}, {0x1156000, 0x249f000}}
	if !slices.Equal(got, want) {
		t.Errorf("got %x, want %x", got, want)
	}
}

// TestUnmapProgram: the pages go, and the program goes on.
func TestUnmapProgram(t *testing.T) {
	before := resident(t)
	if err := unmapProgram(); err != nil {
		t.Fatal(err)
	}
	if after := resident(t); after >= before {
		t.Errorf("%d pages of files are mapped, %d were", after, before)
	}
}

// resident is the number of the process's pages that belong to files.
func resident(t *testing.T) (kB int) {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "RssFile:"); ok {
			for _, r := range rest {
				if r >= '0' && r <= '9' {
					kB = kB*10 + int(r-'0')
				}
			}
		}
	}
	return kB
}

// FuzzSmaps: whatever the kernel's text holds, a mapping that is given back is one
// of the program's own, and no page of it was copied.
func FuzzSmaps(f *testing.F) {
	f.Add("00400000-00a00000 r-xp 00000000 08:01 1 /p\nAnonymous: 0 kB\n")
	f.Add("00400000-00a00000 r--p 00000000 08:01 1 /p\nAnonymous: 4 kB\nAnonymous: 0 kB\n")
	f.Add("ffffffffffffffff-0 r-xp 0 0 0 /p\nAnonymous: 0 kB")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := cleanMappings(strings.NewReader(text), "/p")
		if err == nil && len(got) > strings.Count(text, " /p") {
			t.Errorf("%q gives %v", text, got)
		}
	})
}
