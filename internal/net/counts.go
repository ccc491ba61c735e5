package net

// Counts are what a backend counts for dashboards.
type Counts struct {
	Rules           []RuleCount // of iptables
	CleanupFailures int         // of nftables: chains that nobody needs and that could not be removed at once
}

// RuleCount is how many rules of ours a table of iptables has.
type RuleCount struct {
	Table  string
	Family Family
	Total  int
	Last   int // of these were written last
}
