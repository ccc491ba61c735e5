package hostcheck

import (
	"cmp"
	"slices"
)

// Severity says what a finding means for the node.
type Severity string

// The severities, the worst first.
const (
	Error   Severity = "error"   // pods will not run, or somebody's will be harmed
	Warning Severity = "warning" // pods run, until a load or a fault that a node must expect
	Info    Severity = "info"    // good to know, nothing to do
)

func (s Severity) rank() int { return slices.Index([]Severity{Error, Warning, Info}, s) }

// Finding is one thing that is wrong with a host.
type Finding struct {
	ID       string   `json:"id"` // stable, such as NA-CGROUP-001
	Severity Severity `json:"severity"`
	Title    string   `json:"title"`
	Seen     string   `json:"seen"`  // what was seen; may hold names that others chose
	Cause    string   `json:"cause"` // where it comes from, and what it does to pods
	Cure     string   `json:"cure"`  // what to do, a command where possible
	// Fatal: the daemon refuses to start, because it would harm what is not its.
	Fatal bool `json:"fatal,omitempty"`
}

// Kind is what the catalogue knows of all findings of one ID.
type Kind struct {
	ID, Title   string
	Severity    Severity
	Cause, Cure string
	Fatal       bool
}

// hit is what a rule found; what is empty is as the kind has it.
type hit struct {
	seen     string
	cause    string
	cure     string
	severity Severity
}

// rule is one kind of finding and the function that finds it.
type rule struct {
	Kind
	look func(*Facts) []hit
}

// one is a single hit.
func one(seen string) []hit { return []hit{{seen: seen}} }

// Catalogue lists every kind of finding, by ID.
func Catalogue() []Kind {
	var all []Kind
	for _, r := range rules() {
		all = append(all, r.Kind)
	}
	slices.SortFunc(all, func(a, b Kind) int { return cmp.Compare(a.ID, b.ID) })
	return all
}

func rules() []rule {
	return slices.Concat(kernelRules(), cgroupRules(), privilegeRules(), netRules(), cniRules(), runtimeRules(),
		agentRules(), diskRules(), limitRules(), unitRules(), nodeRules(), configRules())
}

// ofServices tells whether a kind concerns a daemon that programs the rules of
// services and does nothing else. The rest of the host is the other agent's.
func ofServices(id string) bool {
	switch id {
	case "NA-CONFIG-001", "NA-CONFIG-002", "NA-CONFIG-004", "NA-KERNEL-005", "NA-NET-002", "NA-NET-004", "NA-NET-005", "NA-NET-011",
		"NA-NODE-001", "NA-NODE-002", "NA-NODE-003", "NA-PORT-001", "NA-PORT-003", "NA-UNIT-001", "NA-UNIT-007":
		return true
	}
	return false
}

// Judge returns what is wrong with a host, the worst first, then by ID. A fact
// that is nil was not seen and gives no finding.
func Judge(f Facts) []Finding {
	all := []Finding{}
	for _, r := range rules() {
		if f.Config.ProxyOnly && !ofServices(r.ID) {
			continue
		}
		for _, h := range r.look(&f) {
			all = append(all, Finding{
				ID: r.ID, Title: r.Title, Fatal: r.Fatal, Seen: h.seen,
				Severity: cmp.Or(h.severity, r.Severity), Cause: cmp.Or(h.cause, r.Cause), Cure: cmp.Or(h.cure, r.Cure),
			})
		}
	}
	slices.SortStableFunc(all, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Severity.rank(), b.Severity.rank()), cmp.Compare(a.ID, b.ID), cmp.Compare(a.Seen, b.Seen))
	})
	return all
}

// Count counts findings of a severity.
func Count(all []Finding, s Severity) int {
	n := 0
	for _, f := range all {
		if f.Severity == s {
			n++
		}
	}
	return n
}
