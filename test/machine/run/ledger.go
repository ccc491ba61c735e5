package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"nodeagent/test/machine/guest"
)

// event is one line of go test -json.
type event struct {
	Action, Package, Test, Output string
	Elapsed                       float64
}

// ledger is what every test came to, on the host and in guests.
type ledger struct {
	mu      sync.Mutex
	results []guest.Result
	inside  map[string]bool   // names that go test gives to tests inside guests
	said    map[string]string // by package and test, while it runs
	failed  []string
	passed  int
	skipped int
}

// inGuest notes a test that ran inside, and prints its line.
func (l *ledger) inGuest(r guest.Result) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch r.Action {
	case "cost":
		fmt.Printf("=== [%s] %s: %.0f s of CPU\n", r.Guest, r.Package, r.Seconds)
		return
	case "note":
		fmt.Printf("=== %s: %s\n", r.Test, r.Why)
		return
	}
	if l.inside == nil {
		l.inside = map[string]bool{}
	}
	l.inside[r.Host] = true
	l.results = append(l.results, r)
	why := ""
	if r.Why != "" {
		why = ": " + r.Why
	}
	fmt.Printf("--- %s: [%s] %s %s (%.2fs)%s\n", strings.ToUpper(r.Action), r.Guest, strings.TrimPrefix(r.Package, "nodeagent/"), r.Test, r.Seconds, why)
	l.count(r.Action, fmt.Sprintf("[%s] %s %s", r.Guest, r.Package, r.Test))
}

func (l *ledger) count(action, name string) {
	switch action {
	case "pass":
		l.passed++
	case "skip":
		l.skipped++
	case "fail":
		l.failed = append(l.failed, name)
	}
}

// ofMachine notes what go test says of test/machine itself.
func (l *ledger) ofMachine(e event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch e.Action {
	case "build-output":
		fmt.Print(e.Output)
	case "output":
		if e.Test == "" {
			if e.Output != "PASS\n" && e.Output != "FAIL\n" && !strings.Contains(e.Output, "[no test files]") {
				fmt.Print(e.Output)
			}
			return
		}
		l.say(e)
	case "pass", "skip", "fail":
		l.ended(e)
	}
}

// say keeps what a test prints until it has ended.
func (l *ledger) say(e event) {
	if l.said == nil {
		l.said = map[string]string{}
	}
	l.said[e.Package+" "+e.Test] += e.Output
}

// heard is what a test that has ended had printed.
func (l *ledger) heard(e event) string {
	key := e.Package + " " + e.Test
	defer delete(l.said, key)
	return l.said[key]
}

func (l *ledger) ended(e event) {
	said := l.heard(e)
	if e.Test == "" {
		return
	}
	if e.Action == "fail" {
		fmt.Print(said)
	}
	if l.inside[e.Test] {
		return // printed when it ended
	}
	why := ""
	if e.Action == "skip" {
		why = ": " + guest.Reason(said)
	}
	fmt.Printf("--- %s: %s (%.2fs)%s\n", strings.ToUpper(e.Action), e.Test, e.Elapsed, why)
	l.count(e.Action, e.Test)
}

// skipAll notes that the tests of guests are skipped as a whole.
func (l *ledger) skipAll(why string) {
	l.mu.Lock()
	name := strings.TrimPrefix(machine, "nodeagent/")
	fmt.Printf("--- SKIP: %s (0.00s): %s\n", name, why)
	l.count("skip", name)
	l.mu.Unlock()
	l.summary()
	fmt.Println("in 0 s")
}

// onHost notes what a package's tests come to on this host.
func (l *ledger) onHost(e event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch e.Action {
	case "output":
		l.say(e)
	case "pass", "skip", "fail":
		r := guest.Result{Guest: "host", Package: e.Package, Test: e.Test, Action: e.Action}
		if said := l.heard(e); e.Action == "skip" {
			r.Why = guest.Reason(said)
		}
		if e.Test != "" {
			l.results = append(l.results, r)
		}
	}
}

// unseen are those of a package's tests that came to nothing on this host; no names are
// all of them, of which there is one at least.
func (l *ledger) unseen(pkg string, names []string) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	seen := map[string]bool{}
	for _, r := range l.results {
		if r.Guest == "host" && r.Package == pkg {
			seen[r.Test] = true
		}
	}
	if len(names) == 0 && len(seen) == 0 {
		return []string{pkg}
	}
	var out []string
	for _, name := range names {
		if !seen[name] {
			out = append(out, pkg+" "+name)
		}
	}
	return out
}

// nowhere lists the tests that were skipped for a typed reason wherever they were
// tried, and whose reason this host does not remove.
func (l *ledger) nowhere(lacks func(fact string) bool) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	passed, why := map[string]bool{}, map[string]string{}
	for _, r := range l.results {
		key := r.Package + " " + r.Test
		switch {
		case r.Action == "pass":
			passed[key] = true
		case r.Action == "skip":
			fact, ok := strings.CutPrefix(r.Why, "need:")
			fact, _, _ = strings.Cut(fact, ":")
			// What a guest lacks and the host has, make test-host runs.
			if ok && (r.Guest == "host" || lacks(fact)) {
				why[key] = r.Why
			}
		}
	}
	var names []string
	for _, key := range slices.Sorted(maps.Keys(why)) {
		if !passed[key] {
			names = append(names, key+": "+why[key])
		}
	}
	return names
}

// none tells that no test passed, failed or was skipped.
func (l *ledger) none() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.passed+len(l.failed)+l.skipped == 0
}

func (l *ledger) summary() {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Printf("\n%d tests passed, %d failed, %d skipped", l.passed, len(l.failed), l.skipped)
	for _, f := range l.failed {
		fmt.Printf("\nfailed: %s", f)
	}
	fmt.Print(", ")
}
