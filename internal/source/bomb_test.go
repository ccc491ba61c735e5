package source

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bombs are small or legal-looking files that cost a careless parser its time or
// its memory.
func bombs() map[string]string {
	laughs := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := 1; i < 12; i++ {
		laughs += fmt.Sprintf("a%d: &a%d [%s*a%d]\n", i, i, strings.Repeat(fmt.Sprintf("*a%d,", i-1), 9), i-1)
	}
	quadratic := "a: &a [" + strings.Repeat("x,", 12_000) + "x]\nb: [" + strings.Repeat("*a,", 9_000) + "*a]\n"
	return map[string]string{
		"aliases":                 laughs,
		"aliases of one list":     quadratic,
		"aliases of a long text":  "a: &a " + strings.Repeat("x", 1<<19) + "\nb: [" + strings.Repeat("*a,", 1000) + "*a]\n",
		"alias to itself":         "a: &a [*a]\n# *\n",
		"merges":                  "a: &a {b: 1}\nb: [" + strings.Repeat("{<<: *a},", 7_000) + "]\n",
		"depth by brackets":       strings.Repeat("[", 100_000),
		"depth by braces":         strings.Repeat("{a: ", 100_000),
		"depth by dashes":         strings.Repeat("- ", 100_000) + "x",
		"depth by questions":      strings.Repeat("? ", 100_000) + "x",
		"depth by indentation":    indented(2000),
		"depth under the limit":   strings.Repeat("[", 9_000) + strings.Repeat("]", 9_000),
		"depth in JSON":           `{"a":` + strings.Repeat("[", 50_000) + strings.Repeat("]", 50_000) + "}",
		"text of 10 MiB":          "a: " + strings.Repeat("x", 10<<20-3),
		"text of 10 MiB, quoted":  `a: "` + strings.Repeat(`\x41`, 10<<18-2) + `"`,
		"text of 10 MiB, block":   "a: |\n" + strings.Repeat("  x\n", 10<<18-2),
		"longest text":            "a: " + strings.Repeat("x", maxDocBytes-3),
		"longest text in JSON":    `{"a":"` + strings.Repeat("x", maxDocBytes-8) + `"}`,
		"spaces":                  "a: b" + strings.Repeat(" ", maxDocBytes-10) + "x",
		"dashes":                  strings.Repeat("-", maxDocBytes),
		"fields of 10 MiB":        strings.Repeat("a: b\n", 10<<20/5),
		"fields of 1 MiB":         strings.Repeat("a: b\n", maxDocBytes/5-1),
		"lists of 1 MiB":          "a: [" + strings.Repeat("{},", maxDocBytes/3-10) + "{}]",
		"dashes of 1 MiB":         "a:\n" + strings.Repeat("- - - -\n", maxDocBytes/8-10),
		"fields under the limit":  fields(maxTokens/2 - 10),
		"lists under the limit":   "a: [" + strings.Repeat("{},", maxTokens/2-10) + "{}]",
		"JSON under the limit":    `{"apiVersion":"v1","kind":"Pod","a":[` + strings.Repeat("{},", maxTokens/2-20) + "{}]}",
		"items under the limit":   `{"apiVersion":"v1","kind":"List","items":[` + strings.Repeat("{},", maxTokens/2-20) + "{}]}",
		"unknown fields":          `{"apiVersion":"v1","kind":"Pod","metadata":{` + strings.TrimSuffix(strings.Repeat(`"x":1,`, maxTokens/2-20), ",") + "}}",
		"documents":               strings.Repeat("---\na\n", 10<<20/6),
		"empty documents":         strings.Repeat("---\n", 10<<20/4),
		"anchors":                 strings.Repeat("- &a x\n", maxTokens-10) + "- *a",
		"tags":                    "a: !" + strings.Repeat("x", 1<<20) + " b",
		"long key":                strings.Repeat("k", 1<<20) + ": x",
		"comments":                strings.Repeat("#\n", maxTokens-10) + "a: b",
		"question marks":          strings.Repeat("?", 1<<20),
		"escapes":                 `a: "` + strings.Repeat(`\n`, 1<<20) + `"`,
		"nul bytes":               strings.Repeat("\x00", 10<<20),
		"control characters":      strings.Repeat("\x1b[2J", 1<<20),
		"unfinished quote":        `a: "` + strings.Repeat("x\n", maxTokens-100),
		"unfinished flow":         "a: [" + strings.Repeat("x, ", maxTokens-100),
		"one quote a line":        strings.Repeat("'\n", maxTokens-100),
		"carriage returns":        strings.Repeat("a: b\r", maxTokens-100),
		"brackets inside of text": "a: " + strings.Repeat("[]", maxTokens/2),
	}
}

func indented(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(strings.Repeat(" ", i) + "a:\n")
	}
	return b.String()
}

func fields(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "k%d: v\n", i)
	}
	return b.String()
}

// Every bomb is refused at the cost of at most forty passes over the largest file
// that is taken, 10 MiB, which is 0.1 s where a pass takes 2.5 ms, and of 64 MiB.
// The time is that of a processor and told in passes, so that neither what else
// the machine does nor how fast it is counts; of the memory, all that is
// allocated counts, so that the bound holds even if the collector never runs.
func TestBombs(t *testing.T) {
	const mostPasses, mostBytes = 40, 64 << 20
	dir := t.TempDir()
	most := mostPasses * pass(t)
	for name, text := range bombs() {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(dir, "bomb.yaml")
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			m := testSource(t, dir, nil)
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			var before, after runtime.MemStats
			runtime.GC()
			runtime.ReadMemStats(&before)
			start := threadTime(t)
			got, err := readQuiet(file, true)
			if err != nil {
				t.Fatal(err)
			}
			pods, wrong := m.decode(file, got.data)
			took := threadTime(t) - start
			runtime.ReadMemStats(&after)
			if pods != nil || len(wrong) == 0 {
				t.Fatalf("%d pods were taken", len(pods))
			}
			cost := after.TotalAlloc - before.TotalAlloc
			if cost > mostBytes {
				t.Errorf("it cost %d MiB", cost>>20)
			}
			for range 4 { // what shares the core can only make it longer
				if took <= most {
					break
				}
				most = max(most, mostPasses*pass(t))
				start = threadTime(t)
				m.decode(file, got.data)
				took = min(took, threadTime(t)-start)
			}
			if took > most {
				t.Errorf("it took %s, more than %d passes", took, mostPasses)
			}
			t.Logf("%v, %d KiB", took.Round(time.Microsecond), cost>>10)
		})
	}
}

// threadTime is how long this thread has run on a processor.
// pass is the processor time of one look at each byte of 10 MiB, the least of a
// few; built with the race detector it is as much slower as the parser is.
func pass(t *testing.T) time.Duration {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	text, least := make([]byte, 10<<20), time.Hour
	for range 5 {
		var seen [256]int
		start := threadTime(t)
		for i, b := range text {
			seen[byte(i)^b]++
		}
		least = min(least, threadTime(t)-start)
	}
	// The kernel counts in ticks on some machines.
	return max(least, time.Millisecond)
}

func threadTime(t *testing.T) time.Duration {
	var u unix.Rusage
	do(t, unix.Getrusage(unix.RUSAGE_THREAD, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
